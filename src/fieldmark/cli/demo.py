"""`fieldmark demo`: options -> config -> one call."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fieldmark.cli.options import Cache, typed, use_cache


def demo(
    out: Annotated[Path, typer.Option(help="The folder to work in.")] = Path("demo"),
    species: Annotated[int, typer.Option(help="How many species to draw.", min=4)] = 48,
    photos: Annotated[int, typer.Option(help="How many photos to draw.", min=40)] = 1100,
    cache: Cache = None,
) -> None:
    """Draw a field guide of invented butterflies, train on it, and look at the result."""
    use_cache(cache)
    from fieldmark.demo import run

    run(out, species=species, photos=photos, command=typed())
