"""What all trained heads share: how long they are trained, and which of several is taken.

Each head's logits are scaled to fit the validation photos, then their validation loss chooses between
each of them and the mean of the best three.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from fieldmark.features.labelled import LabelledFeatures
from fieldmark.heads import ridge
from fieldmark.heads.base import LinearHead
from fieldmark.heads.scaling import fit_weights, subsample
from fieldmark.heads.softmax import Fit, Training, by_loss

_UPDATES = 200
_AVERAGED = 3


def schedule(photos: int, seed: int = 0, epochs: int | None = None) -> Training:
    """Batches that grow with the number of photos, and as many passes as it takes to make 200 updates.

    Args:
        photos: N, at least 0.
        seed: of the order of training.
        epochs: passes over the photos; None: 3 to 40.
    """
    batch = int(2 ** np.clip(np.round(np.log2(max(1, photos) / 32)), 4, 9))
    usual = int(np.clip(np.ceil(_UPDATES / max(1, -(-photos // batch))), 3, 40))
    return Training(epochs or usual, batch, seed)


def best_first(
    fits: Sequence[Fit], train: LabelledFeatures, val: LabelledFeatures, start: float
) -> list[Fit]:
    """The fits with their logits scaled to the validation photos, and their mean; best first."""
    classes = len(fits[0].head.bias)
    measured = subsample(val, classes)
    count_C = ridge.class_counts(train, classes)
    scaled = [_scaled(each, measured, count_C) for each in fits]
    ordered = sorted(scaled, key=by_loss)
    if len(ordered) >= _AVERAGED and len(measured):
        mean = _scaled(mean_of(ordered[:_AVERAGED]), measured, count_C)
        ordered = sorted([mean, *ordered], key=by_loss)
    seconds = time.perf_counter() - start
    return [replace(each, seconds=seconds) for each in ordered]


def mean_of(fits: Sequence[Fit]) -> Fit:
    """The mean of some linear layers: an ensemble of them in one, with the first one's history."""
    weight = np.add.reduce([each.head.weight for each in fits]) / np.float32(len(fits))
    bias = np.add.reduce([each.head.bias for each in fits]) / np.float32(len(fits))
    others = tuple(each.hyperparameters for each in fits[1:])
    return replace(fits[0], head=LinearHead(weight, bias), others=others)


def _scaled(found: Fit, val: LabelledFeatures, count_C: np.ndarray) -> Fit:
    head = found.head.exclude_unseen(count_C)
    if not len(val):
        return replace(found, head=head)
    s_NC = torch.from_numpy(head.logits_of(val.features))
    weights = fit_weights((s_NC,), torch.from_numpy(val.labels), ((1.0, 1.0),))
    # Never turned round or taken to nothing, however wrong a handful of photos is.
    factor = max(weights.values[0], 0.05)
    return replace(found, head=head.times(factor), scaled_loss=weights.loss, scale=factor)
