"""`fieldmark stats`: options -> config -> one call."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fieldmark.cli.options import SourceOption


def stats(
    data: Annotated[Path, typer.Argument(help="Photos, annotations, or a table of `index`.")],
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    source: SourceOption = None,
) -> None:
    """Count photos and classes: the paper's Table 1 and Figure 1."""
    from fieldmark.data import readers
    from fieldmark.data import stats as counting
    from fieldmark.utils import io

    found = counting.stats(readers.read(data, source=source, verify=False))
    typer.echo(io.to_json(found).rstrip() if json else counting.render(found))
