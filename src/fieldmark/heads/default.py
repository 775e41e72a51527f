"""The head that `fieldmark train` learns when nothing else is said.

A closed-form ridge head first; then, in one sweep, softmax heads that go on from it and others that
start from nothing; then each head's logits are scaled to fit the validation photos, and the
validation loss chooses between each of them and the mean of the best three, which on real photos is
mostly the best. On photos seen while it was made, the ridge head was the better start for classes with
few photos and no start the better one for balanced classes; so both are tried, and validation chooses.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fieldmark.features.labelled import LabelledFeatures
from fieldmark.heads import ridge, sampled_softmax, selection
from fieldmark.heads.base import LinearHead
from fieldmark.heads.softmax import Fit, Hyperparameters, fit_sweep
from fieldmark.utils.choices import HeadKind
from fieldmark.utils.typing import IntArray

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


def default_settings(
    photos: int, dim: int, classes: int, *, initial: LinearHead | None = None
) -> list[Hyperparameters]:
    """What to try for so many photos, features and classes; safest first.

    Args:
        photos: N, at least 0.
        dim: D.
        classes: C.
        initial: a layer to go on from, such as ridge's; None: all start from nothing.

    Returns:
        Six arms where they take seconds, else three, and fewer where their weights and moments
        would exceed 1 GiB or their time grow long.
    """
    settings = [
        Hyperparameters(1e-3, initial=initial),
        Hyperparameters(3e-4, initial=initial),
        Hyperparameters(3e-3),
        Hyperparameters(1e-3),
        Hyperparameters(1e-4, initial=initial),
        Hyperparameters(3e-3, initial=initial),
    ]
    if initial is None:
        settings = [
            Hyperparameters(3e-3),
            Hyperparameters(1e-3),
            Hyperparameters(1e-2),
            Hyperparameters(3e-3, 0.3),
            Hyperparameters(1e-2, 0.3),
            Hyperparameters(3e-4),
        ]
    weights = max(1, dim * classes)
    work = max(1, photos) * weights
    most = min(6 if work <= _QUICK else 3, _MEMORY / (16 * weights), _LONG / work)
    return settings[: int(np.clip(most, 1, len(settings)))]


def fit_best(
    train: LabelledFeatures,
    val: LabelledFeatures,
    classes: int,
    *,
    seed: int = 0,
    epochs: int | None = None,
    warm: Warm | None = None,
    kind: HeadKind | None = None,
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
        kind: `softmax` learns from all classes in each step, `sampled` from some that are drawn (see
            `heads.many`); None: `softmax` below 20,000 classes.
        on_epoch: called with the number of epochs done and their number in all.

    Returns:
        The fits, among them the mean of the best three (its `averaged` is 3); the head of each has
        its logits scaled, and `val_loss` is its loss as it is.
    """
    start = time.perf_counter()
    train = train.where(train.labels >= 0)
    training = selection.schedule(len(train), seed, epochs)
    first = ridge.fit(train, val, classes).head if len(train) else None
    if first is not None and warm is not None:
        first = warm.onto(first)

    def on_each(done: int) -> None:
        on_epoch(done, training.epochs)

    if is_sampled(kind, classes):
        settings = sampled_softmax.default_settings(first)
        return sampled_softmax.best_first(
            sampled_softmax.fit_sweep(train, val, classes, training, settings, on_each), train, val, start
        )
    settings = default_settings(len(train), train.features.dim, classes, initial=first)
    fits = fit_sweep(train, val, classes, training, settings, on_each)
    return selection.best_first(fits, train, val, start)


def refit(
    fit: Fit,
    photos: LabelledFeatures,
    classes: int,
    *,
    seed: int = 0,
    epochs: int | None = None,
    kind: HeadKind | None = None,
) -> LinearHead:
    """Train the head of a fit again, with its settings, on other photos; its logits are not scaled.

    Args:
        fit: one of `fit_best`.
        photos: to learn from.
        classes, seed, epochs, kind: as for `fit_best`.
    """
    none = photos.where(np.zeros(len(photos), np.bool_))
    training = selection.schedule(len(photos), seed, epochs)
    settings = [fit.hyperparameters, *fit.others]
    again = sampled_softmax.fit_sweep if is_sampled(kind, classes) else fit_sweep
    found = selection.mean_of(again(photos, none, classes, training, settings)).head
    return found.exclude_unseen(ridge.class_counts(photos, classes))


def is_sampled(kind: HeadKind | None, classes: int) -> bool:
    """Return whether each step learns from a sample of the classes."""
    return kind == "sampled" or (kind is None and classes >= sampled_softmax.MANY)


def fit(
    train: LabelledFeatures,
    val: LabelledFeatures,
    classes: int,
    seed: int = 0,
    *,
    kind: HeadKind | None = None,
    epochs: int | None = None,
) -> Fit:
    """The best of `fit_best`."""
    return fit_best(train, val, classes, seed=seed, kind=kind, epochs=epochs)[0]
