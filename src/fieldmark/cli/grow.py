"""The options of `fieldmark grow`.

Arguments:
    model: The folder of a classifier of one network.
    photos: New labelled photos in any layout.

Options:
    out: The folder to write the new classifier to.
"""

from __future__ import annotations

from pathlib import Path

import typer

from fieldmark.cli import options as opt
from fieldmark.utils.choices import EngineName


def grow(
    model: Path,
    photos: Path,
    out: Path,
    names: Path | None = None,
    engine: EngineName = "auto",
    thumbnails: bool = False,
    cache: Path | None = None,
) -> None:
    """Add photos and new classes to a classifier; only their features are computed."""
    options = locals()
    opt.use_cache(cache)
    from fieldmark.training import ExtendConfig, extend
    from fieldmark.training.strategies.extend import lines

    config = opt.config_from(ExtendConfig, options)
    trained = extend(model, photos, config, out=out, command=opt.command_line())
    for line in lines(trained.classifier):
        typer.echo(line)
    typer.echo(f"Classifier: {out}")
    typer.echo(f"Report:     {out / 'report.html'}")
