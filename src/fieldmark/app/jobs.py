"""Jobs: ordinary commands that run in processes of their own, with a log in the project's folder.

    jobs/0001-train/job.json     the words of the command, and what the application does with its result
    jobs/0001-train/log.txt      its output; lines of progress begin with @progress
    jobs/0001-train/result.json  its exit code, once it has ended

A job goes on after its page, or the application, has ended. One that was killed is resumed by the same
command.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from fieldmark.app import runner
from fieldmark.utils import io
from fieldmark.utils.errors import InputError
from fieldmark.utils.languages import say
from fieldmark.utils.printable import printable

State = Literal["running", "done", "failed", "cancelled", "interrupted"]
_START = 5.0  # seconds that a process may take to lock its folder
_TAIL = 64 * 1024  # bytes of a log that are read


@dataclass(frozen=True)
class Progress:
    """How far a job is: its stage, what of it is done, and the seconds that are left (None: unknown)."""

    stage: str = "starting"
    done: int = 0
    total: int = 0
    left: float | None = None


@dataclass(frozen=True)
class Job:
    """One command that was started for a project."""

    folder: Path

    @cached_property
    def about(self) -> dict[str, Any]:
        """Return `job.json`: `kind`, `words`, and what else was given when it was made."""
        found: dict[str, Any] = io.read_json(self.folder / "job.json")
        return found

    @property
    def kind(self) -> str:
        """Return what it is for: train, grow or predict."""
        return str(self.about["kind"])

    @property
    def command(self) -> str:
        """Return the command as a person would type it."""
        return shlex.join(["fieldmark", *self.about["words"]])

    @property
    def state(self) -> State:
        """Return whether it runs, or how it ended."""
        if self.locked:
            return "running"
        with suppress(InputError):
            code = io.read_json(self.folder / runner.RESULT)["code"]
            return {0: "done", 130: "cancelled"}.get(code, "failed")  # type: ignore[return-value]
        started = (self.folder / "log.txt").stat().st_mtime if (self.folder / "log.txt").exists() else 0.0
        return "running" if time.time() - started < _START else "interrupted"

    @property
    def locked(self) -> bool:
        """Return whether its process is there, and past its start."""
        if not (self.folder / runner.LOCK).exists():
            return False
        try:
            with FileLock(self.folder / runner.LOCK, timeout=0):
                return False
        except Timeout:
            return True

    def lines(self) -> list[str]:
        """Return the last lines of the log."""
        with suppress(OSError), (self.folder / "log.txt").open("rb") as handle:
            handle.seek(max(0, (self.folder / "log.txt").stat().st_size - _TAIL))
            return [printable(line) for line in handle.read().decode("utf-8", "replace").splitlines()]
        return []

    def text(self) -> str:
        """Return the last lines of the log without those of progress."""
        return "\n".join(line for line in self.lines() if not line.startswith(runner.PROGRESS))

    def progress(self) -> Progress:
        """Return how far it is, by the last line of progress."""
        lines = (line.split(" ", 4) for line in reversed(self.lines()) if line.startswith(runner.PROGRESS))
        found = next((each for each in lines if len(each) == 5), None)
        if found is None or not all(each.isdecimal() for each in found[1:4]):
            return Progress()
        seconds, done, total = map(int, found[1:4])
        left = seconds * (total - done) / done if seconds and done else None
        return Progress(found[4], done, total, left)

    def start(self) -> None:
        """Start the command, or go on with it after a kill; raises InputError while it runs."""
        if self.locked:
            raise InputError(say("The job is running already: wait until it has ended, or cancel it."))
        (self.folder / runner.RESULT).unlink(missing_ok=True)
        words = [sys.executable, "-m", "fieldmark.app.runner", str(self.folder), *self.about["words"]]
        apart: dict[str, Any] = (
            {"start_new_session": True} if os.name == "posix" else {"creationflags": 0x200}
        )
        with (self.folder / "log.txt").open("ab") as log:
            log.write(f"$ {self.command}\n".encode())
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, **apart
            )
        _started[process.pid] = process
        io.write_json(self.folder / "pid.json", process.pid)

    def cancel(self) -> None:
        """Stop it as Ctrl-C does: what is finished is kept."""
        if not self.locked:
            return
        pid = int(io.read_json(self.folder / "pid.json"))
        with suppress(OSError):
            os.kill(pid, signal.SIGINT if os.name == "posix" else signal.SIGTERM)


_started: dict[int, subprocess.Popen[bytes]] = {}
"""Processes that this one started: they are waited for, so that none stays as a zombie."""


def create(folder: Path, kind: str, words: Sequence[str], **more: Any) -> Job:
    """Make the folder of a new job, `NNNN-KIND`; `{job}` in a word becomes its path. It is not started."""
    (folder / "jobs").mkdir(exist_ok=True)
    number = 1 + max((int(each.folder.name[:4]) for each in every(folder)), default=0)
    place = folder / "jobs" / f"{number:04}-{kind}"
    place.mkdir()
    said = [word.replace("{job}", str(place)) for word in words]
    io.write_json(place / "job.json", {"kind": kind, "words": said, **more})
    return Job(place)


def every(folder: Path) -> list[Job]:
    """Return all jobs of a project, the oldest first."""
    for pid, process in list(_started.items()):
        if process.poll() is not None:
            del _started[pid]
    found = (folder / "jobs").iterdir() if (folder / "jobs").is_dir() else ()
    known = (
        each for each in found if re.fullmatch(r"\d{4}-\w+", each.name) and (each / "job.json").is_file()
    )
    return [Job(each) for each in sorted(known)]


def running(folder: Path) -> Job | None:
    """Return the job that runs, if any: one at a time is started."""
    return next((each for each in every(folder)[-1:] if each.state == "running"), None)


def last(folder: Path, kind: str) -> Job | None:
    """Return the last job of a kind."""
    return next((each for each in reversed(every(folder)) if each.kind == kind), None)


def mark(job: Job, **values: Any) -> None:
    """Write down what became of a job's result, such as that it was taken over."""
    about: Mapping[str, Any] = {**job.about, **values}
    io.write_json(job.folder / "job.json", about)
    job.__dict__.pop("about", None)
