"""The command line: one file for each command, which builds a configuration and makes one call.

Nothing heavy is imported before a command is chosen, so that `--help` answers at once. To add a command:
a file beside these with a function of the same name, and the name in `COMMANDS`. Its docstring is its help.
"""

from __future__ import annotations

import _thread
import errno
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import TextIO, cast

import click

from fieldmark import __version__
from fieldmark.cli.help import Command, Group
from fieldmark.utils import memory
from fieldmark.utils.errors import FieldmarkError
from fieldmark.utils.io import not_written
from fieldmark.utils.logging import configure_command_line
from fieldmark.utils.printable import PrintableStream

logger = logging.getLogger(__name__)

COMMANDS = {
    "Quick start": ("demo",),
    "Data": ("fetch", "index", "merge", "stats", "check", "split", "extract", "detect"),
    "Train": ("train", "grow", "backbones", "rank"),
    "Use": ("predict", "explain", "export", "serve", "app", "cache"),
    "Study": ("study",),
}
"""The commands in the groups and the order in which `--help` lists them."""

EXIT_INPUT = 2
EXIT_INTERRUPTED = 130
_OF_A_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)  # wherever it is met: no defect of ours


def command_line(only: str = "") -> click.Group:
    """Return the command line.

    Args:
        only: the command that is called: the others are not built then, which shortens the start. All are
            built where there is none of this name.
    """
    app = Group("fieldmark", help="Train a species classifier from labelled photos, and measure its error.")
    click.version_option(__version__, message="%(prog)s %(version)s", help="Print the version.")(app)
    known = any(only in names for names in COMMANDS.values())
    for group, names in COMMANDS.items():
        for name in names:
            if known and name != only:
                continue
            file = "browser" if name == "app" else name  # `app` is the whole command line, below
            module = import_module(f"fieldmark.cli.{file}")
            app.add_command(Command.of(getattr(module, name), module.__doc__ or "", group))
    return app


def __getattr__(name: str) -> click.Group:
    """Return the command line with all commands as `app`."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return command_line()


def _stop(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _stop_again(ignored: sys.UnraisableHookArgs) -> None:
    """Stop again: Python ignores what a callback of an import or of the collector raises."""
    if issubclass(ignored.exc_type, KeyboardInterrupt):
        again = threading.Timer(0.1, _thread.interrupt_main, [signal.SIGTERM])
        again.daemon = True
        again.start()
    else:
        sys.__unraisablehook__(ignored)


@contextmanager
def _as_program() -> Iterator[None]:
    """Stop at SIGTERM as at Ctrl-C, and print names of files and classes, whose origin is unknown, with their
    control characters written out; afterwards all is as before, for a Python that goes on."""
    out, hook, term = sys.stdout, sys.unraisablehook, None
    with suppress(ValueError):  # not in the main thread
        term = signal.signal(signal.SIGTERM, _stop)
    sys.unraisablehook, sys.stdout = _stop_again, cast(TextIO, PrintableStream(out))
    try:
        yield
    finally:
        sys.unraisablehook, sys.stdout = hook, out
        if term is not None:
            signal.signal(signal.SIGTERM, term)


def main() -> None:
    """Run the command line: one sentence and exit code 2 for bad input, 130 after Ctrl-C or SIGTERM."""
    configure_command_line()
    try:
        with _as_program():
            memory.check_address_space()
            program = command_line(next(iter(sys.argv[1:]), ""))
            with program.make_context(program.name, sys.argv[1:]) as context:
                program.invoke(context)
    except FieldmarkError as error:
        logger.error(f"fieldmark: {error}")
        sys.exit(EXIT_INPUT)
    except click.ClickException as error:
        error.show()
        sys.exit(EXIT_INPUT)
    except click.exceptions.Exit as leave:
        sys.exit(leave.exit_code)
    except KeyboardInterrupt:
        logger.info("fieldmark: stopped; finished work is saved, run the same command to resume.")
        sys.exit(EXIT_INTERRUPTED)
    except (MemoryError, ImportError, RuntimeError) as error:
        told = {ImportError: "map segment", RuntimeError: "allocate memory"}  # RuntimeError: of PyTorch
        if any(isinstance(error, kind) and text not in str(error) for kind, text in told.items()):
            raise
        logger.error(
            "fieldmark: there is not enough memory: raise its limit (ulimit -v, that of a container)."
        )
        sys.exit(EXIT_INPUT)
    except BrokenPipeError:
        # The reader of the output has closed it (`fieldmark predict … | head`).
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            logger.error(
                f"fieldmark: the name {str(error.filename)[:60]}… is too long for a file: shorten it."
            )
            sys.exit(EXIT_INPUT)
        if error.errno not in _OF_A_DISK:
            raise
        logger.error(f"fieldmark: {not_written(Path(os.fsdecode(error.filename or 'A file')), error)}")
        sys.exit(EXIT_INPUT)
