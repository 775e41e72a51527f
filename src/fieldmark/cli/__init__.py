"""The command line: a file a verb, parse -> config -> one call.

Nothing heavy is imported before a verb is chosen, so that `--help` answers at once. A verb is added as
a file beside these and an entry of `VERBS`, in the order in which `--help` lists them.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from fieldmark import __version__
from fieldmark.cli.check import check
from fieldmark.cli.demo import demo
from fieldmark.cli.explain import explain
from fieldmark.cli.export import export
from fieldmark.cli.extract import extract
from fieldmark.cli.fetch import fetch
from fieldmark.cli.grow import grow
from fieldmark.cli.index import index
from fieldmark.cli.merge import merge
from fieldmark.cli.predict import predict
from fieldmark.cli.rank import rank
from fieldmark.cli.serve import serve
from fieldmark.cli.split import split
from fieldmark.cli.stats import stats
from fieldmark.cli.study import study
from fieldmark.cli.train import train
from fieldmark.utils.errors import FieldmarkError
from fieldmark.utils.logging import configure_command_line

logger = logging.getLogger(__name__)

app = typer.Typer(
    name="fieldmark",
    help="From labelled photos of living things to a species classifier, honestly measured.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

VERBS: tuple[Callable[..., None], ...] = (
    fetch,
    index,
    merge,
    stats,
    check,
    split,
    train,
    grow,
    predict,
    study,
    rank,
    serve,
    demo,
    explain,
    export,
    extract,
)
for verb in VERBS:
    app.command()(verb)

EXIT_INPUT = 2
EXIT_INTERRUPTED = 130


def version(value: bool) -> None:
    """Print the version and leave."""
    if value:
        typer.echo(f"fieldmark {__version__}")
        raise typer.Exit


@app.callback()
def common(
    show_version: Annotated[
        bool, typer.Option("--version", callback=version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """What holds for all verbs."""


def main() -> None:
    """Run the command line; bad input is one sentence and exit code 2, Ctrl-C leaves cleanly."""
    configure_command_line()
    try:
        app()
    except FieldmarkError as error:
        logger.error(f"fieldmark: {error}")
        sys.exit(EXIT_INPUT)
    except (KeyboardInterrupt, SystemExit) as leave:
        # Typer turns Ctrl-C into this exit code by itself, without a word.
        if isinstance(leave, SystemExit) and leave.code != EXIT_INTERRUPTED:
            raise
        logger.info("fieldmark: stopped; what was done is kept, run the same command to go on.")
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        # The reader of the output has seen enough (`fieldmark predict … | head`).
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
