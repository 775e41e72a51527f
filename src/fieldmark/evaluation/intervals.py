"""Confidence intervals of errors and of paired differences.

Photos of one group (a sequence, a burst) are not independent, so groups are the sampling units. A
percentile bootstrap covers too little where mistakes or groups are few; the intervals of errors are
therefore exact binomial ones for the effective number of photos (Korn and Graubard, "Confidence intervals
for proportions with small expected number of positive counts estimated from survey data", Survey
Methodology 24, 1998), and the sign of a paired difference is tested exactly.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fieldmark.utils.random import generator
from fieldmark.utils.typing import BoolArray, DoubleArray, FloatArray, IntArray

Interval = tuple[float, float]
Values = BoolArray | IntArray | FloatArray | DoubleArray

_CHUNK = 4_000_000  # draws held at once by the bootstrap: about 100 MB


def binomial_interval(right: float, trials: float, level: float = 0.95) -> Interval:
    """Compute the exact interval of a share (Clopper and Pearson, 1934), as (low, high).

    Args:
        right: how many of the trials count; need not be whole.
        trials: how many there are.
        level: the coverage.
    """
    from scipy.special import betaincinv

    tail = (1 - level) / 2
    low = betaincinv(right, trials - right + 1, tail) if right > 0 else 0.0
    high = betaincinv(right + 1, trials - right, 1 - tail) if right < trials else 1.0
    return float(low), float(high)


def error_interval(
    wrong_N: Values,
    groups: Sequence[str | None] | None = None,
    *,
    classes_N: IntArray | None = None,
    share_learned: float = 1.0,
    level: float = 0.95,
) -> Interval:
    """Compute the interval of an error, as (low, high).

    In folds, what is measured learned from fewer photos than what is delivered, whose error is therefore
    lower. Learning curves follow power laws with exponents from 0 to 1 (Viering and Loog, "The shape of
    learning curves: a review", 2021): the error falls at most in proportion to the photos of a class, and
    the low end with it.

    Args:
        wrong_N: whether each photo was classified wrongly.
        groups: the group of each photo; None: it stands alone.
        classes_N: the class of each photo: the interval is then of the macro average.
        share_learned: the share of the photos of a class that what is measured learned from.
        level: the coverage.

    Raises:
        ValueError: there is no photo.
    """
    values = np.asarray(wrong_N, np.float64)
    error, effective = effective_size(values, groups, classes_N)
    low, high = binomial_interval(error * effective, effective, level)
    return low * share_learned, high


def effective_size(
    wrong_N: Values, groups: Sequence[str | None] | None = None, classes_N: IntArray | None = None
) -> tuple[float, float]:
    """Compute an error, and of how many independent photos it is worth.

    The variance between groups, by linearisation, is set beside that of independent photos; few groups
    count for less, by the quantile of Student's distribution. Where nothing varies, each group counts
    as one photo. It is never more than independent photos of these weights are worth (Kish, "Survey
    sampling", 1965): the variance of a macro average hangs on its smallest classes, and where they
    happen to be right it would be taken for next to nothing.
    """
    from scipy.special import stdtrit

    values = np.asarray(wrong_N, np.float64)
    unit_N = units(groups, len(values))
    count = int(unit_N.max(initial=-1)) + 1
    if not count:
        raise ValueError("an interval needs at least one value")
    weight_N, residual_N = _linearised(values, classes_N)
    error = float((weight_N * values).sum())
    if count == 1:
        return error, 1.0
    most = 1 / float((weight_N**2).sum())
    sum_U = np.bincount(unit_N, weights=weight_N * residual_N)
    variance = float((sum_U**2).sum()) * count / (count - 1)
    if not 0 < error < 1 or variance <= 0:
        return error, min(float(count), most)
    independent = error * (1 - error) / (len(values) - 1)
    effective = len(values) * independent / variance
    fewer = (stdtrit(len(values) - 1, 0.975) / stdtrit(count - 1, 0.975)) ** 2
    return error, float(np.clip(effective * fewer, 1.0, most))


def _linearised(values_N: DoubleArray, classes_N: IntArray | None) -> tuple[DoubleArray, DoubleArray]:
    """The weight of each photo in the average, and its residual."""
    if classes_N is None:
        return np.full(len(values_N), 1 / max(1, len(values_N))), values_N - values_N.mean()
    photos_C = np.bincount(classes_N)
    own_N = photos_C[classes_N]
    weight_N = 1 / (own_N * np.count_nonzero(photos_C))
    mean = float((weight_N * values_N).sum())
    sum_C = np.bincount(classes_N, weights=values_N)
    # The mean of the other photos of the class and of one average photo: a class with one photo has a
    # residual as well, which its own mean would not give it.
    other_N = (sum_C[classes_N] - values_N + mean) / own_N
    return weight_N, values_N - other_N


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
    """Compute the interval of a mean paired difference, as (low, high).

    It is the bootstrap's, widened where that claims too much: it contains zero unless the exact sign
    test over groups (Arbuthnot, 1710) tells the two apart, and where every value is the same, what was
    not seen in as many independent trials as there are groups may be as far off as can be.

    Args:
        values_N: differences of mistakes, or of losses.
        groups: the group of each photo; None: it stands alone.
        most: the largest difference that there can be; of mistakes 1.
        classes_N: the class of each photo: the interval is then of the macro average.
        replicates, seed: of the bootstrap.
        level: the coverage.
    """
    values = np.asarray(values_N, np.float64)
    unit_N = units(groups, len(values))
    count = int(unit_N.max(initial=-1)) + 1
    if count and 2 * 0.5**count > 1 - level:
        return -most, most
    if count and float(values.min()) == float(values.max()):
        unseen, value = 1 - ((1 - level) / 2) ** (1 / count), float(values[0])
        return value - unseen * (value + most), value + unseen * (most - value)
    low, high = bootstrap(values, groups, classes_N=classes_N, replicates=replicates, seed=seed, level=level)
    discrete = np.isin(values, (-1.0, 0.0, 1.0)).all()
    if discrete and sign_test(np.bincount(unit_N, weights=values)) > 1 - level:
        return min(low, 0.0), max(high, 0.0)
    return low, high


def sign_test(differences_U: Values) -> float:
    """Compute the exact two-sided p-value of a paired difference, from the signs of its units.

    Of mistakes of two classifiers on the same photos it is McNemar's exact test (1947). Units without a
    difference do not count.
    """
    from scipy.special import bdtr

    signs_U = np.sign(np.asarray(differences_U, np.float64))
    more, less = int((signs_U > 0).sum()), int((signs_U < 0).sum())
    if not more + less:
        return 1.0
    return float(min(1.0, 2 * bdtr(min(more, less), more + less, 0.5)))


def bootstrap(
    values_N: Values,
    groups: Sequence[str | None] | None = None,
    *,
    classes_N: IntArray | None = None,
    replicates: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Compute the percentile interval of a mean (Efron and Tibshirani, 1993), as (low, high).

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
    unit_N = units(groups, len(values))
    count = int(unit_N.max()) + 1
    classes = np.zeros(len(values), np.int64) if classes_N is None else classes_N
    order = np.argsort(classes, kind="stable")
    starts_K = np.flatnonzero(np.diff(classes[order], prepend=classes[order][0] - 1))
    random = generator(seed, "bootstrap")
    means = []
    step = max(1, _CHUNK // max(len(values), count))
    for begin in range(0, replicates, step):
        size = min(step, replicates - begin)
        drawn_BU = random.integers(0, count, (size, count)) + np.arange(size)[:, None] * count
        times_BU = np.bincount(drawn_BU.ravel(), minlength=size * count).reshape(size, count)
        times_BN = times_BU[:, unit_N[order]].astype(np.float64)
        count_BK = np.add.reduceat(times_BN, starts_K, axis=1)
        sum_BK = np.add.reduceat(times_BN * values[order], starts_K, axis=1)
        ratio_BK = np.divide(sum_BK, count_BK, out=np.zeros_like(sum_BK), where=count_BK > 0)
        means.append(ratio_BK.sum(axis=1) / (count_BK > 0).sum(axis=1))
    tail = (1 - level) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return float(low), float(high)


def units(groups: Sequence[str | None] | None, size: int) -> IntArray:
    """Number the independent units that photos belong to, in order of appearance: shape (N,)."""
    if groups is None:
        return np.arange(size, dtype=np.int64)
    if len(groups) != size:
        raise ValueError(f"{len(groups)} groups were given for {size} values")
    numbers: dict[object, int] = {}
    keys = [(at,) if group is None else group for at, group in enumerate(groups)]
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)
