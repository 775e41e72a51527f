"""`fieldmark index`: options -> config -> one call."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fieldmark.cli.options import ClusterOption, NamesOption, SharesOption, SourceOption


def index(
    photos: Annotated[Path, typer.Argument(help="Photos in any layout, or an annotation file.")],
    out: Annotated[Path, typer.Option(help="The Parquet table to write.")] = Path("photos.parquet"),
    source: SourceOption = None,
    names: NamesOption = None,
    verify: Annotated[bool, typer.Option(help="Look at every file.")] = True,
    by_location: Annotated[
        bool,
        typer.Option("--by-location", help="Keep all photos of a place in one part of a split."),
    ] = False,
    empty: Annotated[
        bool, typer.Option(help="Keep photos that are labelled as empty, as a class.")
    ] = True,
    cluster: ClusterOption = None,
    shards: SharesOption = 16,
) -> None:
    """Read photos as they lie into a table with a row for each, kept or rejected."""
    from fieldmark.data import readers
    from fieldmark.data import synonyms as accepted

    called = accepted.read(names)
    table = readers.read(photos, source=source, verify=False)
    if not empty:
        table = readers.without_empty(table)
    if by_location:
        table = readers.by_location(table)
    if verify and cluster is not None:
        from fieldmark.distributed.cluster import connected

        with connected(cluster, shards) as workers:
            table = workers.look(table)
    elif verify:
        table = readers.verify_files(table)
    table = called.apply(table)
    table.write(out)
    kept = table.kept.height
    typer.echo(f"{len(table):,} photos found = {kept:,} kept + {len(table) - kept:,} rejected")
    for reason, count in table.reasons().items():
        typer.echo(f"  {count:,} {reason}")
    typer.echo(f"{len(table.taxonomy):,} taxa; written to {out}")
