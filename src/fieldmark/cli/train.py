"""`fieldmark train`: train a classifier."""

from __future__ import annotations

import os
import re
import shlex
from functools import partial
from typing import Annotated

import typer

from fieldmark.cli.options import (
    Bfloat16,
    Cache,
    ClassifierOut,
    Engine,
    LabelledPhotos,
    Limit,
    Names,
    Seed,
    Split,
    Thumbnails,
    Tier,
    Weights,
    WeightsDir,
    command_line,
    config_from,
    in_network,
    in_training,
    use_cache,
)
from fieldmark.utils.choices import HeadKind, Quality, Transfer, Weighting
from fieldmark.utils.errors import InputError

in_search = partial(typer.Option, rich_help_panel="Search and ensembles")


def train(
    photos: LabelledPhotos,
    out: ClassifierOut,
    backbone: Annotated[
        list[str] | None,
        in_network(
            help="The network, also any of timm's; repeat for an ensemble. [default: "
            "tf_efficientnet_lite0; with --quality best all available]"
        ),
    ] = None,
    quality: Annotated[
        Quality,
        in_search(
            help="fast: one network. best: try networks, views, heads and ensembles, and take the "
            "best on validation photos."
        ),
    ] = "fast",
    budget: Annotated[
        str | None, in_search(help="The time that --quality best may take: 90s, 30m or 2h.")
    ] = None,
    ensemble: Annotated[
        Weighting | None,
        in_search(help="How the members of an ensemble are weighted. [default: weights]"),
    ] = None,
    weights: Weights = "pretrained",
    weights_dir: WeightsDir = None,
    transfer: Annotated[
        Transfer,
        in_training(
            help="Train the last layer; or fine-tune all layers, low-rank updates or adapters; or "
            "train from scratch."
        ),
    ] = "last",
    head: Annotated[
        HeadKind | None,
        in_training(
            help="Train the last layer on all classes in each step, or on a sample of them. "
            "[default: sampled from 20,000 classes on]"
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        in_training(
            help="The number of epochs. [default: by early stopping for the last layer, else 6]",
            min=1,
        ),
    ] = None,
    rare: Annotated[
        bool,
        in_training("--rare", help="Logit adjustment for rare classes, at little cost in all."),
    ] = False,
    stream: Annotated[
        bool,
        in_training(
            "--stream", help="Fine-tune without a crop cache: decode photos in each epoch."
        ),
    ] = False,
    bfloat16: Bfloat16 = False,
    precision: Annotated[
        float,
        typer.Option(
            help='The precision of the answers; below it the answer is "not sure".',
            min=0.0,
            max=1.0,
        ),
    ] = 0.95,
    thumbnails: Thumbnails = False,
    split: Split = "stratified",
    limit: Limit = None,
    names: Names = None,
    seed: Seed = 0,
    engine: Engine = "auto",
    tier: Tier = "exact",
    cache: Cache = None,
) -> None:
    """Train a classifier from labelled photos, and measure its error on test photos."""
    options = locals()
    use_cache(cache)
    from fieldmark.training import TrainConfig, sentence
    from fieldmark.training import train as run

    networks = tuple(dict.fromkeys(backbone or ()))
    config = config_from(
        TrainConfig,
        options,
        backbone=networks[0] if networks else None,
        also=networks[1:],
        budget=None if budget is None else seconds(budget),
    )
    trained = run(photos, config, out=out, command=command_line())
    if os.environ.get("RANK", "0") != "0":
        return  # of several processes that train together, the first one reports
    typer.echo(sentence(trained.summary))
    if not trained.summary["photos"]:
        typer.echo("With --split stratified, test photos are held out and the error is measured.")
    typer.echo(f"Classifier: {out}")
    typer.echo(f"Report:     {out / 'report.html'}")
    typer.echo(f"Try it:     fieldmark predict {shlex.quote(str(out))} PHOTO")


def seconds(text: str) -> float:
    """Convert a length of time such as 30m, 90s or 2h to seconds.

    Raises:
        InputError: it is not one.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    if not found or not float(found[1]):
        raise InputError(f"--budget is {text!r}: give a length of time such as 30m, 90s or 2h.")
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]]
