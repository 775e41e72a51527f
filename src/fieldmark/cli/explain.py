"""`fieldmark explain`: options -> config -> one call."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fieldmark.cli.options import Cache, use_cache


def explain(
    model: Annotated[Path, typer.Argument(help="A classifier that `train` wrote.")],
    photo: Annotated[Path, typer.Argument(help="The photo to explain.")],
    out: Annotated[Path, typer.Option(help="The PNG picture to write.")],
    label: Annotated[
        str | None,
        typer.Option(help="Show what speaks for this class: its id or scientific name."),
    ] = None,
    cache: Cache = None,
) -> None:
    """Show why a photo got its label: where the network looked, and similar training photos."""
    use_cache(cache)
    from fieldmark import inference as naming
    from fieldmark.inference import explain as explaining

    found = explaining.run(model, photo, out, label)
    for line in naming.text_lines(
        [naming.PhotoResult(naming.InputPhoto(str(photo), photo), found.prediction)]
    ):
        typer.echo(line)
    if found.heat is None:
        typer.echo("No heat map: the network is not convolutional.")
    if not found.neighbours:
        typer.echo("No similar photos: the classifier's folder keeps none.")
    typer.echo(f"Written: {out}")
