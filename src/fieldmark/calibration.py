"""From scores to probabilities that mean something, and to an honest "not sure".

Temperature scaling (Guo et al., "On calibration of modern neural networks", 2017, section 4.2) divides
all logits by one number, fitted on photos that the head was not trained on. It changes no ranking.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

_LOWEST, _HIGHEST = 0.05, 20.0


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
    logits, labels = s_NC[known].astype(np.float64), y_N[known]
    rows = np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        top = scaled.max(axis=1)
        total = top + np.log(np.exp(scaled - top[:, None]).sum(axis=1))
        return float((total - scaled[rows, labels]).mean())

    return float(np.exp(_golden_section(loss, np.log(_LOWEST), np.log(_HIGHEST))))


def _golden_section(
    loss: Callable[[float], float], low: float, high: float, rounds: int = 40
) -> float:
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


def fit_threshold(
    confidence_N: FloatArray, right_N: BoolArray, precision: float = 0.95
) -> Threshold:
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


def answered(confidence_N: FloatArray, right_N: BoolArray, score: float) -> tuple[float, float]:
    """Coverage and precision of a threshold on other photos; precision is 1 where none is answered."""
    given = confidence_N >= score
    if not given.any():
        return 0.0, 1.0
    return float(given.mean()), float(right_N[given].mean())
