"""What is left on the disk when writing goes wrong: all of a file, or nothing of it."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldmark.data.photos import PhotoTable, build_frame
from fieldmark.data.split import SCHEMA, Split
from fieldmark.data.taxonomy import Taxonomy
from fieldmark.utils import io
from fieldmark.utils.errors import InputError, StoreError

HOLD = """
import os, sys, time
from pathlib import Path
from fieldmark.utils import io
with {block} as held:
    {act}
    print("ready", flush=True)
    time.sleep(60)
"""


@contextmanager
def process(block: str, act: str, path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that has entered `block` on `path` (its `sys.argv[1]`) and stays there."""
    code = HOLD.format(block=block.format(path="Path(sys.argv[1])"), act=act)
    child = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        yield child
    finally:
        child.kill()
        child.communicate()


@contextmanager
def little_space(size: int) -> Iterator[None]:
    """Let every file of this process end at `size` bytes, as on a disk that is full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_an_exception_inside_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    io.write_text(path, "old")

    def fail() -> None:
        with io.replacing(path) as temporary:
            temporary.write_text("new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert names(tmp_path) == ["a.json"]
    assert path.read_text() == "old"


def test_the_old_file_is_read_until_the_new_one_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    io.write_text(path, "old")
    with io.replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert names(tmp_path) == ["a.json"]


@pytest.mark.parametrize("before", [b"old", None])
def test_a_kill_in_the_middle_leaves_what_was_there(tmp_path: Path, before: bytes | None) -> None:
    path = tmp_path / "a.bin"
    if before is not None:
        path.write_bytes(before)
    with process("io.replacing({path})", "held.write_bytes(b'half')", path) as child:
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert (path.read_bytes() if path.exists() else None) == before
    io.write_bytes(path, b"whole")
    assert path.read_bytes() == b"whole"


@pytest.mark.parametrize("before", [b"old", None])
def test_a_full_disk_is_said_and_leaves_nothing_behind(tmp_path: Path, before: bytes | None) -> None:
    path = tmp_path / "a.bin"
    if before is not None:
        path.write_bytes(before)
    there = names(tmp_path)
    with (
        little_space(4096),
        pytest.raises(InputError, match=r"a\.bin could not be written .*free some space"),
    ):
        io.write_bytes(path, b"x" * 100_000)
    assert names(tmp_path) == there
    assert before is None or path.read_bytes() == before


def test_a_place_that_cannot_be_written_to_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    for path in (tmp_path / "file" / "a.json", tmp_path / ("n" * 300)):
        with pytest.raises(InputError, match="could not be written"):
            io.write_text(path, "new")
    with pytest.raises(InputError, match="could not be written"):
        io.write_text(tmp_path, "in place of a folder")
    with pytest.raises(InputError, match="cannot be written to"), io.lock(tmp_path / "file" / "lock"):
        pass
    assert names(tmp_path) == ["file"]


def test_a_lock_that_another_process_holds_is_refused_and_is_free_once_it_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "store" / "lock"
    with process("io.lock({path})", "pass", path) as child:
        with pytest.raises(StoreError, match="in use by another fieldmark"), io.lock(path):
            pass
        child.send_signal(signal.SIGKILL)
        child.wait()
    with io.lock(path):
        pass
    with io.lock(path):  # and again: the block gave it back
        pass


def test_a_lock_is_given_back_after_an_exception(tmp_path: Path) -> None:
    def fail() -> None:
        with io.lock(tmp_path / "lock"):
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    with io.lock(tmp_path / "lock"):
        pass


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"\xff\xfe\x00", b"[" * 200_000, b'{"a": }'],
    ids=["empty", "cut", "not-utf-8", "too-deep", "no-value"],
)
def test_what_is_not_json_is_said(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"a\.json is not valid JSON"):
        io.read_json(path)


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.json", tmp_path):
        with pytest.raises(InputError, match="could not be read"):
            io.read_json(path)


@pytest.mark.parametrize("value", [float("nan"), {"a": [float("inf")]}])
def test_json_holds_no_numbers_that_json_has_not(tmp_path: Path, value: object) -> None:
    with pytest.raises(ValueError, match="Out of range"):
        io.write_json(tmp_path / "a.json", value)
    assert names(tmp_path) == []


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)


@given(value=st.dictionaries(st.text(), VALUES))
def test_a_digest_does_not_depend_on_the_order_of_keys(value: dict[str, object]) -> None:
    backwards = dict(reversed(list(value.items())))
    assert io.digest(value) == io.digest(backwards)
    assert io.digest(value) != io.digest([value])


def test_json_comes_back_as_it_was_written(tmp_path: Path) -> None:
    value = {"ä": [1, 2.5, None, "日本"], "b": {"c": True}}
    io.write_json(tmp_path / "deep" / "a.json", value)
    assert io.read_json(tmp_path / "deep" / "a.json") == value
    assert json.loads((tmp_path / "deep" / "a.json").read_bytes()) == value


def test_the_cache_is_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIELDMARK_CACHE", str(tmp_path / "named"))
    assert io.cache_dir() == tmp_path / "named"
    monkeypatch.delenv("FIELDMARK_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert io.cache_dir() == tmp_path / "xdg" / "fieldmark"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert io.cache_dir() == tmp_path / ".cache" / "fieldmark"
    assert names(tmp_path) == []  # asking makes no folder


def test_a_table_of_photos_on_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    photos = PhotoTable(build_frame({"id": ["1"]}), Taxonomy([]), tmp_path, "folders")
    for table in (photos, Split(pl.DataFrame(schema=SCHEMA), 0, "random")):
        with little_space(100), pytest.raises(InputError, match="free some space"):
            table.write(tmp_path / "table.parquet")
    assert names(tmp_path) == []


def test_a_read_only_place_is_not_called_full(tmp_path: Path) -> None:
    message = str(io.not_written(tmp_path, OSError(errno.EROFS, "Read-only file system")))
    assert "free some space" not in message
    assert "free some space" in str(io.not_written(tmp_path, OSError(errno.ENOSPC, "No space left")))


def test_what_killed_writers_left_is_removed_by_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = tmp_path / ".a.json.0123abcd.part", tmp_path / ".b.json.0123abcd.part"
    mine, of_safetensors = tmp_path / ".notes.part", tmp_path / ".tmpNHtsNy"
    for path in (old, new, mine, of_safetensors):
        path.write_text("half")
    for path in (old, mine, of_safetensors):
        os.utime(path, (0, 0))
    io.write_json(tmp_path / "c.json", 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == [new.name, mine.name, "c.json"]


def test_temporary_folders_of_killed_processes_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for name in (f"fieldmark-{ended.pid}-old", f"fieldmark-{ended.pid}-new", f"fieldmark-{os.getpid()}-old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_text("large")
    for path in tmp_path.glob("*-old"):
        os.utime(path, (0, 0))
    made = io.scratch()
    left = {f"fieldmark-{ended.pid}-new", f"fieldmark-{os.getpid()}-old", made.name}
    assert {path.name for path in tmp_path.iterdir()} == left
