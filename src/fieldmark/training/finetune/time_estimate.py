"""Estimate how long fine-tuning by a recipe takes on this computer."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from fieldmark.data.loader import LabelledCrops
from fieldmark.models.network import ClassifierNetwork as Network
from fieldmark.training.finetune.config import FineTuning
from fieldmark.training.finetune.data import batches
from fieldmark.training.finetune.layers import accepted, set_modes
from fieldmark.training.finetune.loop import scores
from fieldmark.training.finetune.step import Updater

_TIMED = 4  # updates, the first not counted


@dataclass(frozen=True)
class Pace:
    """The time of a recipe's epochs on this computer.

    Attributes:
        an_epoch: seconds by the side of the crops, for training and measuring.
        full: the side on which the network is measured.
    """

    an_epoch: Mapping[int, float]
    full: int

    def seconds(self, recipe: FineTuning) -> float:
        """Estimate the seconds of `finetune`, for this recipe with any number of epochs."""
        return sum(self.an_epoch[recipe.side(epoch, self.full)] for epoch in range(recipe.epochs))


def pace(network: Network, train: LabelledCrops, val: LabelledCrops, recipe: FineTuning) -> Pace:
    """Time a few updates for each side of the recipe's crops.

    Args:
        network: it is left unchanged.
        train, val: as for `finetune`.
        recipe: how it would be trained.
    """
    few = _first(val, 64)
    start = time.perf_counter()
    scores(copy.deepcopy(network), few, recipe)
    measuring = (time.perf_counter() - start) * len(val) / max(1, len(few))
    some = _first(train, _TIMED * recipe.batch_size)
    found = {}
    for share in recipe.sides:
        once = replace(recipe, epochs=1, sides=(share,))
        wanted = once.side(0, val.side)
        copied = copy.deepcopy(network)
        once = accepted(copied, once, val.side)
        side = once.side(0, val.side)
        update = Updater(copied, once, steps=_TIMED)
        set_modes(copied, once)
        marks = []
        for number, (crops, labels) in enumerate(batches(some, once, 0, side)):
            update(crops, labels, number)
            marks.append(time.perf_counter())
        # The first update also initialises the libraries, and waits for its photos.
        each = np.diff(marks).mean() if len(marks) > 1 else 0.0
        found[wanted] = float(each) * len(train) / recipe.batch_size + measuring
    return Pace(found, val.side)


def _first(crops: LabelledCrops, count: int) -> LabelledCrops:
    return replace(crops, rows=crops.rows[:count], labels=crops.labels[:count], ids=crops.ids[:count])
