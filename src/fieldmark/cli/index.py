"""`fieldmark index`: read photos into a table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fieldmark.cli.options import (
    Cluster,
    Data,
    Names,
    Shards,
    Source,
    TableOut,
    cluster_workers,
    write_table,
)


def index(
    photos: Data,
    out: TableOut = Path("photos.parquet"),
    source: Source = None,
    names: Names = None,
    verify: Annotated[
        bool, typer.Option(help="Open every file: digest, size, whether it is an image.")
    ] = True,
    by_location: Annotated[
        bool,
        typer.Option("--by-location", help="Keep all photos of a location in one part of a split."),
    ] = False,
    empty: Annotated[
        bool, typer.Option(help="Keep photos that are labelled as empty, as a class.")
    ] = True,
    cluster: Cluster = None,
    shards: Shards = 16,
) -> None:
    """Read photos in any layout into a table: one row for each, kept or rejected."""
    from fieldmark.data import readers, synonyms

    accepted = synonyms.read(names)
    table = readers.read(photos, source=source, verify=False)
    if not empty:
        table = readers.without_empty(table)
    if by_location:
        table = readers.by_location(table)
    if verify:
        with cluster_workers(cluster, shards) as workers:
            table = workers.look(table) if workers else readers.look(table)
    write_table(accepted.apply(table), out)
