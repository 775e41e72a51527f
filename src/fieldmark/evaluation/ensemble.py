"""Several classifiers as one: how much each counts, and whether it earns its place.

An ensemble's probability is the weighted mean of its members' (the "linear opinion pool"; Stone, "The
opinion pool", 1961). Its log-loss on labelled photos depends on one number a member and photo alone,
the probability that the member gives the right class; so everything here works on those, `own_MN`: float
(M, N), a row a member, a column a photo.

The weights of a mean of probabilities are another thing than those of `heads.scaling`, which weigh
logits: these cannot make an answer surer than its surest member.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fieldmark.evaluation import metrics
from fieldmark.evaluation.metrics import Interval
from fieldmark.utils.typing import DoubleArray, IntArray

_LEAST = 1e-12  # of a probability: a member that rules the right class out costs much, not all
MOST = float(-np.log(_LEAST))
"""Nats that one photo costs at most."""

_ROUNDS = 20_000
_GAP = 1e-6  # nats from the least log-loss: far less than any photo can tell
_NEGLIGIBLE = 1e-3  # of the whole weight
_PICKS = 50


def label_probabilities(
    scores_NC: npt.NDArray[np.floating[Any]], labels_N: IntArray
) -> DoubleArray:
    """The probability that a member gives each photo's right class, shape (N,).

    Args:
        scores_NC: its logits or log-probabilities.
        labels_N: the columns of the right classes; every photo must have one.
    """
    log_p_NC = metrics.log_softmax(scores_NC)
    return np.asarray(np.exp(np.take_along_axis(log_p_NC, labels_N[:, None], axis=1))[:, 0])


def log_mixture(
    log_p_MNC: Sequence[npt.NDArray[np.floating[Any]]], weights_M: Sequence[float]
) -> DoubleArray:
    """The log of the weighted mean of the members' probabilities, shape (N, C), without underflow.

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
    """What each photo costs the ensemble: -log of the mean probability, in nats, shape (N,)."""
    return np.asarray(-np.log(np.asarray(weights_M) @ np.maximum(own_MN, _LEAST)))


def mean(own_MN: DoubleArray) -> DoubleArray:
    """The same weight for each member, shape (M,)."""
    return np.full(len(own_MN), 1 / len(own_MN))


def weights(own_MN: DoubleArray) -> DoubleArray:
    """The weights on the simplex with the least mean log-loss, shape (M,).

    The loss is convex; EM for the shares of a mixture of known parts (Dempster, Laird and Rubin, 1977,
    section 4.3) never raises it. It stops where no other weights can be better by more than 1e-6
    nats: the gradient's largest entry bounds how much is left (Cover, "An algorithm for maximizing
    expected log investment return", 1984, equation 14).

    Returns:
        The weights; equal ones where there is no photo. Those under a thousandth are set to zero.
    """
    found = mean(own_MN)
    if not own_MN.shape[1]:
        return found
    own_MN = np.maximum(own_MN, _LEAST)
    for _ in range(_ROUNDS):
        gain_M = (own_MN / (found @ own_MN)).mean(axis=1)
        if np.log(gain_M.max()) < _GAP:
            break
        found = found * gain_M
    return _drop_negligible(own_MN, found / found.sum())


def _drop_negligible(own_MN: DoubleArray, weights_M: DoubleArray) -> DoubleArray:
    """The weights without those that cost a network's run and change nothing."""
    kept = np.where(weights_M < _NEGLIGIBLE, 0.0, weights_M)
    kept /= kept.sum()
    rises = losses(own_MN, kept).mean() - losses(own_MN, weights_M).mean()
    return kept if rises < 10 * _GAP else weights_M


def greedy(own_MN: DoubleArray, picks: int = _PICKS) -> DoubleArray:
    """Weights by forward selection with replacement, shape (M,).

    Caruana et al., "Ensemble selection from libraries of models", 2004, sections 2 and 2.1: begin with
    the best member, add again and again the one with which the log-loss is least, and keep the bag that
    was best. Of equal ones the one with fewer members is taken.

    Args:
        own_MN: see above.
        picks: how many are put into the bag at most.
    """
    members = len(own_MN)
    if not own_MN.shape[1]:
        return mean(own_MN)
    own_MN = np.maximum(own_MN, _LEAST)
    count_M, total_N = np.zeros(members), np.zeros(own_MN.shape[1])
    best, best_rank = count_M, (np.inf, members)
    for pick in range(1, picks + 1):
        loss_M = -np.log((total_N + own_MN) / pick).mean(axis=1).round(12)
        # Among equal ones: one that is in the bag already, then the first.
        chosen = min(range(members), key=lambda m: (loss_M[m], count_M[m] == 0, m))
        count_M = count_M + (np.arange(members) == chosen)
        total_N = total_N + own_MN[chosen]
        rank = (float(loss_M[chosen]), int((count_M > 0).sum()))
        if rank < best_rank:
            best, best_rank = count_M, rank
    return np.asarray(best / best.sum())


def weights_of_best(count: int) -> Callable[[DoubleArray], DoubleArray]:
    """The way that gives at most `count` members a weight: those that `greedy` picks most."""

    def fit(own_MN: DoubleArray) -> DoubleArray:
        chosen = np.argsort(-greedy(own_MN), kind="stable")[:count]
        found = np.zeros(len(own_MN))
        found[chosen] = weights(own_MN[chosen])
        return found

    return fit


WEIGHTINGS: dict[str, Callable[[DoubleArray], DoubleArray]] = {
    "mean": mean,
    "weights": weights,
    "greedy": greedy,
}
"""How the weights of an ensemble are found, by name."""


@dataclass(frozen=True)
class MemberContribution:
    """What a member is worth: how much the log-loss rises where it is left out, in nats.

    Attributes:
        loss: the mean rise; the other members' weights are brought to a sum of 1.
        interval: its 95 % interval.
    """

    loss: float
    interval: Interval

    @property
    def earns(self) -> bool:
        """Whether the member earns its place: these photos can tell that it helps."""
        return self.interval[0] > 0


def worth(
    own_MN: DoubleArray,
    weights_M: DoubleArray,
    groups: Sequence[str | None] | None = None,
    *,
    seed: int = 0,
) -> list[MemberContribution]:
    """The worth of each member with a weight, others in their place 0; see `Worth`.

    Photos that the weights were not fitted on say it best; on those that they were fitted on it is a
    little too high.

    Args:
        own_MN, weights_M: the ensemble.
        groups: of the photos, as in `metrics.bootstrap`.
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
        interval = metrics.difference_interval(rise_N, groups, most=MOST, seed=seed)
        found.append(MemberContribution(float(rise_N.mean()), interval))
    return found
