"""What `fieldmark train` is told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fieldmark import models
from fieldmark.utils.choices import (
    DecodingTier,
    EngineName,
    HeadKind,
    Quality,
    SplitMethod,
    Transfer,
    Weighting,
)
from fieldmark.utils.errors import InputError


@dataclass(frozen=True)
class TrainConfig:
    """What `fieldmark train` is told.

    Attributes:
        backbone: the network, a name of `fieldmark.models`; None: the default, and with `best` any
            whose weights are at hand.
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
        names: a table of accepted names, see `fieldmark.data.synonyms`; None: labels are taken as they are.
        seed: of the split and of the order of training.
        engine: what runs the network; `auto` measures.
        tier: how photos are decoded, `exact` or `fast`.
        thumbnails: whether small pictures of training photos go into the folder, so that the nearest
            ones can be shown where the photos themselves are not.
        also: further networks; then an ensemble of all of them is learned.
        ensemble: how its members are weighed, see `ensemble.WAYS`; None: `weights`.
        quality: `fast`, or `best`: what does best on photos held out, of all networks whose weights
            are at hand (or of those named), mirrored views, and ensembles of them.
        stream: whether fine-tuning decodes photos anew in each epoch, where they lie, instead of keeping
            their crops on the disk.
        rare: whether kinds with few photos are named more readily, see `fieldmark.training.logit_adjustment`.
        bfloat16: whether training of the network itself computes in half precision.
        budget: how many seconds `best` may take; None: as long as it takes.
    """

    backbone: str | None = None
    weights: str = "pretrained"
    weights_dir: Path | None = None
    transfer: Transfer = "last"
    head: HeadKind | None = None
    epochs: int | None = None
    val: float = 0.1
    test: float = 0.1
    split: SplitMethod = "stratified"
    precision: float = 0.95
    limit: int | None = None
    names: Path | None = None
    seed: int = 0
    engine: EngineName = "auto"
    tier: DecodingTier = "exact"
    thumbnails: bool = False
    also: tuple[str, ...] = ()
    ensemble: Weighting | None = None
    quality: Quality = "fast"
    budget: float | None = None
    stream: bool = False
    rare: bool = False
    bfloat16: bool = False

    @property
    def network(self) -> str:
        """The name of the first network."""
        return self.backbone or models.DEFAULT

    @property
    def several(self) -> bool:
        """Whether several ways are tried and put together, see `fieldmark.training.ensembles`."""
        return bool(self.also) or self.quality == "best"

    def check(self) -> None:
        """Refuse what does not go together, so that nothing that was asked for is passed over.

        Raises:
            InputError: two choices exclude each other.
        """
        clash = next(_of_several(self) if self.several else _of_one(self), None)
        if clash:
            raise InputError(clash)


def _of_several(config: TrainConfig) -> Iterator[str]:
    """What does not go with several networks or `best`."""
    best = config.quality == "best"
    alone = "or name one --backbone and no --quality best."
    if config.transfer != "last" or config.weights != "pretrained":
        yield (
            "Several networks together learn last layers on pretrained weights: leave --transfer "
            f"and --weights out, {alone}"
        )
    if config.rare:
        yield (
            "Several networks together try what helps rare kinds by themselves: leave --rare out, "
            f"{alone}"
        )
    if config.head or config.epochs:
        option = "--head" if config.head else "--epochs"
        yield (
            f"Several networks together choose their last layers themselves: leave {option} out, "
            f"{alone}"
        )
    if best and config.ensemble:
        yield (
            "--quality best chooses itself how networks are weighed: leave --ensemble out, or name "
            "several --backbone and no --quality best."
        )
    if not best:
        yield from _of_no_search(config)
        yield from _of_no_tuning(config, "--quality best")


def _of_one(config: TrainConfig) -> Iterator[str]:
    """What does not go with one network."""
    yield from _of_no_search(config)
    if config.ensemble:
        yield (
            "--ensemble is how several networks are weighed: name --backbone more than once, or leave "
            "it out."
        )
    if config.transfer == "last":
        yield from _of_no_tuning(config, "--transfer all")
    if config.transfer == "scratch" and config.weights not in ("pretrained", "random"):
        yield "--transfer scratch begins with random weights: leave --weights out, or --transfer all."
    if config.rare and config.transfer != "last":
        yield "--rare looks at photos that the network never saw, in folds: leave --transfer out."


def _of_no_search(config: TrainConfig) -> Iterator[str]:
    if config.budget is not None:
        yield "--budget is how long --quality best may take: name that too, or leave --budget out."


def _of_no_tuning(config: TrainConfig, instead: str) -> Iterator[str]:
    for option, wanted in (("--bfloat16", config.bfloat16), ("--stream", config.stream)):
        if wanted:
            yield (
                f"{option} is for training the network itself: name {instead}, or leave {option} out."
            )
