"""Add photos, new classes and corrected labels to a classifier; only new photos are computed.

Arguments:
    model: The folder of a classifier of one network.
    photos: New labelled photos in any layout.
Options:
    out: The folder to write the new classifier to.
    prior: Which labels are to be expected where and when: own (as in the photos), a table of occurrences, or
        none. [default: learned anew from what it was trained with]
    checklist: A checklist archive that tells which names of the table are synonyms of labels. [default: as
        trained]
    groups: Find bursts and near-duplicates and keep them together, or not. [default: as trained]
"""

from __future__ import annotations

from pathlib import Path

import click

from fieldmark.cli import options as opt
from fieldmark.utils.choices import Compute, EngineName, Grouping, Language


def grow(
    model: Path,
    photos: Path,
    out: Path,
    names: Path | None = None,
    boxes: Path | None = None,
    box_threshold: opt.Confidence = None,
    prior: str | None = None,
    checklist: Path | None = None,
    groups: Grouping | None = None,
    engine: EngineName = "auto",
    compute: Compute | None = None,
    thumbnails: bool = False,
    language: Language = "en",
    cache: Path | None = None,
) -> None:
    options = locals()
    opt.use_cache(cache)
    from fieldmark.training import ExtendConfig, extend, sentence
    from fieldmark.training.strategies.extend import lines

    config = opt.config_from(ExtendConfig, options)
    trained = extend(model, photos, config, out=out, command=opt.command_line())
    grown = "grown" in trained.classifier.provenance
    click.echo("\n".join(lines(trained.classifier)) if grown else sentence(trained.summary))
    click.echo(f"Classifier: {out}\nReport:     {out / 'report.html'}")
