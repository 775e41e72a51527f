"""From scores to probabilities that mean something, and to an honest "not sure".

Temperature scaling (Guo et al., "On calibration of modern neural networks", 2017, section 4.2) divides
all logits by one number, fitted on photos that the head was not trained on. It changes no ranking.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fieldmark.data.taxonomy import Level
from fieldmark.evaluation import intervals, metrics
from fieldmark.utils.typing import BoolArray, FloatArray, IntArray

_LOWEST, _HIGHEST = 0.05, 20.0
_SPREAD = 0.5  # standard deviation of log T that is expected before any photo is seen
_CONFIDENCE = 0.9  # with which the precision of a threshold is held on new photos
_FEW = 20  # photos: on fewer, a share of right answers says next to nothing
_STEPS = 40  # thresholds that are tested


def fit_temperature(s_NC: FloatArray, y_N: IntArray, groups: Sequence[str | None] | None = None) -> float:
    """Fit the temperature T for which softmax(s / T) has the least mean cross-entropy.

    log T is expected about 0 with a standard deviation of 0.5, so that a handful of photos, all of them
    right, cannot make every answer certain. Photos of one group count as one.

    Args:
        s_NC: logits of held-out photos.
        y_N: their classes; -1 for photos of none of the classes, which are ignored.
        groups: the group of each photo; None: each stands alone.

    Returns:
        T between 0.05 and 20; 1 where there is no photo to fit it on.
    """
    known = y_N >= 0
    if not known.any():
        return 1.0
    logits, labels = s_NC[known], y_N[known]
    unit_N = intervals.units(groups, len(y_N))[known]
    _, unit_N, photos_U = np.unique(unit_N, return_inverse=True, return_counts=True)
    weight_N = 1 / photos_U[unit_N]
    loss_N = np.empty(len(labels))

    def loss(log_temperature: float) -> float:
        for rows in metrics.row_blocks(logits):
            scaled = logits[rows].astype(np.float64) / np.exp(log_temperature)
            top = scaled.max(axis=1)
            total = top + np.log(np.exp(scaled - top[:, None]).sum(axis=1))
            loss_N[rows] = total - scaled[np.arange(len(scaled)), labels[rows]]
        return float((weight_N * loss_N).sum() + (log_temperature / _SPREAD) ** 2 / 2)

    return float(np.exp(_golden_section(loss, np.log(_LOWEST), np.log(_HIGHEST))))


def _golden_section(loss: Callable[[float], float], low: float, high: float, rounds: int = 40) -> float:
    """Where a function with one valley is lowest (Kiefer, 1953)."""
    ratio = (5**0.5 - 1) / 2
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    at_left, at_right = loss(left), loss(right)
    for _ in range(rounds):
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - ratio * (high - low)
            at_left = loss(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + ratio * (high - low)
            at_right = loss(right)
    return (low + high) / 2


@dataclass(frozen=True)
class Threshold:
    """When the first label is given as the answer, and when the answer is "not sure".

    Attributes:
        precision: the share of given answers that are to be right.
        score: the answer is given from this probability on; above 1 where no score is good enough.
        coverage: the share of the photos it was set on that get an answer.
        promised: the precision that is held on new photos like these with a confidence of 90 %; less
            than `precision` where too few photos could show more. None: nothing can be promised.
    """

    precision: float
    score: float
    coverage: float
    promised: float | None = None


def fit_threshold(
    confidence_N: FloatArray,
    right_N: BoolArray,
    precision: float = 0.95,
    groups: Sequence[str | None] | None = None,
) -> Threshold:
    """Find the lowest score from which on a precision is held on new photos.

    For each of 40 scores, the lower end of a one-sided 90 % interval of the precision above it (exact
    binomial, for the effective number of photos) is computed. The lowest score is taken from which on it
    reaches the precision asked for; the tests go from the surest photos down (fixed-sequence testing;
    Angelopoulos and others, "Learn then test", 2021, section 3). Where too few photos were there to
    show it, all photos are answered, or else the surest ones, so many that all being right would show it and
    half at most; the lower end there is promised, and no answer is given if fewer are right than asked for.

    Args:
        confidence_N: the probability of the first label, for held-out photos.
        right_N: whether that label is right.
        precision: the share that is to be right.
        groups: the group of each photo; None: each stands alone.
    """
    order = np.argsort(-confidence_N, kind="stable")
    scores = confidence_N[order]
    if not len(order):
        return Threshold(precision, 1.01, 0.0)
    # Photos with the same score are answered together: only the last of them is a place to cut.
    last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))
    wanted = np.ceil(np.arange(1, _STEPS + 1) * len(order) / _STEPS).astype(np.int64) - 1
    cuts = np.unique(last[np.searchsorted(last, wanted)])
    unit_N = intervals.units(groups, len(order))[order]
    share = np.cumsum(right_N[order])[cuts] / (cuts + 1)
    low = np.array([_lower(~right_N[order[: cut + 1]], unit_N[: cut + 1]) for cut in cuts])
    enough = np.flatnonzero(low >= precision)
    if len(enough):
        # The run of scores that all reach it, begun at the surest that does.
        chosen = enough[0] + int(np.argmin(np.append(low[enough[0] :] >= precision, False))) - 1
        promised = precision
    else:
        # Places that do not depend on which photos are right.
        units_K = np.array([len(np.unique(unit_N[: cut + 1])) for cut in cuts])
        surest = int(np.searchsorted(units_K, min(_fewest(precision), units_K[-1] / 2)))
        chosen = next((place for place in (len(cuts) - 1, surest) if share[place] >= precision), -1)
        if chosen < 0:
            return Threshold(precision, 1.01, 0.0)
        promised = float(low[chosen])
    cut = int(cuts[chosen])
    return Threshold(precision, float(scores[cut]), (cut + 1) / len(order), promised)


def _fewest(precision: float) -> float:
    """The number of photos that show a precision if all are right."""
    return (
        float(np.log(1 - _CONFIDENCE) / np.log(precision))
        if 0 < precision < 1
        else float(np.inf if precision else 0)
    )


def _lower(wrong_N: BoolArray, unit_N: IntArray) -> float:
    """The lower end of the one-sided interval of a precision; a group counts as one photo at most.

    A place to cut may lie within a group, and a mistake in a part of a group looks like a photo of its own.
    """
    groups = [str(unit) for unit in unit_N]
    error, effective = intervals.effective_size(wrong_N, groups)
    effective = min(effective, len(np.unique(unit_N)))
    level = 2 * _CONFIDENCE - 1  # one-sided
    return 1 - intervals.binomial_interval(error * effective, effective, level)[1]


def fit_thresholds(
    p_NC: FloatArray,
    y_N: IntArray,
    levels: Sequence[Level],
    precision: float = 0.95,
    groups: Sequence[str | None] | None = None,
) -> dict[str, Threshold]:
    """Fit a threshold for the label itself ("species") and one for each wider rank.

    A wider rank is asked only where all narrower ones were not sure, so its threshold is set on
    just those photos; see `fit_threshold`. Where fewer
    than 20 photos are left to set it on, the calibrated probability is taken at its word: an answer
    is given from a sum of `precision` on.

    Args:
        p_NC: calibrated probabilities of held-out photos.
        y_N: their classes; -1 for a photo of none of the classes, for which no answer is right.
        levels: the wider ranks, the narrowest first (`Taxonomy.levels`).
        precision: the share of given answers that is to be right.
        groups: the group of each photo; None: each stands alone.

    Returns:
        The thresholds by rank. Their coverage is the share of all photos that are answered at it.
    """
    unit_N = intervals.units(groups, len(y_N))
    confidence_N = p_NC.max(axis=1, initial=0.0)
    right_N = p_NC.argmax(axis=1) == y_N
    first = fit_threshold(confidence_N, right_N, precision, groups)
    found = {"species": first}
    open_N = confidence_N < first.score
    for level in levels:
        score_N, right_N = _best(p_NC, y_N, level)
        rows = score_N[open_N], right_N[open_N], unit_N[open_N]
        here = _fit_wider(*rows, precision, len(y_N))
        found[level.rank] = here
        open_N &= score_N < here.score
    return found


def _fit_wider(
    score_M: FloatArray, right_M: BoolArray, unit_M: IntArray, precision: float, photos: int
) -> Threshold:
    if not photos:  # then the probabilities are not calibrated either
        return Threshold(precision, 1.01, 0.0)
    if len(score_M) < _FEW:
        return Threshold(precision, precision, float((score_M >= precision).sum()) / photos)
    found = fit_threshold(score_M, right_M, precision, [str(unit) for unit in unit_M])
    return replace(found, coverage=found.coverage * len(score_M) / photos)


def _best(p_NC: FloatArray, y_N: IntArray, level: Level) -> tuple[FloatArray, BoolArray]:
    """The score of the best group at a rank, and whether it is the right one."""
    sums_NG = level.sums(p_NC)
    true_N = np.where(y_N >= 0, level.column[y_N], -1)
    return sums_NG.max(axis=1), sums_NG.argmax(axis=1) == true_N


def answers(
    p_NC: FloatArray, y_N: IntArray, levels: Sequence[Level], thresholds: Mapping[str, Threshold]
) -> dict[str, tuple[BoolArray, BoolArray]]:
    """For each rank, which photos are answered at it, and which of all are right there: (N,), (N,).

    A photo is answered at the first rank whose threshold it reaches, so at one at most.
    """
    score_N, right_N = p_NC.max(axis=1, initial=0.0), p_NC.argmax(axis=1) == y_N
    given_N = score_N >= thresholds["species"].score
    found = {"species": (given_N, right_N)}
    open_N = ~given_N
    for level in levels:
        if level.rank in thresholds:
            score_N, right_N = _best(p_NC, y_N, level)
            given_N = open_N & (score_N >= thresholds[level.rank].score)
            found[level.rank] = (given_N, right_N)
            open_N &= ~given_N
    return found


def coverage_curve(confidence_N: FloatArray, right_N: BoolArray, steps: int = 20) -> list[dict[str, float]]:
    """Coverage against precision: how many of the surest photos are right, from few to all.

    Returns:
        At most `steps` points with `score` (from which on an answer is given), `coverage` and
        `precision`, the coverage rising.
    """
    order = np.argsort(-confidence_N, kind="stable")
    scores, share = confidence_N[order], np.cumsum(right_N[order]) / np.arange(1, len(order) + 1)
    last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True)[: len(order)])
    wanted = np.ceil(np.arange(1, steps + 1) * len(order) / steps).astype(np.intp) - 1
    places = np.searchsorted(last, wanted)  # photos with the same score are answered together
    cuts = np.unique(last[places]) if len(last) else last
    return [
        {
            "score": float(scores[cut]),
            "coverage": float((cut + 1) / len(order)),
            "precision": float(share[cut]),
        }
        for cut in cuts
    ]


def energy(s_NC: FloatArray) -> FloatArray:
    """How much the logits speak for any of the classes at all: log sum exp, shape (N,).

    High for photos like those that were learned, low for others (Liu et al., "Energy-based
    out-of-distribution detection", 2020, which calls this the negative energy).

    Args:
        s_NC: logits, already divided by the temperature.
    """
    found_N = np.empty(len(s_NC), np.float32)
    for rows in metrics.row_blocks(s_NC):
        top_B = s_NC[rows].max(axis=1)
        found_N[rows] = top_B + np.log(np.exp(s_NC[rows] - top_B[:, None]).sum(axis=1))
    return found_N
