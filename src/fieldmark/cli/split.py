"""`fieldmark split`: divide photos into training, validation and test part."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fieldmark.cli.options import Data, Seed, Split
from fieldmark.utils.errors import InputError


def split(
    data: Data,
    out: Annotated[Path | None, typer.Option(help="The Parquet file to write.")] = None,
    val: Annotated[float, typer.Option(help="The share of validation photos.")] = 0.1,
    test: Annotated[float, typer.Option(help="The share of test photos.")] = 0.0,
    way: Split = "stratified",
    seed: Seed = 0,
    prune_below: Annotated[
        int, typer.Option(help="Count the classes with fewer training photos.")
    ] = 100,
) -> None:
    """Divide photos into training, validation and test part, and count what pruning leaves out."""
    from fieldmark.data import readers
    from fieldmark.data.split import PARTS, prune, split_photos

    table = readers.read(data, verify=False)
    drawn = split_photos(table, val=val, test=test, seed=seed, way=way)
    for part in PARTS:
        typer.echo(f"{part:<6}{len(drawn.ids(part)):>10,} photos")
    labels = drawn.rows(table, "train")["taxon_id"]
    try:
        pruned = set(labels) - set(prune(drawn, table, prune_below))
    except InputError as error:  # of a small data set all may be pruned: that is no error here
        typer.echo(f"pruned below {prune_below}: nothing is left. {error}")
    else:
        photos = int(labels.is_in(list(pruned)).sum())
        typer.echo(
            f"pruned below {prune_below}: {len(pruned):,} classes with {photos:,} train photos"
        )
    typer.echo(f"digest {drawn.digest}")
    if out is not None:
        drawn.write(out)
        typer.echo(f"written to {out}")
