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

from fieldmark.utils.random import generator
from fieldmark.utils.typing import BoolArray, DoubleArray, FloatArray, IntArray

Scores = npt.NDArray[np.floating[Any]]
Values = npt.NDArray[np.floating[Any]] | BoolArray | IntArray

Interval = tuple[float, float]

_BLOCK = 1 << 22  # scores in memory at once: 32 MiB in float64
_CHUNK = 4_000_000  # draws of the bootstrap in memory at once: about 100 MB


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


def bootstrap(
    values_N: Values,
    groups: Sequence[str | None] | None = None,
    *,
    classes_N: IntArray | None = None,
    replicates: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """The percentile interval of a mean (Efron and Tibshirani, 1993), as (low, high).

    Photos of one group are not independent, so whole groups are drawn; a photo without a group
    stands alone. With `classes_N` the mean is the macro average. Its replicates are drawn in the
    same way, over the whole set, and average over the classes that were drawn: drawing within each
    class would tear groups apart and would take a class with one photo as known for certain.

    Args:
        values_N: what to average: mistakes, losses, or differences of them.
        groups: the group of each photo, or None.
        classes_N: the class of each photo, for the macro average.
        replicates: how many times to draw.
        seed: the interval is a function of the seed and of the values in their order.
        level: the share of replicates inside the interval.
    """
    values = np.asarray(values_N, dtype=np.float64)
    if not len(values):
        raise ValueError("a bootstrap interval needs at least one value")
    unit_N = _units(groups, len(values))
    units = int(unit_N.max()) + 1
    classes = np.zeros(len(values), np.int64) if classes_N is None else classes_N
    order = np.argsort(classes, kind="stable")
    starts_K = np.flatnonzero(np.diff(classes[order], prepend=classes[order][0] - 1))
    random = generator(seed, "bootstrap")
    means = []
    step = max(1, _CHUNK // max(len(values), units))
    for begin in range(0, replicates, step):
        size = min(step, replicates - begin)
        drawn_BU = random.integers(0, units, (size, units)) + np.arange(size)[:, None] * units
        times_BU = np.bincount(drawn_BU.ravel(), minlength=size * units).reshape(size, units)
        times_BN = times_BU[:, unit_N[order]].astype(np.float64)
        count_BK = np.add.reduceat(times_BN, starts_K, axis=1)
        sum_BK = np.add.reduceat(times_BN * values[order], starts_K, axis=1)
        ratio_BK = np.divide(sum_BK, count_BK, out=np.zeros_like(sum_BK), where=count_BK > 0)
        means.append(ratio_BK.sum(axis=1) / (count_BK > 0).sum(axis=1))
    tail = (1 - level) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return float(low), float(high)


def error_interval(
    wrong_N: Values,
    groups: Sequence[str | None] | None = None,
    *,
    classes_N: IntArray | None = None,
    replicates: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Compute the interval of an error: the bootstrap's, or the exact one where resampling cannot vary.

    Where all photos are right, or all wrong, or all of one group, every replicate is the same and the
    bootstrap would claim certainty. Then the interval is the exact binomial one (Clopper and Pearson,
    1934), with as many independent trials as there are groups.
    """
    values = np.asarray(wrong_N, dtype=np.float64)
    units = int(_units(groups, len(values)).max()) + 1 if len(values) else 0
    constant = units and float(values.min()) == float(values.max())
    if units == 1 and not constant:
        return 0.0, 1.0
    if constant and values[0] in (0.0, 1.0):
        unseen = _unseen(units, level)
        return (0.0, unseen) if values[0] == 0.0 else (1 - unseen, 1.0)
    return bootstrap(values, groups, classes_N=classes_N, replicates=replicates, seed=seed, level=level)


def difference_interval(
    values_N: Values,
    groups: Sequence[str | None] | None = None,
    *,
    most: float = 1.0,
    classes_N: IntArray | None = None,
    replicates: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Compute the interval of a mean paired difference: the bootstrap's, or wider with little data.

    Fewer than six groups show nothing at 95 %: even if all have the same sign, chance gives this one
    time in 16 (the sign test; Arbuthnot, 1710). The interval is then the whole range. Where all values
    are equal, so are all replicates; then the largest share not met in as many independent trials as
    there are groups (Clopper and Pearson, 1934) may have the extreme value.

    Args:
        values_N: differences of mistakes, or of losses.
        most: the largest possible difference; of mistakes 1.
        groups, classes_N, replicates, seed, level: as for `bootstrap`.
    """
    values = np.asarray(values_N, dtype=np.float64)
    units = int(_units(groups, len(values)).max()) + 1 if len(values) else 0
    if units and 2 * 0.5**units > 1 - level:
        return -most, most
    if units and float(values.min()) == float(values.max()):
        unseen, value = _unseen(units, level), float(values[0])
        return value - unseen * (value + most), value + unseen * (most - value)
    return bootstrap(values, groups, classes_N=classes_N, replicates=replicates, seed=seed, level=level)


def _unseen(units: int, level: float) -> float:
    """Compute the largest share that is plausible if it is not met in so many trials."""
    return float(1 - ((1 - level) / 2) ** (1 / units))


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


def _units(groups: Sequence[str | None] | None, size: int) -> IntArray:
    """Number the independent units in order of appearance; the unit of each photo, shape (N,)."""
    if groups is None:
        return np.arange(size, dtype=np.int64)
    if len(groups) != size:
        raise ValueError(f"{len(groups)} groups were given for {size} values")
    numbers: dict[object, int] = {}
    keys = [(at,) if group is None else group for at, group in enumerate(groups)]
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


def _mean(values: Values) -> float:
    """Compute the mean; NaN of nothing (NumPy would warn)."""
    return float(np.mean(values)) if values.size else float("nan")
