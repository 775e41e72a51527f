"""`fieldmark merge`: options -> config -> one call."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fieldmark.cli.options import NamesOption


def merge(
    photos: Annotated[list[Path], typer.Argument(help="Photos in any layout; two or more.")],
    out: Annotated[Path, typer.Option(help="The Parquet table to write.")] = Path("photos.parquet"),
    names: NamesOption = None,
) -> None:
    """Make one table of several sources: a taxon is one class, a photo is one row."""
    from fieldmark.data import merge as merging
    from fieldmark.data import readers
    from fieldmark.data import synonyms as accepted

    called = accepted.read(names)
    table = merging.merge([called.apply(readers.read(path)) for path in photos])
    table.write(out)
    kept = table.kept.height
    typer.echo(f"{len(table):,} photos found = {kept:,} kept + {len(table) - kept:,} rejected")
    for reason, count in table.reasons().items():
        typer.echo(f"  {count:,} {reason}")
    typer.echo(f"{len(table.taxonomy):,} taxa; written to {out}")
