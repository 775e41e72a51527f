"""Look after the cache: its size, damage on the disk, what has not been used for long.

Arguments:
    action: size prints what is in it; verify checks it, and drops what the disk changed; prune removes
        what has not been used for --unused days.
Options:
    unused: Days without use after which prune removes a feature cache or another file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import click

from fieldmark.cli import options as opt


def cache(
    action: Literal["size", "verify", "prune"],
    unused: Annotated[float, opt.Number(0)] = 90,
    cache: Path | None = None,
) -> None:
    opt.use_cache(cache)
    from fieldmark.features import housekeeping
    from fieldmark.utils import io

    if action == "size":
        found = housekeeping.sizes()
        for kind, count in found.items():
            click.echo(f"{count / 1e6:>12,.1f} MB  {housekeeping.KINDS[kind]} ({io.cache_dir() / kind})")
        click.echo(f"{sum(found.values()) / 1e6:>12,.1f} MB  in all")
    elif action == "verify":
        told = housekeeping.verify()
        click.echo(f"{told.vectors:,} vectors checked, {told.damaged_vectors:,} damaged")
        click.echo(f"{told.files:,} files checked, {told.damaged_files:,} damaged")
        if told.damaged_vectors or told.damaged_files:
            click.echo("What was damaged is computed again when it is needed.")
    else:
        click.echo(f"{housekeeping.prune(unused) / 1e6:,.1f} MB removed from {io.cache_dir()}")
