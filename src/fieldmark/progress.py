"""Progress on the terminal: what is done, the rate, the time left.

Progress goes to standard error, so that what a command prints can be piped. Where standard error is
no terminal, a line at the end of each stage is all that is printed.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn


class Stage:
    """One piece of work that is under way; call `advance` as it goes."""

    def __init__(self, bar: Progress | None, label: str, total: int | None, unit: str) -> None:
        self._bar = bar
        self._task = bar.add_task(label, total=total, unit=unit, note="") if bar else None
        self.done = 0

    def advance(self, count: int = 1, note: str = "") -> None:
        """Say that `count` more are done; `note` is shown behind the bar."""
        self.done += count
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=count, note=note)

    def at(self, done: int, total: int | None) -> None:
        """Say how many are done in all, and of how many: for a download that goes on from the middle."""
        self.done = done
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, total=total)


def say(text: str, *, by_all: bool = False) -> None:
    """Print one line for the person at the terminal, to standard error.

    Of several processes that `torchrun` started the first one speaks, unless it is `by_all`.
    """
    if not by_all and os.environ.get("RANK", "0") != "0":
        return
    print(text, file=sys.stderr, flush=True)  # noqa: T201  # the one place where text goes out


def seconds(value: float) -> str:
    """A duration for a person: `8.2 s`, `3 min 20 s`, `2 h 5 min`."""
    if value < 60:
        return f"{value:.1f} s"
    if value < 3600:
        return f"{value // 60:.0f} min {value % 60:.0f} s"
    return f"{value // 3600:.0f} h {value % 3600 // 60:.0f} min"


_overall: list[str] = []


@contextmanager
def overall(label: str, total: int | None = None, unit: str = "photos") -> Iterator[Stage]:
    """A stage for work that is made of stages: only this one is shown."""
    with stage(label, total, unit) as current:
        _overall.append(label)
        try:
            yield current
        finally:
            _overall.remove(label)


@contextmanager
def stage(label: str, total: int | None = None, unit: str = "photos") -> Iterator[Stage]:
    """Show a bar with rate and time left while the block runs, and one line when it is done.

    A stage within an `overall` one shows nothing.
    """
    if _overall:
        yield Stage(None, label, total, unit)
        return
    bar = _bar() if sys.stderr.isatty() else None
    current = Stage(bar, label, total, unit)
    start = time.perf_counter()
    if bar is None:
        yield current
    else:
        with bar:
            yield current
    elapsed = time.perf_counter() - start
    rate = f", {_rate(current.done / elapsed, unit)}" if current.done and elapsed > 0 else ""
    say(f"{label}: {current.done:,} {unit} in {seconds(elapsed)}{rate}")


def _rate(speed: float, unit: str) -> str:
    """A rate in words: whole numbers, but two figures of one below 10."""
    return f"{speed:,.0f} {unit}/s" if speed >= 9.95 else f"{speed:.2g} {unit}/s"


def _bar() -> Progress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: object) -> Text:
            speed = getattr(task, "speed", None)
            unit = getattr(task, "fields", {}).get("unit", "")
            return Text(_rate(speed, unit) if speed else "")

    columns: list[str | ProgressColumn] = [
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    ]
    return Progress(*columns, console=Console(stderr=True), transient=True)
