"""The head that `fieldmark train` learns when nothing else is said.

A closed-form ridge head first; then, in one sweep, softmax heads that go on from it and others that
start from nothing; then each head's logits are scaled to fit the validation photos, and the
validation loss chooses between each of them and the mean of the best three, which on real photos is
mostly the best. What is tried was settled by measuring (`benchmarks/heads.py`): the ridge head is the
better start for classes with few photos, no start is the better one for balanced classes, and the
scaling makes the result hardly depend on the learning rate.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from fieldmark.heads import many, ridge
from fieldmark.heads.base import IntArray, LabelledFeatures, LinearHead
from fieldmark.heads.scaling import few, fit_weights
from fieldmark.heads.softmax import Arm, Fit, Training, fit_sweep

_UPDATES = 200
_AVERAGED = 3
_MEMORY = 1 << 30
_QUICK = 4e8
"""Up to so many products of a photo's feature and a weight in one pass, all arms take seconds."""
_LONG = 4e12
"""The same for one pass of all arms; some minutes on two cores."""


@dataclass(frozen=True)
class Warm:
    """A layer that knew some of the classes already.

    Attributes:
        head: the layer, of B classes.
        column_C: which of its columns each of the C classes has, -1 for a new class.
    """

    head: LinearHead
    column_C: IntArray

    def onto(self, fresh: LinearHead) -> LinearHead:
        """A fresh layer of all C classes with the known columns put into it, both about zero."""
        known, columns = self.column_C >= 0, self.column_C[self.column_C >= 0]
        weight = fresh.weight - fresh.weight.mean(1, keepdims=True)
        bias = fresh.bias - fresh.bias.mean()
        weight[:, known] = (self.head.weight - self.head.weight.mean(1, keepdims=True))[:, columns]
        bias[known] = (self.head.bias - self.head.bias.mean())[columns]
        return LinearHead(weight, bias)


def default_sweep(
    photos: int, dim: int, classes: int, *, seed: int = 0, initial: LinearHead | None = None
) -> tuple[Training, list[Arm]]:
    """What to try for so many photos, features and classes; safest first.

    Args:
        photos: N, at least 0.
        dim: D.
        classes: C.
        seed: of the order of training.
        initial: a layer to go on from, such as ridge's; None: all start from nothing.

    Returns:
        Batches that grow with N, and as many passes as it takes to make 200 updates, but 3 to 40;
        six arms where they take seconds, else three, and fewer where their weights and moments
        would exceed 1 GiB or their time grow long.
    """
    batch = int(2 ** np.clip(np.round(np.log2(max(1, photos) / 32)), 4, 9))
    epochs = int(np.clip(np.ceil(_UPDATES / max(1, -(-photos // batch))), 3, 40))
    arms = [
        Arm(1e-3, initial=initial),
        Arm(3e-4, initial=initial),
        Arm(3e-3),
        Arm(1e-3),
        Arm(1e-4, initial=initial),
        Arm(3e-3, initial=initial),
    ]
    if initial is None:
        arms = [Arm(3e-3), Arm(1e-3), Arm(1e-2), Arm(3e-3, 0.3), Arm(1e-2, 0.3), Arm(3e-4)]
    weights = max(1, dim * classes)
    work = max(1, photos) * weights
    most = min(6 if work <= _QUICK else 3, _MEMORY / (16 * weights), _LONG / work)
    return Training(epochs, batch, seed), arms[: int(np.clip(most, 1, len(arms)))]


def fit_best(
    train: LabelledFeatures,
    val: LabelledFeatures,
    classes: int,
    *,
    seed: int = 0,
    epochs: int | None = None,
    warm: Warm | None = None,
    on_epoch: Callable[[int, int], None] = lambda _done, _of: None,
) -> list[Fit]:
    """Train the default's heads, best first by validation loss.

    Args:
        train: photos to learn from; labels of -1 are passed over.
        val: photos to scale the logits and to choose by.
        classes: C; a class without a training photo is never the answer.
        seed: of the order of training.
        epochs: passes over the training photos; None: as many as the default takes.
        warm: where some of the classes were learned before: their columns are what is gone on from.
        on_epoch: called with the number of epochs done and their number in all.

    Returns:
        The fits, among them the mean of the best three (its `averaged` is 3); the head of each has
        its logits scaled, and `val_loss` is its loss as it is.
    """
    start = time.perf_counter()
    train = train.where(train.labels >= 0)
    if classes >= many.MANY:
        return _scaled_fits(
            _of_many(train, val, classes, seed, epochs, on_epoch), train, val, start
        )
    first = ridge.fit(train, val, classes).head if len(train) else None
    if first is not None and warm is not None:
        first = warm.onto(first)
    training, arms = default_sweep(
        len(train), train.features.dim, classes, seed=seed, initial=first
    )
    if epochs is not None:
        training = replace(training, epochs=epochs)
    fits = fit_sweep(
        train, val, classes, training, arms, lambda done: on_epoch(done, training.epochs)
    )
    return _scaled_fits(fits, train, val, start)


def _of_many(
    train: LabelledFeatures,
    val: LabelledFeatures,
    classes: int,
    seed: int,
    epochs: int | None,
    on_epoch: Callable[[int, int], None],
) -> list[Fit]:
    """Heads that learn from some classes a step; two learning rates, one after the other."""
    training, _ = default_sweep(len(train), train.features.dim, classes, seed=seed)
    if epochs is not None:
        training = replace(training, epochs=epochs)
    return many.fit_sweep(
        train, val, classes, training, on_epoch=lambda done: on_epoch(done, training.epochs)
    )


def _scaled_fits(
    fits: Sequence[Fit], train: LabelledFeatures, val: LabelledFeatures, start: float
) -> list[Fit]:
    """The fits with their logits scaled to the validation photos, and their mean; best first."""
    classes = len(fits[0].head.bias)
    measured = few(val, classes)
    count_C = ridge.counts(train, classes)
    scaled = [_scaled(each, measured, count_C) for each in fits]
    best_first = sorted(scaled, key=lambda each: each.val_loss)
    if len(best_first) >= _AVERAGED and len(measured):
        mean = _scaled(_mean(best_first[:_AVERAGED]), measured, count_C)
        best_first = sorted([mean, *best_first], key=lambda each: each.val_loss)
    seconds = time.perf_counter() - start
    return [replace(each, seconds=seconds) for each in best_first]


def fit(train: LabelledFeatures, val: LabelledFeatures, classes: int, seed: int = 0) -> Fit:
    """The best of `fit_best`."""
    return fit_best(train, val, classes, seed=seed)[0]


def _mean(fits: Sequence[Fit]) -> Fit:
    """The mean of some linear layers: an ensemble of them in one, with the first one's history."""
    weight = np.add.reduce([each.head.weight for each in fits]) / np.float32(len(fits))
    bias = np.add.reduce([each.head.bias for each in fits]) / np.float32(len(fits))
    return replace(fits[0], head=LinearHead(weight, bias), averaged=len(fits))


def _scaled(found: Fit, val: LabelledFeatures, count_C: np.ndarray) -> Fit:
    head = found.head.closed_to(count_C)
    if not len(val):
        return replace(found, head=head)
    s_NC = torch.from_numpy(head.logits_of(val.features))
    weights = fit_weights((s_NC,), torch.from_numpy(val.labels), ((1.0, 1.0),))
    # Never turned round or taken to nothing, however wrong a handful of photos is.
    factor = max(weights.values[0], 0.05)
    return replace(found, head=head.times(factor), scaled_loss=weights.loss, scale=factor)
