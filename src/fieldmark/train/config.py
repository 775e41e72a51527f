"""What `fieldmark train` is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fieldmark import (
    backbones,
)
from fieldmark.finetune import Transfer
from fieldmark.heads.default import Kind
from fieldmark.preprocess import Tier
from fieldmark.split import Way


@dataclass(frozen=True)
class TrainConfig:
    """What `fieldmark train` is told.

    Attributes:
        backbone: the network, a name of `fieldmark.backbones`.
        weights: `pretrained`, `random`, or a file of weights.
        weights_dir: a folder of weights, looked into before anything is downloaded.
        transfer: `last` trains a last layer on kept features; `all` then goes on with every layer,
            `adapters` with the biases and normalisations; `scratch` trains every layer from random
            weights.
        head: how the last layer is learned, `softmax` or `sampled`, see `heads.default.fit_best`; None:
            by the number of classes.
        epochs: passes over the training photos; None: as many as it takes for the last layer, else 6.
        val, test: the shares of photos that are held out to choose by, and to measure on.
        split: how photos are divided.
        precision: the share of given answers that are to be right; below it, "not sure".
        limit: at most so many photos; None: all.
        names: a table of accepted names, see `fieldmark.names`; None: labels are taken as they are.
        seed: of the split and of the order of training.
        engine: what runs the network; `auto` measures.
        tier: how photos are decoded, `exact` or `fast`.
        thumbnails: whether small pictures of training photos go into the folder, so that the nearest
            ones can be shown where the photos themselves are not.
        also: further networks; then an ensemble of all of them is learned.
        ensemble: how its members are weighed, a name of `ensemble.WAYS`; None: `weights`.
        quality: `fast`, or `best`: what does best on photos held out, of all networks whose weights
            are at hand (or of those named), mirrored views, and ensembles of them.
        stream: whether fine-tuning decodes photos anew in each epoch, where they lie, instead of keeping
            their crops on the disk.
        rare: whether kinds with few photos are named more readily, see `fieldmark.train.rare`.
        bfloat16: whether training of the network itself computes in half precision.
        budget: how many seconds `best` may take; None: as long as it takes.
    """

    backbone: str = backbones.DEFAULT
    weights: str = "pretrained"
    weights_dir: Path | None = None
    transfer: Transfer = "last"
    head: Kind | None = None
    epochs: int | None = None
    val: float = 0.1
    test: float = 0.1
    split: Way = "stratified"
    precision: float = 0.95
    limit: int | None = None
    names: Path | None = None
    seed: int = 0
    engine: str = "auto"
    tier: Tier = "exact"
    thumbnails: bool = False
    also: tuple[str, ...] = ()
    ensemble: str | None = None
    quality: str = "fast"
    budget: float | None = None
    stream: bool = False
    rare: bool = False
    bfloat16: bool = False
