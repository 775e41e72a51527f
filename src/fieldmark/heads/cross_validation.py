"""Out-of-fold predictions: every photo is scored by a head that was not trained on it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fieldmark.data.cross_validation import rounds
from fieldmark.data.subset import LabelledPhotos
from fieldmark.features.labelled import LabelledFeatures
from fieldmark.heads.base import HeadFit
from fieldmark.utils.typing import FloatArray


def out_of_fold_logits(
    fit: Callable[[LabelledFeatures, LabelledFeatures, int, int], HeadFit],
    labelled: LabelledFeatures,
    photos: LabelledPhotos,
    classes: int,
    seed: int,
    on_fold: Callable[[], None] = lambda: None,
) -> FloatArray:
    """Every photo's logits by a head that was learned without its fold, shape (N, C).

    Args:
        fit: an entry of `fieldmark.heads.HEADS`.
        labelled: the photos' features.
        photos: the same photos, in the same order.
        classes: C.
        seed: of the folds and of training.
        on_fold: called when a fold is done.
    """
    found_NC = np.empty((len(photos), classes), np.float32)
    for fold in rounds(photos, seed):
        head = fit(labelled.where(fold.learn), labelled.where(fold.choose), classes, seed).head
        found_NC[fold.measure] = head.logits_of(labelled.where(fold.measure).features)
        on_fold()
    return found_NC
