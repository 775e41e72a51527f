"""`fieldmark explain`: show why a photo gets its label."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fieldmark.cli.options import Cache, Model, use_cache


def explain(
    model: Model,
    photo: Annotated[Path, typer.Argument(help="The photo to explain.")],
    out: Annotated[Path, typer.Option(help="The PNG image to write.")],
    label: Annotated[
        str | None,
        typer.Option(
            help="The class to explain: its id or scientific name. [default: the first answer]"
        ),
    ] = None,
    cache: Cache = None,
) -> None:
    """Explain a prediction: a heat map of the photo and the most similar training photos."""
    use_cache(cache)
    from fieldmark import inference
    from fieldmark.inference import explain as explaining

    found = explaining.run(model, photo, out, label)
    named = inference.Named(inference.Item(str(photo), photo), found.prediction)
    for line in inference.as_text([named]):
        typer.echo(line)
    if found.heat is None:
        typer.echo("No heat map: the network is not convolutional.")
    if not found.neighbours:
        typer.echo("No similar photos: the classifier's folder has no features of training photos.")
    typer.echo(f"Written: {out}")
