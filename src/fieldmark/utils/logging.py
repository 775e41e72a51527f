"""Logging and progress: one logger for each module below `fieldmark`, and bars with rate and time left.

As a library, fieldmark logs to the logger `fieldmark` and prints nothing. The command line shows messages
on standard error (`configure_command_line`), so that what a command prints can be piped. Progress bars
are drawn on a terminal only, unless `disable_progress_bars` or `FIELDMARK_PROGRESS=0` turned them off.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from fieldmark.utils.printable import printable

if TYPE_CHECKING:
    from rich.progress import Progress, Task

logger = logging.getLogger(__name__)


class Listener(Protocol):
    """Is told of progress and epochs."""

    def on_progress(self, stage: str, done: int, total: int | None) -> None:
        """React to progress: how many are done, of how many (None: unknown)."""

    def on_epoch(self, epoch: Any) -> None:
        """React to the end of an epoch of training."""


_shown = os.environ.get("FIELDMARK_PROGRESS", "1") != "0"
_listeners: ContextVar[tuple[Listener, ...]] = ContextVar("listeners", default=())
_overall: list[str] = []


def enable_progress_bars() -> None:
    """Draw progress bars where standard error is a terminal (the default)."""
    global _shown  # noqa: PLW0603  # one switch for the process, as in other libraries
    _shown = True


def disable_progress_bars() -> None:
    """Draw no progress bars, for the rest of the process."""
    global _shown  # noqa: PLW0603
    _shown = False


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Report progress and epochs of the work inside the block to `listener`."""
    token = _listeners.set((*_listeners.get(), listener))
    try:
        yield
    finally:
        _listeners.reset(token)


def report_epoch(epoch: Any) -> None:
    """Tell the listeners that an epoch of training ended."""
    for listener in _listeners.get():
        listener.on_epoch(epoch)


class _StandardError(logging.Handler):
    """Writes messages to what is standard error at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        # Of several processes that `torchrun` started, the first one reports; errors come from all.
        if record.levelno < logging.ERROR and os.environ.get("RANK", "0") != "0":
            return
        print(printable(self.format(record)), file=sys.stderr, flush=True)  # noqa: T201


def configure_command_line() -> None:
    """Show the messages of fieldmark on standard error, without a prefix; once for a process."""
    package = logging.getLogger("fieldmark")
    if not any(isinstance(each, _StandardError) for each in package.handlers):
        package.addHandler(_StandardError())
    package.setLevel(logging.INFO)


class ProgressBar:
    """One stage of work; call `advance` as it goes. In `MB` bytes are counted, megabytes shown."""

    def __init__(self, bar: Progress | None, label: str, total: int | None, unit: str) -> None:
        self._bar, self._label, self._total = bar, label, total
        self._per = 1_000_000 if unit == "MB" else 1
        self._task = bar.add_task(label, total=self._shown(total), unit=unit, note="") if bar else None
        self._done = 0

    @property
    def done(self) -> int:
        """How much is done, in the unit of the bar."""
        return self._done // self._per

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count `count` more as done; `note` is shown behind the bar."""
        self.at(self._done + count, self._total, note)

    def at(self, done: int, total: int | None, note: str = "") -> None:
        """Set how many are done, and of how many: for a download that is resumed."""
        self._done, self._total = done, total
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self.done, total=self._shown(total), note=note)
        for listener in _listeners.get():
            listener.on_progress(self._label, self.done, self._shown(total))

    def _shown(self, total: int | None) -> int | None:
        return total and (total // self._per or None)


def format_duration(value: float) -> str:
    """Format seconds for a person: `8.2 s`, `3 min 20 s`, `2 h 5 min`."""
    if value < 60:
        return f"{value:.1f} s"
    if value < 3600:
        return f"{value // 60:.0f} min {value % 60:.0f} s"
    return f"{value // 3600:.0f} h {value % 3600 // 60:.0f} min"


@contextmanager
def overall_progress(label: str, total: int | None = None, unit: str = "photos") -> Iterator[ProgressBar]:
    """Show one bar for work that has stages of its own; those are not shown."""
    with progress_bar(label, total, unit) as current:
        _overall.append(label)
        try:
            yield current
        finally:
            _overall.remove(label)


@contextmanager
def progress_bar(label: str, total: int | None = None, unit: str = "photos") -> Iterator[ProgressBar]:
    """Show a bar with rate and time left while the block runs, and log one line when it is done.

    A bar inside `overall_progress` is not shown.
    """
    if _overall:
        yield ProgressBar(None, label, total, unit)
        return
    bar = _bar() if _shown and sys.stderr.isatty() else None
    current = ProgressBar(bar, label, total, unit)
    start = time.perf_counter()
    with bar or nullcontext():
        yield current
    elapsed = time.perf_counter() - start
    rate = f", {_rate(current.done / elapsed, unit)}" if current.done and elapsed > 0 else ""
    logger.info(f"{label}: {current.done:,} {unit} in {format_duration(elapsed)}{rate}")


def _rate(speed: float, unit: str) -> str:
    """Format a rate: whole numbers, but two significant digits below 10."""
    return f"{speed:,.0f} {unit}/s" if speed >= 9.95 else f"{speed:.2g} {unit}/s"


def _bar() -> Progress:
    from rich import progress as rich
    from rich.console import Console
    from rich.text import Text

    class Rate(rich.ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(_rate(task.speed, task.fields["unit"]) if task.speed else "")

    return rich.Progress(
        rich.TextColumn("{task.description}"),
        rich.BarColumn(),
        rich.MofNCompleteColumn(),
        Rate(),
        rich.TimeRemainingColumn(),
        rich.TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
        transient=True,
    )
