"""Export a classifier as one ONNX file, with preprocessing and calibration.

Options:
    onnx: The ONNX file to write.
    int8: Quantise the network to int8, and print the loss.
    check: Photos or folders to check the file on; repeatable. [default: the classifier's own]
"""

from __future__ import annotations

from pathlib import Path

import typer

from fieldmark.cli import options as opt


def export(
    model: Path, onnx: Path, int8: bool = False, check: list[Path] | None = None, cache: Path | None = None
) -> None:
    opt.use_cache(cache)
    from fieldmark.inference import export as exporting

    written = exporting.run(model, onnx, check or (), int8=int8)
    typer.echo(f"float32: {written.parity}")
    if written.loss is not None:
        typer.echo(f"int8, on photos that it was not calibrated on: {written.loss}")
    typer.echo(f"Written: {written.path} ({written.size / 1e6:,.1f} MB)")
