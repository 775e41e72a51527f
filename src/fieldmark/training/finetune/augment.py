"""What is done to photos in training, as a function of (seed, epoch, photo id) or of the update.

RandAugment, mixup and CutMix are timm's. They draw from the generators of Python and NumPy that the
whole process shares; `drawing` puts these into a state of its own while one photo or batch is drawn,
one thread at a time, and back afterwards.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from fieldmark.data.transforms import Preprocess, augment
from fieldmark.models import import_torchvision
from fieldmark.training.finetune.config import FineTuning
from fieldmark.utils.random import hash64
from fieldmark.utils.typing import ByteArray

_ONE_AT_A_TIME = threading.Lock()
_MOVED = 0.45  # at most, as a share of the side, where RandAugment moves a photo


@contextmanager
def drawing(seed: int, *context: object) -> Iterator[None]:
    """Draw what `random` and `numpy.random` give as a function of the seed and the context alone."""
    number = hash64("drawing", seed, *context)
    with _ONE_AT_A_TIME:
        kept, kept_numpy = random.getstate(), np.random.get_state()
        random.seed(number)
        np.random.seed(number & 0xFFFFFFFF)
        try:
            yield
        finally:
            random.setstate(kept)
            np.random.set_state(kept_numpy)


def photo(pixels: ByteArray, side: int, recipe: FineTuning, epoch: int, photo_id: str) -> ByteArray:
    """One crop for training from a crop with room around it: uint8 (S, S, 3) to (side, side, 3)."""
    size = Preprocess(size=side, resize=side, fit="squash")
    crop = augment(pixels, size, seed=recipe.seed, epoch=epoch, photo_id=photo_id)
    if not recipe.rand_augment:
        return crop
    change = _rand_augment(recipe.rand_augment, side)
    with drawing(recipe.seed, "photo", epoch, photo_id):
        return np.asarray(change(Image.fromarray(crop)), np.uint8)


@lru_cache(maxsize=32)
def _rand_augment(name: str, side: int) -> Callable[[Image.Image], Image.Image]:
    import_torchvision()
    from timm.data.auto_augment import rand_augment_transform

    change: Callable[[Image.Image], Image.Image] = rand_augment_transform(
        name, {"translate_const": int(_MOVED * side), "img_mean": (128, 128, 128)}
    )
    return change


class BatchMixer:
    """Labels to targets, and where the recipe says so photos of a batch to mixtures of two."""

    def __init__(self, recipe: FineTuning, classes: int) -> None:
        self.recipe, self.classes = recipe, classes
        self.mixup: Any = None
        if recipe.mixup or recipe.cutmix:
            import_torchvision()
            from timm.data.mixup import Mixup

            mixup: Any = Mixup  # timm's own is untyped
            self.mixup = mixup(
                recipe.mixup,
                recipe.cutmix,
                prob=recipe.mixed,
                label_smoothing=recipe.label_smoothing,
                num_classes=classes,
            )

    def __call__(
        self, crops: torch.Tensor, labels: torch.Tensor, step: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Crops (N, S, S, 3) and targets: labels (N,), or shares of each class (N, C) if mixed.

        A batch with an odd number of photos is not mixed: timm mixes the first with the last, the
        second with the last but one, and so on.
        """
        if self.mixup is None or len(labels) % 2:
            return crops, labels
        own = crops.float()
        with drawing(self.recipe.seed, "mix", step):
            mixed, targets = self.mixup(own.permute(0, 3, 1, 2), labels)
        return mixed.permute(0, 2, 3, 1), targets

    def loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The mean cross-entropy; mixed targets are smoothed already."""
        smoothing = self.recipe.label_smoothing if targets.ndim == 1 else 0.0
        return functional.cross_entropy(logits, targets, label_smoothing=smoothing)
