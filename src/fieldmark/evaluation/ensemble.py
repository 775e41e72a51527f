"""Ensembles: the weights of the members, and each member's contribution.

An ensemble's probability is the weighted mean of its members' (the "linear opinion pool"; Stone, "The
opinion pool", 1961). Its log-loss on labelled photos depends only on the probability that each member
gives the label of each photo; so everything here works on those, `own_MN`: float (M, N), a row a member,
a column a photo.

These weights average probabilities, unlike those of `heads.scaling`, which weight logits: the ensemble
is never more confident than its most confident member.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from fieldmark.evaluation import intervals, metrics
from fieldmark.evaluation.intervals import Interval
from fieldmark.utils.typing import DoubleArray, IntArray

_LEAST = 1e-12  # lower bound of a probability: keeps the loss of an excluded label finite
MOST = float(-np.log(_LEAST))
"""The largest loss of one photo, in nats."""

_ROUNDS = 20_000
_GAP = 1e-5  # nats from the lowest log-loss: far less than any photo can show
_NEGLIGIBLE = 1e-3  # of the total weight
_PICKS = 50


def label_probabilities(scores_NC: npt.NDArray[np.floating[Any]], labels_N: IntArray) -> DoubleArray:
    """Compute the probability that a member gives each photo's label, shape (N,).

    Args:
        scores_NC: its logits or log-probabilities.
        labels_N: the columns of the labels; every photo must have one.
    """
    log_p_NC = metrics.log_softmax(scores_NC)
    return np.asarray(np.exp(np.take_along_axis(log_p_NC, labels_N[:, None], axis=1))[:, 0])


def log_mixture(
    log_p_MNC: Sequence[npt.NDArray[np.floating[Any]]], weights_M: Sequence[float]
) -> DoubleArray:
    """Compute the log of the weighted mean of probabilities, shape (N, C), without underflow.

    Args:
        log_p_MNC: the members' log-probabilities, each of shape (N, C).
        weights_M: their weights, which sum to 1.
    """
    parts = [
        np.asarray(log_p_NC, np.float64) + np.log(weight)
        for log_p_NC, weight in zip(log_p_MNC, weights_M, strict=True)
        if weight > 0
    ]
    return np.asarray(np.logaddexp.reduce(parts, axis=0))


def losses(own_MN: DoubleArray, weights_M: npt.ArrayLike) -> DoubleArray:
    """Compute each photo's loss: -log of the mean probability, in nats, shape (N,)."""
    return np.asarray(-np.log(np.asarray(weights_M) @ np.maximum(own_MN, _LEAST)))


def mean(own_MN: DoubleArray) -> DoubleArray:
    """Give each member the same weight, shape (M,)."""
    return np.full(len(own_MN), 1 / len(own_MN))


def weights(own_MN: DoubleArray) -> DoubleArray:
    """Fit the weights on the simplex with the lowest mean log-loss, shape (M,).

    The loss is convex; EM for the shares of a mixture of known parts (Dempster, Laird and Rubin, 1977,
    section 4.3) never raises it. It stops where no other weights can be better by more than 1e-5
    nats: the gradient's largest entry bounds the remaining gain (Cover, "An algorithm for maximizing
    expected log investment return", 1984, equation 14). Two steps are extrapolated where that lowers the loss
    further (Varadhan and Roland, "Simple and globally convergent methods for accelerating the convergence of
    any EM algorithm", 2008, scheme S3).

    Returns:
        The weights; equal ones without photos. Those below a thousandth are set to zero.
    """
    found = mean(own_MN)
    if not own_MN.shape[1]:
        return found
    own_MN = np.maximum(own_MN, _LEAST)
    for _ in range(_ROUNDS):
        gain_M = _gain(own_MN, found)
        if np.log(gain_M.max()) < _GAP:
            break
        once = found * gain_M
        twice = once * _gain(own_MN, once)
        found = _extrapolated(own_MN, found, once, twice)
    return _drop_negligible(own_MN, found / found.sum())


def _gain(own_MN: DoubleArray, weights_M: DoubleArray) -> DoubleArray:
    """Compute the factor by which a step of EM changes each weight, shape (M,)."""
    return np.asarray(own_MN @ (1 / (weights_M @ own_MN)) / own_MN.shape[1])


def _extrapolated(
    own_MN: DoubleArray, start_M: DoubleArray, once_M: DoubleArray, twice_M: DoubleArray
) -> DoubleArray:
    """Go on in the direction of two steps; return the second where that is no better."""
    step_M, bend_M = once_M - start_M, twice_M - 2 * once_M + start_M
    if not bend_M.any():
        return twice_M
    length = float(np.linalg.norm(step_M) / np.linalg.norm(bend_M))
    # None becomes so small that it would need many steps to grow again.
    further = np.maximum(start_M + 2 * length * step_M + length**2 * bend_M, twice_M / 100)
    further /= further.sum()
    is_better = losses(own_MN, further).mean() < losses(own_MN, twice_M).mean()
    return further if is_better else twice_M


