"""Recipes of fine-tuning: the settings as a frozen dataclass, and functions that return good ones."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from fieldmark.heads.softmax import cosine
from fieldmark.utils.choices import OptimizerBits, Transfer

EPOCHS = 6
"""Of the recipe `good`: about a quarter of an hour for 3,500 photos on two cores."""

_SCORED = 64


@dataclass(frozen=True)
class FineTuning:
    """The settings of fine-tuning. The defaults are plain: AdamW, a cosine, crops without augmentation.

    Attributes:
        transfer: `scratch` and `all` train every layer (from random and from pretrained weights),
            `low-rank` a low-rank update of each layer (see `low_rank`), `adapters` the biases and the
            normalisations, `last` the last layer alone.
        epochs: passes over the training photos.
        batch_size: photos per update.
        learning_rate: of AdamW at its highest; it falls to zero along a cosine.
        weight_decay: decoupled, as in AdamW.
        seed: of the order of photos, of augmentation and of dropout.
        precision: the data type; `bfloat16` is for products only, the weights stay float32.
        accumulate: the number of parts in which a batch is computed, with one update for all.
        warm_up: the share of all updates in which the learning rate rises from zero.
        layer_decay: the factor of the learning rate from one layer to the one before it.
        clip: the largest norm of the gradient of an update; None: unlimited.
        label_smoothing: the share of the target that is spread over all classes.
        random_crop: whether photos are cropped at random and mirrored.
        rand_augment: timm's name of further augmentation; empty: none.
        mixup, cutmix: the parameters of mixing photos in pairs; 0: off.
        mixed: the share of the batches that are mixed.
        sides: the sides of the crops from the first epochs to the last, as shares of the side on
            which the network is measured. Other sides than 1 need `random_crop`.
        frozen_statistics: whether BatchNorm keeps the mean and variance of pretraining.
        average: the decay of the running mean of the weights; 0: no mean.
        rank: of the updates of `low-rank`.
        checkpointing: whether activations within a block are computed again for its gradients instead of
            kept: less memory, up to twice the time, the same result.
        optimizer_bits: of each of AdamW's two numbers for a trained weight, see `adamw8`.
        head_first: whether the caller should first set the best last layer on cached features, with
            `set_last_layer`.
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
    checkpointing: bool = False
    optimizer_bits: OptimizerBits = 32

    @property
    def key(self) -> dict[str, Any]:
        """What the result depends on: all but `checkpointing`; the usual bits are left out, so that older
        checkpoints stay usable."""
        usual = ("optimizer_bits", FineTuning.optimizer_bits)
        return {
            name: value
            for name, value in asdict(self).items()
            if name != "checkpointing" and (name, value) != usual
        }

    @property
    def at_once(self) -> int:
        """The photos of which activations are kept at a time."""
        return -(-self.batch_size // self.accumulate)

    @property
    def scored(self) -> int:
        """The photos that are scored at a time: without gradients there is room for more."""
        return min(_SCORED, 4 * self.at_once)

    @property
    def learns_statistics(self) -> bool:
        """Whether BatchNorm computes new statistics."""
        return self.transfer in ("all", "scratch") and not self.frozen_statistics

    def rate(self, step: int, steps: int) -> float:
        """Compute the factor of the learning rate at an update: a linear rise, then a cosine."""
        rising = round(self.warm_up * steps)
        if step < rising:
            return (step + 1) / rising
        return cosine(step - rising, steps - rising)

    def side(self, epoch: int, full: int) -> int:
        """Compute the side of an epoch's crops in pixels; a multiple of 8 where it is not `full`."""
        share = self.sides[epoch * len(self.sides) // self.epochs]
        return full if share == 1.0 else max(8, 8 * round(share * full / 8))


def plain(transfer: Transfer, *, epochs: int = 10, seed: int = 0) -> FineTuning:
    """Return the paper's recipe: no augmentation, one learning rate for all layers."""
    return FineTuning(transfer, epochs=epochs, seed=seed)


def good(transfer: Transfer, *, epochs: int = EPOCHS, seed: int = 0) -> FineTuning:
    """Return the recipe with the improvements since the paper, measured in docs/finetune.md.

    For all but `scratch` the last layer is trained first, on cached features, and set by
    `set_last_layer` (Kumar et al., "Fine-tuning can distort pretrained features and underperform
    out-of-distribution", 2022): gradients of a random last layer would destroy pretrained features.
    Then: lower rates for earlier layers (Howard and Ruder, "Universal language model fine-tuning for
    text classification", 2018), label smoothing (Szegedy et al., 2016), RandAugment (Cubuk et al.,
    2020), a running mean of the weights (Polyak and Juditsky, 1992), and crops that grow (Tan and Le,
    "EfficientNetV2", 2021). A pretrained network keeps its BatchNorm statistics, and gets no small
    crops, which do not match them. Mixup and CutMix (Zhang et al., 2018; Yun et al., 2019) need more
    epochs than a pretrained network takes; only training from scratch has them.
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
