"""Export a classifier as one ONNX file, with preprocessing and calibration; or a small model of a study.

Arguments:
    model: The folder of a classifier that `fieldmark train` wrote; with --compact that of a study.
Options:
    onnx: The ONNX file to write.
    compute: exact in float32, or int8 in 8-bit integers, if that is faster here; its loss is printed.
        [default: as trained]
    check: Photos or folders to check the file on; repeatable. [default: the classifier's own]
Small models:
    compact: The folder of a new classifier: that of the model of a study (fieldmark study compact) with the
        lowest validation error within the limits below.
    max_size: The largest file of its network, in megabytes: 5MB.
    max_memory: The most memory that running it adds, in megabytes: 50MB.
    min_rate: The fewest photos a second, one at a time, on one core of the machine of the study.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import click

from fieldmark.cli import options as opt
from fieldmark.utils.choices import Compute
from fieldmark.utils.errors import InputError

_UNITS = {"kb": 1e-3, "mb": 1.0, "gb": 1e3}


def export(
    model: Path,
    onnx: Path | None = None,
    compute: Compute | None = None,
    check: tuple[Path, ...] = (),
    compact: Path | None = None,
    max_size: str | None = None,
    max_memory: str | None = None,
    min_rate: float | None = None,
    cache: Path | None = None,
) -> None:
    opt.use_cache(cache)
    if (onnx is None) == (compact is None):
        raise InputError("Name a file with --onnx, or of a study the folder of a classifier with --compact.")
    if compact is not None:
        if compute or check:
            raise InputError("--compute and --check are for an ONNX file: leave them out with --compact.")
        _compact(model, compact, max_size, max_memory, min_rate)
    elif max_size or max_memory or min_rate is not None:
        raise InputError(
            "--max-size, --max-memory and --min-rate choose a model of a study: name a folder with --compact."
        )
    elif onnx is not None:
        _export(model, onnx, compute, check)


def _export(model: Path, onnx: Path, compute: Compute | None, check: Sequence[Path]) -> None:
    from fieldmark.inference import export as exporting

    written = exporting.run(model, onnx, check, compute=compute)
    click.echo(f"float32: {written.parity}")
    if written.loss is not None:
        click.echo(f"int8, on photos that it was not calibrated on: {written.loss}")
        click.echo(f"int8 is {written.faster:.2f} times as fast as float32 on this machine.")
    click.echo(f"Written: {written.path} ({written.size / 1e6:,.1f} MB)")


def _compact(study: Path, out: Path, size: str | None, memory: str | None, rate: float | None) -> None:
    """Make a classifier of the best small model of a study."""
    limits = _megabytes(size, "--max-size"), rate, _megabytes(memory, "--max-memory")
    from fieldmark.experiments import Budget
    from fieldmark.experiments import compact as make

    made = make(study, out, Budget(*limits), command=opt.command_line())
    from fieldmark.training import sentence

    click.echo(sentence(made.summary))
    click.echo(f"Classifier: {out}\nReport:     {out / 'report.html'}")


def _megabytes(text: str | None, option: str) -> float | None:
    """Read a size such as 5MB or 800kB; a number alone has megabytes."""
    if text is None:
        return None
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) *([kmg]b)?", text.strip(), re.IGNORECASE)
    if found is None:
        raise InputError(f"{option} is {text!r}: give megabytes, such as 5MB.")
    return float(found[1]) * _UNITS[(found[2] or "MB").lower()]