def _drop_negligible(own_MN: DoubleArray, weights_M: DoubleArray) -> DoubleArray:
    """Set weights to zero that cost the run of a network and change nothing."""
    kept = np.where(weights_M < _NEGLIGIBLE, 0.0, weights_M)
    kept /= kept.sum()
    rises = losses(own_MN, kept).mean() - losses(own_MN, weights_M).mean()
    return kept if rises < _GAP else weights_M


def greedy(own_MN: DoubleArray, picks: int = _PICKS) -> DoubleArray:
    """Compute weights by forward selection with replacement, shape (M,).

    Caruana et al., "Ensemble selection from libraries of models", 2004, sections 2 and 2.1: start with
    the best member, repeatedly add the one that gives the lowest log-loss, and return the best of these
    selections; of equal ones the one with fewer members.

    Args:
        own_MN: see above.
        picks: the maximum number of steps.
    """
    members = len(own_MN)
    if not own_MN.shape[1]:
        return mean(own_MN)
    own_MN = np.maximum(own_MN, _LEAST)
    count_M, total_N = np.zeros(members), np.zeros(own_MN.shape[1])
    best, best_rank = count_M, (np.inf, members)
    for pick in range(1, picks + 1):
        loss_M = -np.log((total_N + own_MN) / pick).mean(axis=1).round(12)
        # Of equal ones: one that is selected already, then the first.
        chosen = min(range(members), key=lambda m: (loss_M[m], count_M[m] == 0, m))
        count_M = count_M + (np.arange(members) == chosen)
        total_N = total_N + own_MN[chosen]
        rank = (float(loss_M[chosen]), int((count_M > 0).sum()))
        if rank < best_rank:
            best, best_rank = count_M, rank
    return np.asarray(best / best.sum())


def weights_of_best(count: int) -> Callable[[DoubleArray], DoubleArray]:
    """Return the weighting that uses at most `count` members: those that `greedy` picks most."""

    def fit(own_MN: DoubleArray) -> DoubleArray:
        chosen = np.argsort(-greedy(own_MN), kind="stable")[:count]
        found = np.zeros(len(own_MN))
        found[chosen] = weights(own_MN[chosen])
        return found

    return fit


def best_pair(own_MN: DoubleArray) -> DoubleArray:
    """Give the two members whose mean has the least loss equal weights."""
    count = len(own_MN)
    pairs = list(combinations(range(count), 2)) if own_MN.shape[1] else []
    even = np.zeros((len(pairs), count))
    for row, pair in zip(even, pairs, strict=True):
        row[list(pair)] = 0.5
    return min(even, key=lambda weights_M: losses(own_MN, weights_M).mean(), default=mean(own_MN))


WEIGHTINGS: dict[str, Callable[[DoubleArray], DoubleArray]] = {
    "mean": mean,
    "weights": weights,
    "greedy": greedy,
}
"""The weightings of an ensemble, by name."""


@dataclass(frozen=True)
class MemberContribution:
    """A member's contribution: how much the log-loss rises without it, in nats.

    Attributes:
        loss: the mean rise; the other members' weights are scaled to a sum of 1.
        interval: its 95 % interval.
    """

    loss: float
    interval: Interval

    @property
    def improves(self) -> bool:
        """Whether these photos show that the member improves the ensemble."""
        return self.interval[0] > 0


def contributions(
    own_MN: DoubleArray, weights_M: DoubleArray, groups: Sequence[str | None] | None = None, *, seed: int = 0
) -> list[MemberContribution]:
    """Measure each member's contribution; 0 for a member without a weight.

    Best measured on photos that the weights were not fitted on; on the others it is slightly too high.

    Args:
        own_MN, weights_M: the ensemble.
        groups: of the photos, as in `intervals.bootstrap`.
        seed: of the bootstrap.

    Raises:
        ValueError: there is no photo.
    """
    found = []
    with_all_N = losses(own_MN, weights_M)
    for member, weight in enumerate(weights_M):
        rest = np.where(np.arange(len(weights_M)) == member, 0.0, weights_M)
        if weight == 0 or not rest.any():
            found.append(MemberContribution(0.0, (0.0, 0.0)))
            continue
        rise_N = losses(own_MN, rest / rest.sum()) - with_all_N
        interval = intervals.difference_interval(rise_N, groups, most=MOST, seed=seed)
        found.append(MemberContribution(float(rise_N.mean()), interval))
    return found
