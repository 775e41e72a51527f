"""`fieldmark export`: options -> config -> one call."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fieldmark.cli.options import Cache, use_cache


def export(
    model: Annotated[Path, typer.Argument(help="A classifier that `train` wrote.")],
    onnx: Annotated[Path, typer.Option(help="The ONNX file to write.")],
    int8: Annotated[
        bool, typer.Option("--int8", help="Compute the network in 8 bits, and say what it costs.")
    ] = False,
    check: Annotated[
        list[Path] | None,
        typer.Option(help="Photos or folders to check the file on; may be given more than once."),
    ] = None,
    cache: Cache = None,
) -> None:
    """Write a classifier as one ONNX file with preprocessing and calibration inside."""
    use_cache(cache)
    from fieldmark.inference import export as exporting

    written = exporting.run(model, onnx, check or (), int8=int8)
    typer.echo(f"In single precision: {written.parity}")
    if written.loss is not None:
        typer.echo(f"In 8 bits, on photos it was not calibrated on: {written.loss}")
    typer.echo(f"Written: {written.path} ({written.size / 1e6:,.1f} MB)")
