"""A job in a process of its own: `python -m fieldmark.app.runner FOLDER WORD...` runs `fieldmark WORD...`.

It is the ordinary command; only its progress is written into the log as well, and photos that were named are
measured for the order by likeness. The process belongs to no page
and no application: both may end while it works on. That it works is told by the lock that it holds, which the
operating system frees however it ends.
"""

from __future__ import annotations

import runpy
import signal
import sys
import time
from pathlib import Path
from typing import Any

from fieldmark.utils import io
from fieldmark.utils.logging import listening

LOCK, RESULT, PROGRESS = "running", "result.json", "@progress"
_EVERY = 0.5  # seconds between two lines of progress
_REFUSED = 2  # exit code of `predict` where photos could not be used


class _Progress:
    """Writes lines `@progress SECONDS DONE TOTAL STAGE` to standard error; the seconds are of the stage."""

    def __init__(self) -> None:
        self._stage, self._began, self._last, self._done = "", 0.0, 0.0, 0

    def on_progress(self, stage: str, done: int, total: int | None) -> None:
        when = time.monotonic()
        if stage != self._stage or done < self._done:
            self._stage, self._began, self._last = stage, when, -_EVERY
        self._done = done
        if when - self._last >= _EVERY or done == total:
            self._last = when
            print(PROGRESS, round(when - self._began), done, total or 0, stage, file=sys.stderr, flush=True)  # noqa: T201

    def on_epoch(self, epoch: Any) -> None:
        """Epochs are steps of a stage that reports itself."""


def main(folder: Path, words: list[str]) -> int:
    """Run the command and write down how it ended: its exit code."""
    code = 1
    # Background jobs of a shell inherit that the signal is ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with io.lock(folder / LOCK, "another project"):
        (folder / RESULT).unlink(missing_ok=True)
        sys.argv = ["fieldmark", *words]
        try:
            with listening(_Progress()):
                code = _run()
                if words[0] == "predict" and code in (0, _REFUSED):
                    from fieldmark.app import likeness

                    likeness.measure(folder)
        except KeyboardInterrupt:
            code = 130
        finally:
            io.write_json(folder / RESULT, {"code": code, "ended": time.time()})
    return code


def _run() -> int:
    """Run the command that the arguments of this process say; return its exit code."""
    try:
        runpy.run_module("fieldmark", run_name="__main__")
    except SystemExit as leave:
        return leave.code if isinstance(leave.code, int) else int(leave.code is not None)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
