"""`fieldmark train`: options -> config -> one call."""

from __future__ import annotations

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
    Seed,
    SplitWay,
    TierOption,
    WeightsDir,
    typed,
    use_cache,
)


class TransferMode(StrEnum):
    """Which layers are trained, and from which weights."""

    last = "last"
    all = "all"
    adapters = "adapters"
    scratch = "scratch"


def train(
    photos: Annotated[Path, typer.Argument(help="Labelled photos in any layout.")],
    out: Annotated[Path, typer.Option(help="The folder to write the classifier to.")],
    backbone: Annotated[
        str, typer.Option(help="The network; any name of timm's works too.")
    ] = "tf_efficientnet_lite0",
    weights: Annotated[str, typer.Option(help="pretrained, random, or a file.")] = "pretrained",
    weights_dir: WeightsDir = None,
    transfer: Annotated[
        TransferMode,
        typer.Option(
            help="Train the last layer; then all layers, or small parts of each; or from scratch."
        ),
    ] = TransferMode.last,
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
    seed: Seed = 0,
    engine: EngineOption = EngineName.auto,
    tier: TierOption = DecodingTier.exact,
    thumbnails: Annotated[
        bool, typer.Option("--thumbnails", help="Keep small pictures of training photos as well.")
    ] = False,
    cache: Cache = None,
) -> None:
    """Make a classifier from labelled photos, and measure honestly how good it is."""
    use_cache(cache)
    from fieldmark.train import TrainConfig, sentence
    from fieldmark.train import train as run

    config = TrainConfig(
        backbone=backbone,
        weights=weights,
        weights_dir=weights_dir,
        transfer=transfer.value,
        epochs=epochs,
        split=split_way.value,
        precision=precision,
        limit=limit,
        seed=seed,
        engine=engine.value,
        tier=tier.value,
        thumbnails=thumbnails,
    )
    trained = run(photos, out, config, command=typed())
    typer.echo(sentence(trained.summary))
    typer.echo(f"Classifier: {out}")
    typer.echo(f"Report:     {out / 'report.html'}")
    typer.echo(f"Try it:     fieldmark predict {shlex.quote(str(out))} PHOTO")
