"""Data augmentation, as a function of (seed, epoch, photo id) or of the update.

RandAugment, mixup and CutMix are timm's. They use the global random generators of Python and NumPy;
`drawing` seeds these while one photo or batch is augmented, one thread at a time, and restores them.
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
_LARGEST_SHIFT = 0.45  # of RandAugment, as a share of the side


@contextmanager
def drawing(seed: int, *context: object) -> Iterator[None]:
    """Make `random` and `numpy.random` a function of the seed and the context alone."""
    number = hash64("drawing", seed, *context)
    with _ONE_AT_A_TIME:
        state, numpy_state = random.getstate(), np.random.get_state()
        random.seed(number)
        np.random.seed(number & 0xFFFFFFFF)
        try:
            yield
        finally:
            random.setstate(state)
            np.random.set_state(numpy_state)


def photo(pixels: ByteArray, side: int, recipe: FineTuning, epoch: int, photo_id: str) -> ByteArray:
    """Make a training crop from a larger crop: uint8 (S, S, 3) to (side, side, 3)."""
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
        name, {"translate_const": int(_LARGEST_SHIFT * side), "img_mean": (128, 128, 128)}
    )
    return change


class BatchMixer:
    """Turn labels into targets and, if the recipe says so, mix the photos of a batch in pairs."""

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
        """Return crops (N, S, S, 3) and targets: labels (N,), or class shares (N, C) if mixed.

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
        """Compute the mean cross-entropy; mixed targets are smoothed already."""
        smoothing = self.recipe.label_smoothing if targets.ndim == 1 else 0.0
        return functional.cross_entropy(logits, targets, label_smoothing=smoothing)
