"""`train --rare`: raise the scores of classes with few photos, as far as it costs next to nothing.

The logits are adjusted by the classes' shares of the training photos (`heads.longtail.adjusted`): one
subtraction from the bias. How far is chosen in folds of the training and validation photos.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from fieldmark.data import cross_validation
from fieldmark.data.subset import FEWEST, MOST_SCORES, DataSplits
from fieldmark.evaluation import metrics
from fieldmark.features.extractor import FeatureExtractor
from fieldmark.heads import HEADS, class_imbalance
from fieldmark.heads.class_imbalance import RARE_BELOW
from fieldmark.heads.cross_validation import out_of_fold_logits
from fieldmark.heads.softmax import Fit
from fieldmark.models import Backbone
from fieldmark.utils.languages import decimal_point, number, say
from fieldmark.utils.logging import progress_bar
from fieldmark.utils.typing import BoolArray, FloatArray, IntArray

_STRENGTHS = (0.0, *class_imbalance.STRENGTHS["adjusted"])


@dataclass(frozen=True)
class Chosen:
    """How far logits are adjusted, and what it came to on photos that the heads never saw.

    Attributes:
        strength: of the adjustment; 0: none was worth it.
        photos: how many photos it was chosen by.
        rare: the error over rare classes, each counting the same, before and after.
        every: the error over all photos, before and after.
    """

    strength: float
    photos: int
    rare: tuple[float, float]
    every: tuple[float, float]

    @property
    def said(self) -> str:
        """A sentence for a person."""
        if not self.strength:
            return say(
                "Classes with fewer than {least} photos: on {photos} photos no adjustment helped them "
                "without more than 2 % more mistakes in all, so none was made.",
                least=RARE_BELOW,
                photos=self.photos,
            )
        before, after, all_before, all_after = (f"{number(100 * e, 1)}%" for e in (*self.rare, *self.every))
        return say(
            "The logits of classes with fewer than {least} photos are raised: adjusted by {strength}. On "
            "{photos} photos unseen by the heads, and by which this was chosen, their error went from "
            "{before} to {after}, that of all photos from {all_before} to {all_after}.",
            least=RARE_BELOW,
            strength=f"{self.strength:g}".replace(".", decimal_point()),
            photos=self.photos,
            before=before,
            after=after,
            all_before=all_before,
            all_after=all_after,
        )


def for_rare(
    extractor: FeatureExtractor, backbone: Backbone, parts: DataSplits, fit: Fit, seed: int
) -> tuple[Fit, Chosen]:
    """A head adjusted for rare classes as far as folds allow.

    Args:
        bench: where the features are.
        backbone: the network that they are of.
        parts: the photos.
        fit: what was learned.
        seed: of the folds.
    """
    classes, count_C = len(parts.classes), _counts(parts)
    photos = cross_validation.together(parts.train, parts.val).some(max(FEWEST, MOST_SCORES // classes))
    labelled = extractor.features(backbone, photos, parts.classes)
    with progress_bar("adjusting for rare classes", cross_validation.FOLDS, unit="folds") as stage:
        logits_NC = out_of_fold_logits(
            HEADS["softmax"], labelled, photos, classes, seed, on_fold=stage.advance
        )
    chosen = choose(logits_NC, labelled.labels, count_C)
    head = class_imbalance.adjusted(fit.head, class_imbalance.prior(count_C), chosen.strength)
    return replace(fit, head=head), chosen


def choose(logits_NC: FloatArray, labels_N: IntArray, count_C: IntArray) -> Chosen:
    """How far to adjust: what helps rare classes most at no more than 2 % more mistakes.

    Args:
        logits_NC: of photos by heads that never saw them.
        labels_N: their classes; -1 for a photo of none of them.
        count_C: each class's training photos.
    """
    known = labels_N >= 0
    logits_NC, labels_N = logits_NC[known], labels_N[known]
    log_prior_C = class_imbalance.prior(count_C).astype(np.float32)
    wrong = [(logits_NC - s * log_prior_C).argmax(1) != labels_N for s in _STRENGTHS]
    rare_C = count_C < RARE_BELOW
    best = class_imbalance.choose_trial(wrong, wrong[0], labels_N, rare_C) if rare_C.any() else 0

    def over_rare(wrong_N: BoolArray) -> float:
        rare_N = rare_C[labels_N]
        error_C, _ = metrics.per_class_error(wrong_N[rare_N], labels_N[rare_N], len(rare_C))
        return float(metrics.macro_average(error_C)) if rare_N.any() else 0.0

    pair = wrong[0], wrong[best]
    return Chosen(
        _STRENGTHS[best],
        len(labels_N),
        (over_rare(pair[0]), over_rare(pair[1])),
        (float(pair[0].mean()), float(pair[1].mean())),
    )


def _counts(parts: DataSplits) -> IntArray:
    labels_N = parts.train.labels(parts.classes)
    return np.bincount(labels_N[labels_N >= 0], minlength=len(parts.classes)).astype(np.int64)
