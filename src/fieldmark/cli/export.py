"""Export a classifier as one ONNX file, with preprocessing and calibration.

Options:
    onnx: The ONNX file to write.
    compute: exact in float32, or int8 in 8-bit integers, if that is faster here; its loss is printed.
        [default: as trained]
    check: Photos or folders to check the file on; repeatable. [default: the classifier's own]
"""

from __future__ import annotations

from pathlib import Path

import typer

from fieldmark.cli import options as opt
from fieldmark.utils.choices import Compute


def export(
    model: Path,
    onnx: Path,
    compute: Compute | None = None,
    check: list[Path] | None = None,
    cache: Path | None = None,
) -> None:
    opt.use_cache(cache)
    from fieldmark.inference import export as exporting

    written = exporting.run(model, onnx, check or (), compute=compute)
    typer.echo(f"float32: {written.parity}")
    if written.loss is not None:
        typer.echo(f"int8, on photos that it was not calibrated on: {written.loss}")
        typer.echo(f"int8 is {written.faster:.2f} times as fast as float32 on this machine.")
    typer.echo(f"Written: {written.path} ({written.size / 1e6:,.1f} MB)")
