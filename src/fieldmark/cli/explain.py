"""Explain a prediction: a heat map of the photo and the most similar training photos.

Arguments:
    photo: The photo to explain.
Options:
    out: The PNG image to write.
    label: The class to explain: its id or scientific name. [default: the first answer]
    boxes: A file of boxes: explain the surest box of an animal in the photo.
    engine: What runs the network for the prediction; the heat map has its own way. [default: onnxruntime,
        or torch where the network cannot be converted]
"""

from __future__ import annotations

from pathlib import Path

import click

from fieldmark.cli import options as opt
from fieldmark.utils.choices import Compute, EngineName


def explain(
    model: Path,
    photo: Path,
    out: Path,
    label: str | None = None,
    boxes: Path | None = None,
    engine: EngineName | None = None,
    compute: Compute | None = None,
    cache: Path | None = None,
) -> None:
    opt.use_cache(cache)
    from fieldmark.inference import explain as explaining
    from fieldmark.inference import formats, inputs, predictor

    found = explaining.run(model, photo, out, label, engine, compute, boxes)
    named = predictor.PhotoResult(inputs.InputPhoto(str(photo), photo), found.prediction)
    click.echo("\n".join(formats.text_lines([named])))
    if found.heat is None:
        click.echo("No heat map: the network is not convolutional.")
    if not found.neighbours:
        click.echo("No similar photos: the classifier's folder has no features of training photos.")
    click.echo(f"Written: {out}")
