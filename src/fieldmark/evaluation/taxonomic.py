"""How far off mistakes are: errors at each rank, and the height of the lowest common ancestor.

Deng and others, "What does classifying more than 10,000 image categories tell us?", 2010, section 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fieldmark.data.taxonomy import Level
from fieldmark.utils.records import Record
from fieldmark.utils.typing import FloatArray, IntArray

MOST_CLASSES = 2000  # the heights of all pairs are held at once


@dataclass(frozen=True)
class RankError(Record):
    """The error at one rank: the share of photos whose first label is in another taxon of that rank.

    Attributes:
        rank: genus, family … kingdom.
        photos: those whose class and first label both have a taxon of that rank.
        error: None without such a photo.
    """

    rank: str
    photos: int
    error: float | None


@dataclass(frozen=True)
class TaxonomicError(Record):
    """How far off the first labels are.

    Attributes:
        ranks: the errors from the narrowest rank to the widest.
        height: the mean height of the lowest common ancestor of class and first label: 0 for the right
            label, 1 where the narrowest rank above it is the same, and so on; one more than there are ranks
            where none is.
        height_of_mistakes: the same over wrong labels alone; None without one.
        least_height: the mean height if labels were decided by the least expected height; None where that
            is not measured, and with more than 2,000 classes.
        least_height_error: the top-1 error of that decision.
    """

    ranks: tuple[RankError, ...]
    height: float
    height_of_mistakes: float | None
    least_height: float | None
    least_height_error: float | None


def heights(true_M: IntArray, other_M: IntArray, levels: Sequence[Level]) -> IntArray:
    """Compute the height of the lowest common ancestor of pairs of classes; shapes broadcast."""
    found = np.where(true_M == other_M, 0, len(levels) + 1)
    for height in range(len(levels), 0, -1):
        true, other = levels[height - 1].column[true_M], levels[height - 1].column[other_M]
        found = np.where((found > 0) & (true == other) & (true >= 0), height, found)
    return np.asarray(found, np.int64)


def class_heights(classes: int, levels: Sequence[Level]) -> FloatArray:
    """Compute the heights of all pairs of classes, shape (C, C)."""
    every_C = np.arange(classes)
    return heights(every_C[:, None], every_C, levels).astype(np.float32)


def expected_heights(p_NC: FloatArray, height_CC: FloatArray) -> FloatArray:
    """Compute the expected height of each label, shape (N, C), from the `class_heights`; of equal ones the
    most probable is lower. Probabilities of one photo, shape (C,), give shape (C,)."""
    return np.asarray(p_NC @ height_CC - 1e-6 * p_NC, np.float32)


def taxonomic_error(
    p_NC: FloatArray, labels_N: IntArray, levels: Sequence[Level], *, decide: bool = True
) -> TaxonomicError | None:
    """Measure how far off the first labels are; None without a photo of the classes or without ranks.

    Args:
        p_NC: calibrated probabilities.
        labels_N: the classes; photos with -1 are ignored.
        levels: the wider ranks, the narrowest first.
        decide: whether to measure the decision by the least expected height as well; without it `p_NC` may
            be any scores.
    """
    known_N = labels_N >= 0
    if not known_N.any() or not levels:
        return None
    p_MC, true_M = p_NC[known_N], labels_N[known_N]
    first_M = p_MC.argmax(axis=1)
    height_M, wrong_M = heights(true_M, first_M, levels), first_M != true_M
    decide &= p_NC.shape[1] <= MOST_CLASSES
    decided_M = (
        expected_heights(p_MC, class_heights(p_MC.shape[1], levels)).argmin(axis=1) if decide else None
    )
    return TaxonomicError(
        ranks=tuple(_rank_error(level, true_M, first_M) for level in levels),
        height=float(height_M.mean()),
        height_of_mistakes=float(height_M[wrong_M].mean()) if wrong_M.any() else None,
        least_height=None if decided_M is None else float(heights(true_M, decided_M, levels).mean()),
        least_height_error=None if decided_M is None else float((decided_M != true_M).mean()),
    )


def _rank_error(level: Level, true_M: IntArray, first_M: IntArray) -> RankError:
    true, first = level.column[true_M], level.column[first_M]
    both = (true >= 0) & (first >= 0)
    return RankError(level.rank, int(both.sum()), float((true != first)[both].mean()) if both.any() else None)
