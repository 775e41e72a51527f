"""`fieldmark merge`: make one table of several sources."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fieldmark.cli.options import Names, TableOut, write_table


def merge(
    photos: Annotated[
        list[Path], typer.Argument(help="Photos in any layout; two sources or more.")
    ],
    out: TableOut = Path("photos.parquet"),
    names: Names = None,
) -> None:
    """Merge sources into one table: a taxon becomes one class, duplicates one row."""
    from fieldmark.data import merge as merging
    from fieldmark.data import readers, synonyms

    accepted = synonyms.read(names)
    write_table(merging.merge([accepted.apply(readers.read(path)) for path in photos]), out)
