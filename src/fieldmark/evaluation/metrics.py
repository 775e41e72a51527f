"""Metrics of a classifier as pure functions of its scores and the labels.

Shapes: `scores_NC` are logits or log-probabilities, float, a row a photo, a column a class (the softmax
of a log-probability is the probability itself, so either may be given). `labels_N` are indexes of
columns; every photo must have a label. `wrong_N` is 1 where the answer is wrong and 0 where it is right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fieldmark.utils.typing import BoolArray, DoubleArray, FloatArray, IntArray

Scores = npt.NDArray[np.floating[Any]]
Values = npt.NDArray[np.floating[Any]] | BoolArray | IntArray

_BLOCK = 1 << 22  # scores in memory at once: 32 MiB in float64


class ReliabilityBin(NamedTuple):
    """One bin of a reliability diagram, with the means over its `photos`."""

    low: float
    high: float
    photos: int
    confidence: float
    accuracy: float


class Confusion(NamedTuple):
    """The number of photos of class `true` that are predicted as `predicted` (column indexes)."""

    true: int
    predicted: int
    photos: int


def row_blocks(scores_NC: Scores) -> Iterator[slice]:
    """Divide the rows of a large matrix into blocks that fit in memory."""
    rows = max(1, _BLOCK // max(1, scores_NC.shape[1]))
    return (slice(start, start + rows) for start in range(0, len(scores_NC), rows))


def log_softmax(scores_NC: Scores) -> DoubleArray:
    """Compute log-probabilities from logits, row by row, in float64: shape (N, C)."""
    found_NC = np.empty(scores_NC.shape, np.float64)
    _log_softmax(scores_NC, found_NC)
    return found_NC


def log_softmax32(scores_NC: Scores) -> FloatArray:
    """Compute `log_softmax` rounded to float32, in no more memory than the logits take."""
    found_NC = np.empty(scores_NC.shape, np.float32)
    _log_softmax(scores_NC, found_NC)
    return found_NC


def _log_softmax(scores_NC: Scores, out_NC: Scores) -> None:
    for rows in row_blocks(scores_NC):
        scores = np.asarray(scores_NC[rows], dtype=np.float64)
        shifted = scores - scores.max(axis=1, keepdims=True)
        out_NC[rows] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def _by_rows(scores_NC: Scores, measure: Callable[[DoubleArray, slice], Values]) -> DoubleArray:
    """Compute a number for each photo from its log-probabilities: shape (N,)."""
    found_N = np.empty(len(scores_NC), np.float64)
    for rows in row_blocks(scores_NC):
        found_N[rows] = measure(log_softmax(scores_NC[rows]), rows)
    return found_N


def ranks(scores_NC: Scores, labels_N: IntArray) -> IntArray:
    """Compute the rank of the label among a photo's scores, 0 for the highest: int64, shape (N,).

    Equal scores are ranked by column, as in `argmax`. A NaN ranks last as the label's score and first
    as another score, so that a diverged network is wrong.
    """
    found_N = np.empty(len(scores_NC), np.int64)
    for rows in row_blocks(scores_NC):
        scores_BC, labels_B1 = scores_NC[rows], labels_N[rows, None]
        own_B1 = np.take_along_axis(scores_BC, labels_B1, axis=1)
        before_BC = np.arange(scores_NC.shape[1])[None, :] < labels_B1
        not_below_BC = ~(scores_BC <= own_B1)
        found_N[rows] = (not_below_BC | ((scores_BC == own_B1) & before_BC)).sum(1)
    return found_N


def wrong(scores_NC: Scores, labels_N: IntArray, k: int = 1) -> BoolArray:
    """Compute whether the label is not among the k highest scores: bool, shape (N,)."""
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    return ranks(scores_NC, labels_N) >= k


def top_k_error(scores_NC: Scores, labels_N: IntArray, k: int = 1) -> float:
    """Compute the share of photos whose label is not among the k highest scores."""
    return _mean(wrong(scores_NC, labels_N, k))


def per_class_error(wrong_N: Values, labels_N: IntArray, classes: int) -> tuple[DoubleArray, IntArray]:
    """Compute each class's error, NaN without photos, and its number of photos: (C,), (C,)."""
    photos_C = np.bincount(labels_N, minlength=classes).astype(np.int64)
    sums_C = np.bincount(labels_N, weights=np.asarray(wrong_N, np.float64), minlength=classes)
    error_C = np.full(classes, np.nan)
    np.divide(sums_C, photos_C, out=error_C, where=photos_C > 0)
    return error_C, photos_C


def macro_average(values_C: DoubleArray) -> float:
    """Compute the mean over the classes with photos, each counting the same."""
    return _mean(values_C[~np.isnan(values_C)])


def bands(photos_C: IntArray, bounds: tuple[int, int] = (30, 100)) -> dict[str, BoolArray]:
    """Divide the classes into rare (`tail`), frequent (`head`) and in between (`medium`).

    Args:
        photos_C: the training photos of each class.
        bounds: tail classes have fewer than the first, head classes at least the second.
    """
    few, many = bounds
    return {
        "tail": np.asarray(photos_C < few),
        "medium": np.asarray((photos_C >= few) & (photos_C < many)),
        "head": np.asarray(photos_C >= max(few, many)),
    }


def per_group_error(wrong_N: Values, names: Sequence[str]) -> dict[str, tuple[float, int]]:
    """Compute the error and the number of photos of each name, sorted by name."""
    unique, index_N = np.unique(np.asarray(names, dtype=object), return_inverse=True)
    error_G, photos_G = per_class_error(wrong_N, index_N.astype(np.int64), len(unique))
    return {
        str(name): (float(error), int(photos))
        for name, error, photos in zip(unique, error_G, photos_G, strict=True)
    }


