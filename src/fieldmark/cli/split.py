"""Divide photos into training, validation and test part, and count what pruning leaves out.

Arguments:
    data: Photos, an annotation file, or a table of `fieldmark index`.
Options:
    out: The Parquet file to write.
    val: The share of validation photos.
    test: The share of test photos.
    way: Divide by class, at random, or as the source defines it.
    prune_below: Count the classes with fewer training photos.
"""

from __future__ import annotations

from pathlib import Path

import click

from fieldmark.utils.choices import SplitMethod
from fieldmark.utils.errors import InputError


def split(
    data: Path,
    out: Path | None = None,
    val: float = 0.1,
    test: float = 0.0,
    way: SplitMethod = "stratified",
    seed: int = 0,
    prune_below: int = 100,
) -> None:
    from fieldmark.data import readers
    from fieldmark.data.split import PARTS, prune, split_photos

    table = readers.read(data, verify=False)
    drawn = split_photos(table, val=val, test=test, seed=seed, way=way)
    for part in PARTS:
        click.echo(f"{part:<6}{drawn.rows(table, part).height:>10,} photos")
    labels = drawn.rows(table, "train")["taxon_id"]
    try:
        pruned = set(labels) - set(prune(drawn, table, prune_below))
    except InputError as error:  # of a small data set all may be pruned: that is no error here
        click.echo(f"pruned below {prune_below}: nothing is left. {error}")
    else:
        photos = int(labels.is_in(list(pruned)).sum())
        click.echo(f"pruned below {prune_below}: {len(pruned):,} classes with {photos:,} train photos")
    click.echo(f"digest {drawn.digest}")
    if out is not None:
        drawn.write(out)
        click.echo(f"written to {out}")
