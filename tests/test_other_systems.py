"""Windows and macOS, as far as Linux can show it: calls that they lack, names they refuse."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

# What Windows has not; its own libraries do without, so that only fieldmark is refused them.
PROGRAM = '''
import builtins, json, multiprocessing, os, signal, sys

MODULES = {"fcntl", "resource", "pwd", "grp", "termios", "uvloop"}
CALLS = (
    "fork sched_getaffinity geteuid getuid pwrite pread posix_fallocate posix_fadvise sync fdatasync "
    "setsid getpgid killpg sysconf statvfs mkfifo fchmod getloadavg sendfile copy_file_range"
)
written = []
watched = os.path.join(os.getcwd(), "")


def audit(event, arguments):
    if event == "open":
        path, _, flags = arguments
        if isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            note(path)
    elif event in ("os.mkdir", "os.link", "os.rename"):
        note(arguments[1 if event != "os.mkdir" else 0])


def note(path):
    if isinstance(path, (str, bytes, os.PathLike)):
        whole = os.path.abspath(os.fsdecode(path))
        if whole.startswith(watched):
            written.append(whole.removeprefix(watched))


plain = builtins.__import__


def blocked(name, globals=None, locals=None, fromlist=(), level=0):
    if name in MODULES and (globals or {}).get("__name__", "").startswith("fieldmark"):
        raise ImportError(f"no module named {name} on this system")
    return plain(name, globals, locals, fromlist, level)


class System:
    """The module `os` as fieldmark sees it."""

    def __getattr__(self, name):
        if name in CALLS.split():
            raise AttributeError(f"module 'os' has no attribute {name!r}")
        return getattr(os, name)


system = System()


def importing(name, globals=None, locals=None, fromlist=(), level=0):
    module = blocked(name, globals, locals, fromlist, level)
    if name == "os" and not fromlist and (globals or {}).get("__name__", "").startswith("fieldmark"):
        return system
    return module


builtins.__import__ = importing
multiprocessing.set_start_method("spawn")
sys.addaudithook(audit)
for each in json.loads(sys.argv[1]):
    from fieldmark import cli

    sys.argv = ["fieldmark", *each]
    try:
        cli.main()
    except SystemExit as leave:
        assert not leave.code, (each, leave.code)
import fieldmark.utils.io

assert not hasattr(fieldmark.utils.io.os, "fork")
import fieldmark.serving.app
import fieldmark.serving.server
from fieldmark.serving import decoder
from fieldmark.data.transforms import Preprocess

decoder._limit(1000)
decoder._allow_seconds(1)
data = open(json.loads(os.environ["PHOTO"]), "rb").read()
kind, crops = decoder._outcome(data, None, [Preprocess(size=16, fit="squash")], decoder.Task([], 10**6, 9.0))
assert kind == decoder.CROP, crops
print(json.dumps(sorted(set(written))))
'''
RESERVED = {"CON", "PRN", "AUX", "NUL", *(f"{name}{n}" for name in ("COM", "LPT") for n in range(1, 10))}


def refused(name: str) -> bool:
    """Whether Windows refuses a name of a file or folder."""
    bad = any(char in '<>:"\\|?*' or ord(char) < 32 for char in name)
    return bad or name.split(".", maxsplit=1)[0].upper() in RESERVED or name[-1] in ". " or len(name) > 255


@pytest.fixture(scope="module")
def done(draw: Any, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The files that commands wrote, in a Python that has nothing that Windows has not."""
    pytest.importorskip("fastapi", reason="fieldmark[serve] is not installed")
    folder = tmp_path_factory.mktemp("system")
    (folder / "work").mkdir()
    # Two classes that a disk of Windows or macOS takes for one, and two whose names it refuses.
    for label, name in enumerate(("Fox", "fox", "NUL", "a: b?")):
        (folder / "photos" / name).mkdir(parents=True)
        for number in range(5):
            (folder / "photos" / name / f"{number}.jpg").write_bytes(draw(label, number))
    photos, table = str(folder / "photos"), "photos.parquet"
    network = ("--backbone", "shufflenet_v2_x0_5", "--weights", "random", "--engine", "torch", "--size", "64")
    commands = [
        ("index", photos, "--out", table),
        ("train", table, "--out", "model", *network, "--groups", "none", "--thumbnails", "--epochs", "2"),
        (
            "train",
            table,
            "--out",
            "model",
            *network,
            "--groups",
            "none",
            "--epochs",
            "1",
            "--transfer",
            "all",
        ),
        ("predict", "model", photos, "--out", "names.csv"),
        ("check", table, "--out", "checked", *network[:6]),
    ]
    more = {"FIELDMARK_CACHE": "cache", "PHOTO": json.dumps(f"{photos}/Fox/0.jpg"), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(commands)],
        cwd=folder / "work",
        env=os.environ | more,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return list(json.loads(result.stdout.splitlines()[-1]))


def test_commands_run_without_what_only_posix_systems_have(done: list[str]) -> None:
    assert {"photos.parquet", "names.csv", "names.csv.journal"} <= {Path(name).name for name in done}
    assert any(name.startswith("cache/features/") for name in done)
    assert any("staging" in name and name.endswith("classifier.json") for name in done)


def test_names_of_written_files_are_taken_by_windows(done: list[str]) -> None:
    assert not [name for name in done if any(map(refused, Path(name).parts))]
    by_case: dict[str, set[str]] = {}
    for name in done:
        by_case.setdefault(name.lower(), set()).add(name)
    assert not [names for names in by_case.values() if len(names) > 1]
    assert max(map(len, done)) < 150  # of the 260 characters that a path may have, below the user's folder


@pytest.mark.parametrize("name", ["hf-hub:owner/name", "onnx:net.onnx", "a<b>c|d?e*", "plain-1.5_b"])
def test_names_of_networks_become_names_of_files(name: str) -> None:
    from fieldmark.experiments.recipes import Run

    row = Run("table", "A network", name)
    assert not refused(row.id)
    assert "/" not in row.id
    assert ("plain-1.5_b" in row.id) == (name == "plain-1.5_b")
