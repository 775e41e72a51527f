"""`fieldmark grow`: add photos and classes to a classifier."""

from __future__ import annotations

import typer

from fieldmark.cli.options import (
    Cache,
    ClassifierOut,
    Engine,
    LabelledPhotos,
    Model,
    Names,
    Thumbnails,
    command_line,
    config_from,
    use_cache,
)


def grow(
    model: Model,
    photos: LabelledPhotos,
    out: ClassifierOut,
    names: Names = None,
    engine: Engine = "auto",
    thumbnails: Thumbnails = False,
    cache: Cache = None,
) -> None:
    """Add photos and new classes to a classifier; only their features are computed."""
    options = locals()
    use_cache(cache)
    from fieldmark.training import ExtendConfig, extend
    from fieldmark.training.strategies.extend import lines

    config = config_from(ExtendConfig, options)
    trained = extend(model, photos, config, out=out, command=command_line())
    for line in lines(trained.classifier):
        typer.echo(line)
    typer.echo(f"Classifier: {out}")
    typer.echo(f"Report:     {out / 'report.html'}")
