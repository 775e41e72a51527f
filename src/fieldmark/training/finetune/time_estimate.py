"""How long a recipe will take here, and the recipe that a given time allows."""

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
from fieldmark.training.finetune.layers import set_modes
from fieldmark.training.finetune.loop import scores
from fieldmark.training.finetune.step import Updater

_TIMED = 4  # updates, the first not counted
_MOST_EPOCHS = 40
_FEWEST_EPOCHS = 3


@dataclass(frozen=True)
class Pace:
    """How long epochs of a recipe take here.

    Attributes:
        an_epoch: seconds, by the side of the crops: training, and what measures it afterwards.
        full: the side on which the network is measured.
    """

    an_epoch: Mapping[int, float]
    full: int

    def seconds(self, how: FineTuning) -> float:
        """Seconds that `finetune` would take, for the recipe or the same one with other epochs."""
        return sum(self.an_epoch[how.side(epoch, self.full)] for epoch in range(how.epochs))


def estimate(network: Network, train: LabelledCrops, val: LabelledCrops, how: FineTuning) -> float:
    """Seconds that `finetune` would take, by a few timed updates for each side of its crops.

    Args:
        network: it is left as it is.
        train, val: as for `finetune`.
        how: the recipe.
    """
    return pace(network, train, val, how).seconds(how)


def fit_to(
    network: Network, train: LabelledCrops, val: LabelledCrops, how: FineTuning, seconds: float
) -> FineTuning | None:
    """The recipe with as many epochs as the time allows, at most 40.

    Where not even three fit, the largest crops are left out one by one; None if nothing fits.

    Args:
        network: it is left as it is.
        train, val: as for `finetune`.
        how: the recipe; its `epochs` do not matter.
        seconds: how long training may take.
    """
    measured = pace(network, train, val, how)
    for count in range(len(how.sides), 0, -1):
        fewer = replace(how, sides=how.sides[:count])
        for epochs in range(_MOST_EPOCHS, _FEWEST_EPOCHS - 1, -1):
            found = replace(fewer, epochs=epochs)
            if measured.seconds(found) <= seconds:
                return found
    return None


def pace(network: Network, train: LabelledCrops, val: LabelledCrops, how: FineTuning) -> Pace:
    """Time a few updates for each side of the recipe's crops; arguments as for `estimate`."""
    few = _first(val, 64)
    start = time.perf_counter()
    scores(copy.deepcopy(network), few, how)
    measuring = (time.perf_counter() - start) * len(val) / max(1, len(few))
    some = _first(train, _TIMED * how.batch_size)
    found = {}
    for share in how.sides:
        once = replace(how, epochs=1, sides=(share,))
        side = once.side(0, val.side)
        copied = copy.deepcopy(network)
        update = Updater(copied, once, steps=_TIMED)
        set_modes(copied, once)
        marks = []
        for number, (crops, labels) in enumerate(batches(some, once, 0, side)):
            update(crops, labels, number)
            marks.append(time.perf_counter())
        # The first update also sets the libraries up, and waits for its photos.
        each = np.diff(marks).mean() if len(marks) > 1 else 0.0
        found[side] = float(each) * len(train) / how.batch_size + measuring
    return Pace(found, val.side)


def _first(crops: LabelledCrops, count: int) -> LabelledCrops:
    return replace(
        crops, rows=crops.rows[:count], labels=crops.labels[:count], ids=crops.ids[:count]
    )
