"""`fieldmark export`: write a classifier as one ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fieldmark.cli.options import Cache, Model, use_cache


def export(
    model: Model,
    onnx: Annotated[Path, typer.Option(help="The ONNX file to write.")],
    int8: Annotated[
        bool, typer.Option("--int8", help="Quantise the network to int8, and print the loss.")
    ] = False,
    check: Annotated[
        list[Path] | None,
        typer.Option(
            help="Photos or folders to check the file on; repeatable. [default: the classifier's]"
        ),
    ] = None,
    cache: Cache = None,
) -> None:
    """Export a classifier as one ONNX file, with preprocessing and calibration."""
    use_cache(cache)
    from fieldmark.inference import export as exporting

    written = exporting.run(model, onnx, check or (), int8=int8)
    typer.echo(f"float32: {written.parity}")
    if written.loss is not None:
        typer.echo(f"int8, on photos that it was not calibrated on: {written.loss}")
    typer.echo(f"Written: {written.path} ({written.size / 1e6:,.1f} MB)")
