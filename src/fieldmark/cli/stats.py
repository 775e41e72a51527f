"""`fieldmark stats`: count photos and classes."""

from __future__ import annotations

import typer

from fieldmark.cli.options import Data, Json, Source


def stats(data: Data, json: Json = False, source: Source = None) -> None:
    """Count photos and classes (the paper's Table 1 and Figure 1)."""
    from fieldmark.data import readers
    from fieldmark.data import stats as counting
    from fieldmark.utils import io

    found = counting.stats(readers.read(data, source=source, verify=False))
    typer.echo(io.to_json(found).rstrip() if json else counting.render(found))
