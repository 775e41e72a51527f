"""Train a classifier from labelled photos, and measure its error on test photos.

Arguments:
    photos: Labelled photos in any layout; none with --names-only.
Options:
    out: The folder to write the classifier to.
    precision: The precision of the answers; below it the answer is "not sure".
    holdout: Measure once, on a test part that is not learned from, instead of each photo in folds.
    groups: Find bursts and near-duplicates and keep them together, or not.
    prior: Which labels are to be expected where and when: own (as in the training photos) or a table of
        occurrences, such as a download of GBIF or iNaturalist.
    checklist: A checklist archive (GBIF's backbone, the Catalogue of Life) that tells which names of the
        table of occurrences are synonyms of labels.
Network:
    backbone: The network, also any of timm's, or small, medium, large or best as `fieldmark backbones`
        recommends; repeat for an ensemble. [default: tf_efficientnet_lite0; with --quality best all
        available]
    names_only: A list of species: make a classifier of them without photos, by a network with a
        text tower.
Search and ensembles:
    quality: fast: one network. good: a larger one, half the photos a second. best: try networks,
        views, heads and ensembles, and take the best on validation photos.
    budget: The time that --quality best may take: 90s, 30m or 2h. [default: no limit]
    ensemble: How the members of an ensemble are weighted. [default: weights]
Training:
    transfer: Train the last layer; or fine-tune all layers, low-rank updates or adapters; or
        train from scratch.
    head: Train the last layer on all classes in each step, or on a sample of them. [default:
        sampled from 20,000 classes on]
    epochs: The number of epochs. [default: early stopping for the last layer, else 6]
    rare: Logit adjustment for rare classes, at little cost in all.
    stream: Fine-tune without a crop cache: decode photos in each epoch.
    checkpointing: Fine-tune in less memory and more time: compute activations again.
    optimizer_bits: Fine-tune in less memory: keep the two numbers that AdamW has for each weight in 8 bits.
    accumulate: Fine-tune in less memory: compute a batch of 32 in this many parts. [default: 2]
Computing:
    compute: How precisely the frozen network computes: exact in float32, half in 16 bits, int8 in 8-bit
        integers; auto takes what is faster and shown not to harm on these photos.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click

from fieldmark.cli import options as opt
from fieldmark.utils import choices
from fieldmark.utils.errors import InputError

if TYPE_CHECKING:
    from fieldmark.training import TrainConfig, Trained


def train(
    out: Path,
    photos: Path | None = None,
    names_only: Path | None = None,
    backbone: tuple[str, ...] = (),
    weights: str = "pretrained",
    weights_dir: Path | None = None,
    quality: choices.Quality = "fast",
    budget: str | None = None,
    ensemble: choices.Weighting | None = None,
    transfer: choices.Transfer = "last",
    head: choices.HeadKind | None = None,
    epochs: opt.OptionalPositive = None,
    rare: bool = False,
    stream: bool = False,
    bfloat16: bool = False,
    checkpointing: bool = False,
    accumulate: opt.OptionalPositive = None,
    optimizer_bits: choices.OptimizerBits = 32,
    precision: Annotated[float, opt.Number(0, 1)] = 0.95,
    thumbnails: bool = False,
    language: choices.Language = "en",
    split: choices.SplitMethod = "stratified",
    holdout: bool = False,
    groups: choices.Grouping = "auto",
    limit: opt.OptionalPositive = None,
    names: Path | None = None,
    boxes: Path | None = None,
    box_threshold: opt.Confidence = None,
    prior: str | None = None,
    checklist: Path | None = None,
    seed: int = 0,
    engine: choices.EngineName = "auto",
    compute: choices.Compute = "exact",
    size: str | None = None,
    crop: choices.Crop | None = None,
    tier: choices.DecodingTier = "exact",
    cache: Path | None = None,
) -> None:
    options = locals()
    opt.use_cache(cache)
    from fieldmark import training
    from fieldmark.training.names_only import SAID

    config = _config(options, backbone, size, budget)
    if (photos is None) == (names_only is None):
        raise InputError("Name a folder of labelled photos, or a list of species with --names-only.")
    if names_only is not None:
        training.train_from_names(names_only, config, out=out, command=opt.command_line())
        click.echo(f"{SAID}\nClassifier: {out}")
        return
    _report(training.train(photos, config, out=out, command=opt.command_line()), out)


def _config(
    options: Mapping[str, Any], backbone: Sequence[str], size: str | None, budget: str | None
) -> TrainConfig:
    """Return the configuration; the first network, and the first side, are the usual ones."""
    from fieldmark.training import TrainConfig

    networks, sizes = tuple(dict.fromkeys(backbone)), opt.sides(size)
    return opt.config_from(
        TrainConfig,
        options,
        backbone=networks[0] if networks else None,
        also=networks[1:],
        size=next(iter(sizes), None),
        also_sizes=sizes[1:],
        budget=None if budget is None else seconds(budget),
    )


def _report(trained: Trained, out: Path) -> None:
    """Say how good the classifier is, and where it is."""
    from fieldmark.training import sentence

    if os.environ.get("RANK", "0") != "0":
        return  # of several processes that train together, the first one reports
    click.echo(sentence(trained.summary))
    if not trained.summary["photos"] and trained.summary.measurement.way == "test part":
        click.echo("With --split stratified, test photos are held out and the error is measured.")
    click.echo(f"Classifier: {out}\nReport:     {out / 'report.html'}")
    click.echo(f"Try it:     fieldmark predict {shlex.quote(str(out))} PHOTO")


def seconds(text: str) -> float:
    """Convert a length of time such as 30m, 90s or 2h to seconds."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    if not found or not float(found[1]):
        raise InputError(f"--budget is {text!r}: give a length of time such as 30m, 90s or 2h.")
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]]
