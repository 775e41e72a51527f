"""Run a command with a fault at one call, run it again without, and compare with a run without faults."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.torture import commands
from tests.torture.commands import COMMANDS, Command
from tests.torture.shim import Fault

from fieldmark.utils import io

_DAY = 25 * 3600  # seconds: temporary files younger than a day may be another process's, and stay

# What may differ between two equal runs: times, and how much of the work was in the cache already.
_TIMES = (
    re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(\+00:00|Z)?"),  # when it was made
    re.compile(
        rb'"(features|training|in all|photo_ms|[a-z_]*seconds)": ([-+.e\d]+|null)'
    ),  # how long it took
    re.compile(rb"<dt>(Time, .*|Duration)</dt>.*</dd>"),
    re.compile(rb'"computed": \d+'),  # features that were not in the cache
    re.compile(
        rb'"(README.md|report.html)": "[0-9a-f]{64}"'
    ),  # digests of files with times, compared themselves
    re.compile(rb'^ "digest": "[0-9a-f]{64}",?$', re.M),  # of the file itself, with its times
    re.compile(rb'^[0-9a-f]{8} {"written": .*\n', re.M),  # a line for each time that a file was written
)
# What may stay in the cache until its folder is next written to: a killed writer's mark (features/cache.py),
# its lock, which the system has freed, and its temporary files; how long features took, which is of the last
# run that computed any; and what ONNX Runtime keeps among the temporary files.
_STAYS = re.compile(r"cache/.*(unsynced\.bin|/lock|\.part|/\.tmp\w{6}|/cost\.json)|tmp/\.ses")
_RANDOM = re.compile(r"(?<=[.-])[0-9a-f]{8}(?=\.part|/|$)|(?<=fieldmark-)\d+-\w+|(?<=/\.tmp)\w{6}$")
_TEXT = (".json", ".md", ".html", ".jsonl", ".journal")


@dataclass
class Verdict:
    """What came of one point."""

    command: str
    fault: str
    at: int
    code: int = 0
    problems: list[str] = field(default_factory=list)
    identical: bool = True
    ran_again: bool = False  # not where it ended well, or left the very files that another point had left


class Torture:
    """A warm Python, a folder in which commands run, and what each leaves without faults."""

    def __init__(self, folder: Path, library: Path, draw: Callable[[int, int], bytes]) -> None:
        self.folder, self.work = folder, folder / "work"
        for name in ("states", "server", "io"):
            (folder / name).mkdir(parents=True)
        self._draw, self._clean = draw, dict[str, tuple[dict[str, str], bytes]]()
        self._after = dict[tuple[str, bool, str], tuple[list[str], bool]]()
        commands.publish(folder / "server", draw)
        commands.prepare(folder / "states" / "start", draw)
        quiet = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
        serve = partial(quiet, directory=str(folder / "server"))
        self._httpd = ThreadingHTTPServer(("127.0.0.1", 0), serve)  # type: ignore[arg-type]
        threading.Thread(target=self._httpd.serve_forever, daemon=True).start()
        environment = os.environ | {
            **{"LD_PRELOAD": str(library), "FIELDMARK_CACHE": str(self.work / "cache")},
            **{"OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1", "TMPDIR": str(self.work / "tmp")},
        }
        self._warm = subprocess.Popen(
            [sys.executable, "-m", "tests.torture.warm"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def close(self) -> None:
        """Stop the warm Python and the server."""
        self._httpd.shutdown()
        self._httpd.server_close()
        self._warm.stdin.close()  # type: ignore[union-attr]
        self._warm.wait()
        self._warm.stdout.close()  # type: ignore[union-attr]

    def run(self, command: Command, fault: Fault | None = None, at: int = 0) -> tuple[int, bytes, str]:
        """Run a command in the work folder; its exit code, the kind of each call, and what it said."""
        url = f"http://127.0.0.1:{self._httpd.server_port}"
        said = self.folder / "io" / "err"
        job = {
            "argv": [url if each == "URL" else each for each in command.argv],
            **{
                "cwd": str(self.work),
                "folder": str(self.work),
                "counter": str(self.folder / "io" / "counter"),
                "modules": str(self.folder / "io" / "modules"),
            },
            **{"out": str(self.folder / "io" / "out"), "err": str(said), "environment": {}, "seconds": 300},
            **{"at": at, "code": 0, "lasts": False, "kinds": 0},
        }
        if fault:
            job |= {"code": fault.code, "lasts": fault.lasts, "kinds": fault.kinds}
        assert self._warm.stdin is not None
        assert self._warm.stdout is not None
        self._warm.stdin.write(json.dumps(job) + "\n")
        self._warm.stdin.flush()
        code, count = json.loads(self._warm.stdout.readline())
        calls = (self.folder / "io" / "counter").read_bytes()[8:][:count]
        return code, calls, said.read_text(errors="replace")

    def state(self, command: Command) -> Path:
        """The folder that a command starts in, with what commands before it left."""
        if not command.after:
            return self.folder / "states" / "start"
        before = next(each for each in COMMANDS if each.name == command.after[0])
        place = self.folder / "states" / before.name
        if not place.exists():
            self.clean(before)
        return place

    @staticmethod
    def _users(folder: Path) -> dict[Path, bytes]:
        """What is the user's own in a folder: photos and the recipe of a study."""
        own = [path for each in ("photos", "more") for path in sorted((folder / each).rglob("*.jpg"))]
        there = [path for path in (*own, folder / "mine.py") if path.exists()]
        return {path.relative_to(folder): path.read_bytes() for path in there}

    def clean(self, command: Command) -> tuple[dict[str, str], bytes]:
        """What a command leaves without faults, by path, and the kind of each call that it makes."""
        if command.name not in self._clean:
            commands.copy(self.state(command), self.work)
            code, calls, said = self.run(command)
            if code:
                raise RuntimeError(f"{command.name} fails without any fault: {said}")
            commands.copy(self.work, self.folder / "states" / command.name)
            self._clean[command.name] = (contents(self.work), calls)
        return self._clean[command.name]

    def point(self, command: Command, fault: Fault, at: int) -> Verdict:
        """Run a command with one fault, and again without."""
        self.clean(command)
        before = self._users(self.state(command))
        found = Verdict(command.name, fault.name, at)
        commands.copy(self.state(command), self.work)
        found.code, _, said = self.run(command, fault, at)
        found.problems += list(_bad_end(found.code, fault, said))
        now = self._users(self.work)
        changed = [name for name, data in before.items() if now.get(name) != data]
        found.problems += [f"{name} of the user was changed" for name in changed]
        if wrong := commands.loads(self.work / command.out):
            found.problems.append(wrong)
        if command.name == "retrain" and not (self.work / "model").exists():
            # Between two renames, where the system cannot exchange folders: the next load puts it back.
            found.problems.append("the old classifier is gone")
        left = (command.name, found.code == 0, as_left(self.work))
        if left not in self._after:
            found.ran_again = found.code != 0 or self._is_only_untidy(command)
            self._after[left] = self._again(command, found.ran_again)
        more, found.identical = self._after[left]
        found.problems += more
        return found

    def _is_only_untidy(self, command: Command) -> bool:
        """Whether a disk that became read-only or broken at the very end kept a lock or an old folder."""
        now, (wanted, _) = contents(self.work), self.clean(command)
        return now.items() > wanted.items() and all(
            any(part.startswith(".") for part in Path(name).parts) for name in now.keys() - wanted.keys()
        )

    def _again(self, command: Command, run: bool) -> tuple[list[str], bool]:
        """What is wrong after the same command has run again; whether all bytes are as without a fault."""
        wanted, _ = self.clean(command)
        problems = []
        _age(self.work)
        if run:
            code, _, said = self.run(command)
            if code:
                problems.append(f"run again, it ends with {code}: {said[-300:]}")
        now = contents(self.work)
        for name in sorted(now.keys() ^ wanted.keys()):
            problems.append(f"{name} is {'left over' if name in now else 'missing'}")
        differs = [name for name in now.keys() & wanted.keys() if now[name] != wanted[name]]
        states = self.folder / "states" / command.name
        problems += [_difference(name, states / name, self.work / name) for name in sorted(differs)]
        return problems, not differs


