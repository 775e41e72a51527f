"""From scores to probabilities that mean something, and to an honest "not sure".

Temperature scaling (Guo et al., "On calibration of modern neural networks", 2017, section 4.2) divides
all logits by one number, fitted on photos that the head was not trained on. It changes no ranking.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fieldmark.data.taxonomy import Level
from fieldmark.evaluation import metrics
from fieldmark.utils.typing import BoolArray, FloatArray, IntArray

_LOWEST, _HIGHEST = 0.05, 20.0
_FEW = 20  # photos: on fewer, a share of right answers says next to nothing


def fit_temperature(s_NC: FloatArray, y_N: IntArray) -> float:
    """The temperature T for which softmax(s / T) has the least mean cross-entropy.

    Args:
        s_NC: logits of held-out photos.
        y_N: their classes; -1 for photos of none of the classes, which are passed over.

    Returns:
        T between 0.05 and 20; 1 where there is no photo to fit it on.
    """
    known = y_N >= 0
    if not known.any():
        return 1.0
    logits, labels = s_NC[known], y_N[known]
    loss_N = np.empty(len(labels))

    def loss(log_temperature: float) -> float:
        for rows in metrics.row_blocks(logits):
            scaled = logits[rows].astype(np.float64) / np.exp(log_temperature)
            top = scaled.max(axis=1)
            total = top + np.log(np.exp(scaled - top[:, None]).sum(axis=1))
            loss_N[rows] = total - scaled[np.arange(len(scaled)), labels[rows]]
        return float(loss_N.mean())

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
    """

    precision: float
    score: float
    coverage: float


def fit_threshold(confidence_N: FloatArray, right_N: BoolArray, precision: float = 0.95) -> Threshold:
    """The lowest score from which on at least `precision` of the answers are right.

    Args:
        confidence_N: the probability of the first label, for held-out photos.
        right_N: whether that label is right.
        precision: the share that is to be right.
    """
    order = np.argsort(-confidence_N, kind="stable")
    scores = confidence_N[order]
    share = np.cumsum(right_N[order]) / np.arange(1, len(order) + 1)
    # Photos with the same score are answered together: only the last of them is a place to cut.
    last = np.append(scores[1:] != scores[:-1], True) if len(scores) else np.empty(0, np.bool_)
    good = np.flatnonzero((share >= precision) & last)
    if not len(good):
        return Threshold(precision, 1.01, 0.0)
    cut = int(good[-1])
    return Threshold(precision, float(scores[cut]), (cut + 1) / len(order))


def fit_thresholds(
    p_NC: FloatArray, y_N: IntArray, levels: Sequence[Level], precision: float = 0.95
) -> dict[str, Threshold]:
    """A threshold for the label itself ("species") and one for each wider rank.

    A wider rank is asked only where all narrower ones were not sure, so its threshold is set on
    just those photos: at least `precision` of the answers given at each rank are right. Where fewer
    than 20 photos are left to set it on, the calibrated probability is taken at its word: an answer
    is given from a sum of `precision` on.

    Args:
        p_NC: calibrated probabilities of held-out photos.
        y_N: their classes; -1 for a photo of none of the classes, for which no answer is right.
        levels: the wider ranks, the narrowest first (`Taxonomy.levels`).
        precision: the share of given answers that is to be right.

    Returns:
        The thresholds by rank. Their coverage is the share of all photos that are answered at it.
    """
    confidence_N = p_NC.max(axis=1, initial=0.0)
    first = fit_threshold(confidence_N, p_NC.argmax(axis=1) == y_N, precision)
    found = {"species": first}
    open_N = confidence_N < first.score
    for level in levels:
        score_N, right_N = _best(p_NC, y_N, level)
        here = _fit_wider(score_N[open_N], right_N[open_N], precision, len(y_N))
        found[level.rank] = here
        open_N &= score_N < here.score
    return found


def _fit_wider(score_M: FloatArray, right_M: BoolArray, precision: float, photos: int) -> Threshold:
    if not photos:  # then the probabilities are not calibrated either
        return Threshold(precision, 1.01, 0.0)
    if len(score_M) < _FEW:
        return Threshold(precision, precision, float((score_M >= precision).sum()) / photos)
    found = fit_threshold(score_M, right_M, precision)
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
