"""`fieldmark grow`: options -> config -> one call."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fieldmark.cli.options import Cache, EngineName, EngineOption, NamesOption, typed, use_cache


def grow(
    model: Annotated[Path, typer.Argument(help="A folder that `fieldmark train` wrote.")],
    photos: Annotated[Path, typer.Argument(help="New labelled photos in any layout.")],
    out: Annotated[Path, typer.Option(help="The folder to write the new classifier to.")],
    names: NamesOption = None,
    engine: EngineOption = EngineName.auto,
    thumbnails: Annotated[
        bool, typer.Option("--thumbnails", help="Keep small pictures of training photos as well.")
    ] = False,
    cache: Cache = None,
) -> None:
    """Add photos and new classes to a classifier, computing only what is new."""
    use_cache(cache)
    from fieldmark.training import ExtendConfig, extend
    from fieldmark.training.strategies.extend import lines

    config = ExtendConfig(names=names, engine=engine.value, thumbnails=thumbnails)
    trained = extend(model, photos, config, out=out, command=typed())
    for line in lines(trained.classifier):
        typer.echo(line)
    typer.echo(f"Classifier: {out}")
    typer.echo(f"Report:     {out / 'report.html'}")
