"""Recipes: how a network is trained. A recipe is a function that returns a frozen dataclass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fieldmark.heads.softmax import cosine
from fieldmark.utils.choices import Transfer

EPOCHS = 6
"""Of the good recipe: by its rate of updates a quarter of an hour for 3,500 photos on two cores."""


@dataclass(frozen=True)
class FineTuning:
    """How a network is trained. The defaults are the plain way: AdamW, a cosine, crops as they are.

    Attributes:
        transfer: `scratch` and `all` train every layer (from random and from pretrained weights),
            `low-rank` an update of low rank to each layer (`fieldmark.training.finetune.low_rank`), `adapters`
            the biases and the normalisations, `last` the last layer alone.
        epochs: passes over the training photos.
        batch_size: photos an update.
        learning_rate: of AdamW at its highest; it falls to zero along a cosine.
        weight_decay: decoupled, as in AdamW.
        seed: of the order of photos, of augmentation and of dropout.
        precision: `bfloat16` computes the products in half precision where the processor has it,
            and keeps the weights in float32.
        accumulate: in how many parts a batch is computed; the update is that of the whole batch.
        warm_up: the share of all updates in which the learning rate rises from zero.
        layer_decay: the factor on the learning rate from one layer to the one before it.
        clip: the largest norm of the gradient of an update; None: any.
        label_smoothing: the share of the target that is spread over all classes.
        random_crop: whether photos are cropped at random and mirrored.
        rand_augment: timm's name for what else is done to them; empty: nothing.
        mixup, cutmix: the parameters of the two ways to mix photos in pairs; 0: not so.
        mixed: the share of the batches that are mixed.
        sides: the sides of the crops from the first epochs to the last, as shares of the side on
            which the network is measured. Other sides than 1 need `random_crop`.
        frozen_statistics: whether BatchNorm keeps the mean and variance of pretraining.
        average: the share of the running mean of the weights that an update leaves; 0: no mean.
        rank: of the updates of `low-rank`.
        head_first: whether the network is to be given the best last layer on kept features, by
            `start_from`, before it is trained; it is for the caller to do.
    """

    transfer: Transfer
    epochs: int = 10
    batch_size: int = 64
    learning_rate: float = 1e-4
    weight_decay: float = 0.0
    seed: int = 0
    precision: Literal["float32", "bfloat16"] = "float32"
    accumulate: int = 1
    warm_up: float = 0.0
    layer_decay: float = 1.0
    clip: float | None = None
    label_smoothing: float = 0.0
    random_crop: bool = False
    rand_augment: str = ""
    mixup: float = 0.0
    cutmix: float = 0.0
    mixed: float = 0.5
    sides: tuple[float, ...] = (1.0,)
    frozen_statistics: bool = False
    average: float = 0.0
    rank: int = 8
    head_first: bool = False

    def rate(self, step: int, steps: int) -> float:
        """The share of the learning rate at one update of `steps`: up along a line, down a cosine."""
        rising = round(self.warm_up * steps)
        if step < rising:
            return (step + 1) / rising
        return cosine(step - rising, steps - rising)

    def side(self, epoch: int, full: int) -> int:
        """The side of the crops of one epoch, in pixels; a multiple of 8 where it is not `full`."""
        share = self.sides[epoch * len(self.sides) // self.epochs]
        return full if share == 1.0 else max(8, 8 * round(share * full / 8))


def plain(transfer: Transfer, *, epochs: int = 10, seed: int = 0) -> FineTuning:
    """The paper's way: all photos as they are, one learning rate for all layers."""
    return FineTuning(transfer, epochs=epochs, seed=seed)


def good(transfer: Transfer, *, epochs: int = EPOCHS, seed: int = 0) -> FineTuning:
    """What has been learned since the paper. docs/finetune.md measures it, as a whole and part by part.

    For all but `scratch` the last layer is to be learned first, on kept features, and put in by
    `start_from` (Kumar et al., "Fine-tuning can distort pretrained features and underperform
    out-of-distribution", 2022): gradients of a random last layer would destroy what is to be kept.
    Then: lower rates for earlier layers (Howard and Ruder, "Universal language model fine-tuning for
    text classification", 2018), label smoothing (Szegedy et al., 2016), RandAugment (Cubuk et al.,
    2020), a running mean of the weights (Polyak and Juditsky, 1992), and crops that grow (Tan and Le,
    "EfficientNetV2", 2021). A pretrained network keeps the statistics of its BatchNorms, and is shown
    no small crops, which do not go with them. Mixup and CutMix (Zhang et al., 2018; Yun et al., 2019)
    need more epochs than a pretrained network takes; training from scratch has them.
    """
    start = {"scratch": 2e-3, "all": 1e-4, "low-rank": 1e-3, "adapters": 1e-3, "last": 1e-3}
    scratch = transfer == "scratch"
    return FineTuning(
        transfer,
        epochs=epochs,
        batch_size=32,
        learning_rate=start[transfer],
        weight_decay=0.05,
        seed=seed,
        accumulate=2,
        warm_up=0.1,
        layer_decay=0.9 if transfer == "all" else 1.0,
        clip=5.0,
        label_smoothing=0.1 if scratch else 0.05,
        random_crop=True,
        rand_augment="rand-m5-n2-mstd0.5-inc1",
        mixup=0.2 if scratch else 0.0,
        cutmix=1.0 if scratch else 0.0,
        sides=(4 / 7, 5 / 7, 6 / 7) if scratch else (6 / 7, 1.0),
        frozen_statistics=not scratch,
        average=0.998,
        head_first=not scratch,
    )
