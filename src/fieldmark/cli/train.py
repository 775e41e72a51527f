"""`fieldmark train`: options -> config -> one call."""

from __future__ import annotations

import os
import re
import shlex
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fieldmark.cli.options import (
    Cache,
    DecodingTier,
    EngineName,
    EngineOption,
    Limit,
    NamesOption,
    Seed,
    SplitWay,
    TierOption,
    WeightsDir,
    typed,
    use_cache,
)
from fieldmark.utils.errors import InputError


class TransferMode(StrEnum):
    """Which layers are trained, and from which weights."""

    last = "last"
    all = "all"
    low_rank = "low-rank"
    adapters = "adapters"
    scratch = "scratch"


class LastLayer(StrEnum):
    """How the last layer is learned."""

    softmax = "softmax"
    sampled = "sampled"


class Weighing(StrEnum):
    """How the members of an ensemble are weighed."""

    mean = "mean"
    weights = "weights"
    greedy = "greedy"


class Quality(StrEnum):
    """How much is tried."""

    fast = "fast"
    best = "best"


def seconds(text: str) -> float:
    """A length of time such as 30m, 90s or 2h, in seconds.

    Raises:
        InputError: it is not one.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    if not found or not float(found[1]):
        raise InputError(f"--budget is {text!r}: name a length of time such as 30m, 90s or 2h.")
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]]


def train(
    photos: Annotated[Path, typer.Argument(help="Labelled photos in any layout.")],
    out: Annotated[Path, typer.Option(help="The folder to write the classifier to.")],
    backbone: Annotated[
        list[str] | None,
        typer.Option(
            help="The network, by default tf_efficientnet_lite0, with best all at hand; any name of "
            "timm's works too. Named several times: an ensemble of them."
        ),
    ] = None,
    ensemble: Annotated[
        Weighing | None,
        typer.Option(help="How the members of an ensemble are weighed; by default by log-loss."),
    ] = None,
    quality: Annotated[
        Quality,
        typer.Option(
            help="fast: one network. best: what does best on held-out photos, of the "
            "networks, larger and mirrored views and ensembles."
        ),
    ] = Quality.fast,
    budget: Annotated[
        str | None, typer.Option(help="How long best may take, such as 30m, 90s or 2h.")
    ] = None,
    weights: Annotated[str, typer.Option(help="pretrained, random, or a file.")] = "pretrained",
    weights_dir: WeightsDir = None,
    transfer: Annotated[
        TransferMode,
        typer.Option(
            help="Train the last layer; then all layers, or small parts of each; or from scratch."
        ),
    ] = TransferMode.last,
    head: Annotated[
        LastLayer | None,
        typer.Option(
            help="softmax: learned from all classes in each step; sampled: from some that are drawn. By "
            "default sampled from 20,000 classes on."
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            help="Passes over the photos; by default as many as it takes for the last layer, else 6.",
            min=1,
        ),
    ] = None,
    split_way: Annotated[
        SplitWay,
        typer.Option("--split", help="By class, plainly at random, or as the source says."),
    ] = SplitWay.stratified,
    precision: Annotated[
        float,
        typer.Option(
            help='The share of given answers to be right; else "not sure".', min=0.0, max=1.0
        ),
    ] = 0.95,
    limit: Limit = None,
    names: NamesOption = None,
    seed: Seed = 0,
    engine: EngineOption = EngineName.auto,
    tier: TierOption = DecodingTier.exact,
    thumbnails: Annotated[
        bool, typer.Option("--thumbnails", help="Keep small pictures of training photos as well.")
    ] = False,
    stream: Annotated[
        bool,
        typer.Option("--stream", help="Fine-tune on photos where they lie: no crops on the disk."),
    ] = False,
    rare: Annotated[
        bool,
        typer.Option(
            "--rare",
            help="Name kinds with few photos more readily, as far as it costs little in all.",
        ),
    ] = False,
    bfloat16: Annotated[
        bool,
        typer.Option(
            "--bfloat16", help="Fine-tune in half precision: faster on cores and GPUs that have it."
        ),
    ] = False,
    cache: Cache = None,
) -> None:
    """Make a classifier from labelled photos, and measure honestly how good it is."""
    use_cache(cache)
    from fieldmark.training import TrainConfig, sentence
    from fieldmark.training import train as run

    config = TrainConfig(
        backbone=backbone[0] if backbone else None,
        also=tuple(dict.fromkeys(backbone[1:])) if backbone else (),
        ensemble=ensemble.value if ensemble else None,
        quality=quality.value,
        budget=None if budget is None else seconds(budget),
        weights=weights,
        weights_dir=weights_dir,
        transfer=transfer.value,
        head=head.value if head else None,
        epochs=epochs,
        split=split_way.value,
        precision=precision,
        limit=limit,
        names=names,
        seed=seed,
        engine=engine.value,
        tier=tier.value,
        thumbnails=thumbnails,
        stream=stream,
        rare=rare,
        bfloat16=bfloat16,
    )
    trained = run(photos, config, out=out, command=typed())
    if os.environ.get("RANK", "0") != "0":
        return  # the first of several processes says it
    typer.echo(sentence(trained.summary))
    if not trained.summary["photos"]:
        typer.echo("With --split stratified some photos are held out and it is measured.")
    typer.echo(f"Classifier: {out}")
    typer.echo(f"Report:     {out / 'report.html'}")
    typer.echo(f"Try it:     fieldmark predict {shlex.quote(str(out))} PHOTO")
