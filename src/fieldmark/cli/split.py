"""`fieldmark split`: options -> config -> one call."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fieldmark.cli.options import Seed, SplitOption, SplitWay
from fieldmark.utils.errors import InputError


def split(
    data: Annotated[Path, typer.Argument(help="Photos, annotations, or a table of `index`.")],
    out: Annotated[Path | None, typer.Option(help="The Parquet file to write.")] = None,
    val: Annotated[float, typer.Option(help="The share to validate on.")] = 0.1,
    test: Annotated[float, typer.Option(help="The share to test on.")] = 0.0,
    way: SplitOption = SplitWay.stratified,
    seed: Seed = 0,
    prune_below: Annotated[int, typer.Option(help="Say which classes have fewer photos.")] = 100,
) -> None:
    """Divide photos into train, val and test; say what pruning would drop."""
    from fieldmark.data import readers
    from fieldmark.data.split import PARTS, prune, split_photos

    table = readers.read(data, verify=False)
    drawn = split_photos(table, val=val, test=test, seed=seed, way=way.value)
    for part in PARTS:
        typer.echo(f"{part:<6}{len(drawn.ids(part)):>10,} photos")
    labels = drawn.rows(table, "train")["taxon_id"]
    try:
        dropped = set(labels) - set(prune(drawn, table, prune_below))
    except InputError as error:  # a small collection: nothing to stop for
        typer.echo(f"pruned below {prune_below}: nothing is left. {error}")
    else:
        photos = int(labels.is_in(list(dropped)).sum())
        typer.echo(
            f"pruned below {prune_below}: {len(dropped):,} classes with {photos:,} train photos"
        )
    typer.echo(f"digest {drawn.digest}")
    if out is not None:
        drawn.write(out)
        typer.echo(f"written to {out}")