def _bad_end(code: int, fault: Fault, said: str) -> Iterator[str]:
    lines = [line for line in said.strip().splitlines() if line]
    if "Traceback" in said:
        yield f"a traceback: {lines[-1]}"
    if fault.name == "kill":
        if code not in (-9, 0, 2):
            yield f"exit code {code}"
    elif code not in ((0, 130) if fault.code < 0 else (0, 2)):
        yield f"exit code {code}: {said[-300:]}"
    elif code and not (lines and lines[-1].startswith("fieldmark: ") and lines[-1].endswith(".")):
        yield f"the last line is no sentence: {lines[-1:]}"


def _age(folder: Path) -> None:
    """Make temporary files so old that nobody can be writing them any more."""
    old = time.time() - _DAY
    for path in folder.rglob("*"):
        if io.TEMPORARY.fullmatch(path.name) or path.name.endswith(".part") or path.parent.name == "tmp":
            os.utime(path, (old, old), follow_symlinks=False)


def contents(folder: Path) -> dict[str, str]:
    """The digests of all files in a folder, without what may differ between two equal runs."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not _STAYS.fullmatch(str(path.relative_to(folder))):
            found[str(path.relative_to(folder))] = hashlib.sha256(_settled(path)).hexdigest()
    return found


def as_left(folder: Path) -> str:
    """A digest of all that a fault has left, but for random names and for who held a lock.

    The same command run again finds the same, and so does the same.
    """
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        name = _RANDOM.sub("", str(path.relative_to(folder)))
        data = path.read_bytes() if path.is_file() and not name.endswith("lock") else b""
        found.update(f"{name} {path.is_dir()} {hashlib.sha256(data).hexdigest()}\n".encode())
    return found.hexdigest()


def _difference(name: str, wanted: Path, found: Path) -> str:
    lines = [_settled(path).decode(errors="replace").splitlines() for path in (wanted, found)]
    first = (
        next((pair for pair in zip(*lines, strict=False) if pair[0] != pair[1]), ("", ""))
        if name.endswith(_TEXT)
        else ""
    )
    return f"{name} differs: {str(first)[:300]}"


def _settled(path: Path) -> bytes:
    data = path.read_bytes()
    for times in _TIMES if path.suffix in _TEXT else ():
        data = times.sub(b"", data)
    return data