def negative_log_likelihood(scores_NC: Scores, labels_N: IntArray) -> float:
    """Compute the mean of -log p(label), in nats: the cross-entropy loss."""

    def own(log_p_BC: DoubleArray, rows: slice) -> DoubleArray:
        return np.take_along_axis(log_p_BC, labels_N[rows, None], axis=1)[:, 0]

    return -_mean(_by_rows(scores_NC, own))


def brier_score(scores_NC: Scores, labels_N: IntArray) -> float:
    """Compute the squared distance of probabilities and labels, summed over classes: 0 (best) to 2.

    Brier, "Verification of forecasts expressed in terms of probability", 1950.
    """

    def squared(log_p_BC: DoubleArray, rows: slice) -> DoubleArray:
        error_BC = np.exp(log_p_BC)
        error_BC[np.arange(len(error_BC)), labels_N[rows]] -= 1.0
        return np.asarray((error_BC**2).sum(axis=1))

    return _mean(_by_rows(scores_NC, squared))


def confidence(scores_NC: Scores) -> DoubleArray:
    """Compute the highest probability of each photo, float64, shape (N,)."""
    return _by_rows(scores_NC, lambda log_p_BC, _: np.exp(log_p_BC.max(axis=1)))


def reliability(scores_NC: Scores, labels_N: IntArray, bins: int = 15) -> list[ReliabilityBin]:
    """Compute the accuracy by confidence, in bins (low, high] of equal width, without empty bins.

    The confidence is the highest probability.
    """
    confidence_N = confidence(scores_NC)
    right_N = ~wrong(scores_NC, labels_N)
    bin_N = np.clip(np.ceil(confidence_N * bins).astype(np.int64) - 1, 0, bins - 1)
    found = []
    for index in np.unique(bin_N):
        inside = bin_N == index
        found.append(
            ReliabilityBin(
                low=float(index / bins),
                high=float((index + 1) / bins),
                photos=int(inside.sum()),
                confidence=_mean(confidence_N[inside]),
                accuracy=_mean(right_N[inside]),
            )
        )
    return found


def expected_calibration_error(scores_NC: Scores, labels_N: IntArray, bins: int = 15) -> float:
    """Compute the expected calibration error: the mean gap of confidence and accuracy over the bins.

    Naeini, Cooper and Hauskrecht, "Obtaining well calibrated probabilities using Bayesian
    binning", 2015.
    """
    found = reliability(scores_NC, labels_N, bins)
    gaps = [one.photos * abs(one.confidence - one.accuracy) for one in found]
    return float(sum(gaps) / len(labels_N))


def confusion_pairs(predicted_N: IntArray, labels_N: IntArray, limit: int = 10) -> list[Confusion]:
    """Return the most frequent mistakes, the most frequent first; equal ones by class index."""
    mistaken = predicted_N != labels_N
    pairs_P2, photos_P = np.unique(
        np.stack([labels_N[mistaken], predicted_N[mistaken]], axis=1), axis=0, return_counts=True
    )
    order = np.argsort(-photos_P, kind="stable")[:limit]
    return [Confusion(int(pairs_P2[at, 0]), int(pairs_P2[at, 1]), int(photos_P[at])) for at in order]


def auroc(known_N: Values, unknown_M: Values) -> float:
    """Compute the AUROC: the probability that a known photo scores higher than an unknown one.

    By the ranks of the scores (Mann and Whitney, 1947), ties counting half; NaN without known or without
    unknown photos.
    """
    if not known_N.size or not unknown_M.size:
        return float("nan")
    ordered = np.sort(np.asarray(unknown_M, np.float64))
    below = np.searchsorted(ordered, known_N, "left") + np.searchsorted(ordered, known_N, "right")
    return float(below.mean() / (2 * len(ordered)))


def score_at_recall(known_N: Values, recall: float = 0.95) -> float:
    """Compute the highest threshold that accepts at least `recall` of the known photos."""
    ordered = np.sort(np.asarray(known_N, np.float64))[::-1]
    return float(ordered[max(0, int(np.ceil(recall * len(ordered) - 1e-9)) - 1)])


def false_positive_rate(known_N: Values, unknown_M: Values, recall: float = 0.95) -> float:
    """Compute the share of unknown photos accepted where `recall` of the known ones are; or NaN."""
    if not known_N.size or not unknown_M.size:
        return float("nan")
    return float((np.asarray(unknown_M, np.float64) >= score_at_recall(known_N, recall)).mean())


def rank_correlation(one_N: Values, other_N: Values) -> float:
    """Compute Spearman's rank correlation, with mean ranks of ties; NaN where one is constant."""

    def placed(values: Values) -> DoubleArray:
        ordered = np.sort(values)
        left, right = np.searchsorted(ordered, values), np.searchsorted(ordered, values, "right")
        place_N = (left + right - 1) / 2
        return np.asarray(place_N - place_N.mean(), np.float64)

    a_N, b_N = placed(one_N), placed(other_N)
    length = float(np.sqrt((a_N**2).sum() * (b_N**2).sum()))
    return float((a_N * b_N).sum() / length) if length else float("nan")


def _mean(values: Values) -> float:
    """Compute the mean; NaN of nothing (NumPy would warn)."""
    return float(np.mean(values)) if values.size else float("nan")
