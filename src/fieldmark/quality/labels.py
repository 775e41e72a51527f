"""Confident learning: which labels are probably wrong, from scores that did not see them.

C. Northcutt, L. Jiang and I. Chuang, "Confident learning: estimating uncertainty in dataset labels",
2021, section 3.1. A class's threshold is the mean probability that photos with its label get for it.
A photo whose probability of another class reaches that class's threshold, and is the highest of those
that do, is counted as of that class.

Scores are read in blocks, twice, and the matrix of given and found classes is never made: memory does
not grow with photos times classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

_BLOCK_BYTES = 1 << 26
_SLACK = np.float32(1e-6)


class Scores(Protocol):
    """Log-probabilities of N photos and C classes, of which some rows are read at a time."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, C)."""

    def __getitem__(self, rows: slice) -> npt.NDArray[np.floating]:
        """Some rows."""


@dataclass(frozen=True)
class Suspects:
    """What is said of N labels.

    Attributes:
        own_N: the probability of the label: the lower, the worse.
        best_N: the likeliest class besides the label.
        rows: the suspect photos, the worst first.
    """

    own_N: Floats
    best_N: Ints
    rows: Ints


def suspects(log_p_NC: Scores, labels_N: Ints) -> Suspects:
    """Labels that are probably wrong.

    How many there are is estimated by the paper's confident joint: the photos that are confidently of
    another class than their label. Which they are is told by the probability of the label alone, among
    the photos for which another class is likelier: of labels changed at random this finds more than the
    photos counted themselves (docs/check.md).

    Args:
        log_p_NC: log-probabilities from a classifier that did not learn from the photo itself.
        labels_N: labels in 0 .. C-1.
    """
    count, classes = log_p_NC.shape
    own_N = np.empty(count, np.float32)
    for rows, p_BC in _blocks(log_p_NC):
        own_N[rows] = p_BC[np.arange(len(p_BC)), labels_N[rows]]
    threshold_C = thresholds(own_N, labels_N, classes)
    best_N = np.empty(count, np.int64)
    elsewhere_N, likelier_N = np.empty(count, np.bool_), np.empty(count, np.bool_)
    for rows, p_BC in _blocks(log_p_NC):
        at, own = np.arange(len(p_BC)), labels_N[rows]
        reached_BC = np.where(p_BC >= threshold_C - _SLACK, p_BC, np.float32(-1))
        found = reached_BC.argmax(axis=1)
        elsewhere_N[rows] = (reached_BC[at, found] >= 0) & (found != own)
        p_BC[at, own] = -1
        best_N[rows] = p_BC.argmax(axis=1)
        likelier_N[rows] = p_BC[at, best_N[rows]] > own_N[rows]
    among = np.flatnonzero(likelier_N)
    worst = among[np.argsort(own_N[among], kind="stable")]
    return Suspects(own_N, best_N, worst[: int(elsewhere_N.sum())])


def thresholds(own_N: Floats, labels_N: Ints, classes: int) -> Floats:
    """The mean probability of a label among its own photos, shape (C,); above 1 for a class of none."""
    count_C = np.bincount(labels_N, minlength=classes)
    total_C = np.bincount(labels_N, own_N.astype(np.float64), minlength=classes)
    return np.where(count_C > 0, total_C / np.maximum(count_C, 1), 2.0).astype(np.float32)


def _blocks(log_p_NC: Scores) -> Iterator[tuple[slice, Floats]]:
    """Probabilities block by block, shape (B, C)."""
    count, classes = log_p_NC.shape
    size = max(1, _BLOCK_BYTES // (4 * classes))
    for start in range(0, count, size):
        rows = slice(start, min(start + size, count))
        yield rows, np.exp(np.asarray(log_p_NC[rows], np.float32))
