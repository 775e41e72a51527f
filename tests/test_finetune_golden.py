"""The good recipe on a few real photos, with the losses it gave when it was measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fieldmark import models
from fieldmark.data.loader import LabelledCrops
from fieldmark.data.transforms import Preprocess
from fieldmark.training.finetune import finetune, good

GOLDEN = {"all": (0.4804, 0.6457), "adapters": (0.4728, 0.6835)}
"""Training and validation loss after two epochs, in nats."""


def photos(shared: Path, side: int, first: int, count: int) -> LabelledCrops:
    """Some photos of the ImageNet sample, two classes by turns."""
    files = sorted((shared / "data" / "imagenet-sample").rglob("*.[jJ][pP]*[gG]"))
    assert len(files) >= first + count
    crop = Preprocess(size=side, resize=side, fit="squash")
    pixels = np.stack([crop.crop(path.read_bytes()) for path in files[first : first + count]])
    ids = tuple(path.name for path in files[first : first + count])
    return LabelledCrops(pixels, np.arange(count), np.arange(count) % 2, ids)


@pytest.mark.shared
@pytest.mark.parametrize("transfer", list(GOLDEN))
def test_the_losses_on_real_photos_are_those_that_were_measured(shared: Path, transfer: str) -> None:
    """Processors round differently, so to a hundredth; a change of the recipe's parts moves it more."""
    network = models.load(models.DEFAULT).trainable(2, 0)
    how = replace(good(transfer, epochs=2), batch_size=6)  # type: ignore[arg-type]
    curve, _ = finetune(network, photos(shared, 80, 0, 12), photos(shared, 64, 12, 6), how)
    assert (curve[-1].train_loss, curve[-1].val_loss) == pytest.approx(GOLDEN[transfer], abs=1e-2)
