"""Ways to answer that a search could take, measured side by side, and which of them it takes.

Every number is of training and validation photos, each named by heads and weights that never saw it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fieldmark import ensemble, folds, metrics
from fieldmark.experiment import Parts, cost_of
from fieldmark.metrics import Interval
from fieldmark.search import Tried

Fit = Callable[[ensemble.FloatArray], ensemble.FloatArray]

WAYS: dict[str, Fit] = {
    **ensemble.WAYS,
    **{f"the best {count}": ensemble.of_few(count) for count in (2, 3, 4)},
}
"""How `best` puts candidates together; a few of them cost less than all."""


@dataclass(frozen=True)
class Option:
    """One way to answer: a candidate alone, or some together.

    Attributes:
        name: of the way, or of the one candidate.
        weights_M: of each candidate that was tried.
        losses_N: of each photo, in nats.
        wrong_N: whether each photo was named wrongly.
        giga_macs: multiply-adds for one photo, in thousands of millions.
        milliseconds: for one photo, as its features took here, decoding left out; None: not known.
    """

    name: str
    weights_M: npt.NDArray[np.float64]
    losses_N: npt.NDArray[np.float64]
    wrong_N: npt.NDArray[np.bool_]
    giga_macs: float
    milliseconds: float | None = None

    @property
    def loss(self) -> float:
        """The mean log-loss in nats."""
        return float(self.losses_N.mean())

    @property
    def error(self) -> float:
        """The share of the photos that are named wrongly."""
        return float(self.wrong_N.mean())


def options(
    found: Sequence[Tried], parts: Parts, seed: int, ways: Mapping[str, Fit]
) -> list[Option]:
    """Each candidate alone, and all of them together in each way, the least log-loss first.

    The weights are fitted on four folds and measured on the fifth, in turn; those that an option has
    at the end are fitted on all photos.
    """
    photos = folds.together(parts.train, parts.val)
    labels_N = photos.labels(parts.classes)
    known = labels_N >= 0
    fold_N, labels_N = folds.folds(photos, folds.FOLDS, seed)[known], labels_N[known]
    log_p_MNC = [
        metrics.log_softmax(each.logits_NC[known] / np.float32(each.temperature)) for each in found
    ]
    own_MN = np.stack([ensemble.of_right(log_p_NC, labels_N) for log_p_NC in log_p_MNC])
    made = []
    for number, each in enumerate(found):
        one = np.eye(len(found))[number]
        wrong = log_p_MNC[number].argmax(axis=1) != labels_N
        made.append(Option(each.name, one, ensemble.losses(own_MN, one), wrong, *_cost(found, one)))
    for way, fit in ways.items() if len(found) > 1 else ():
        losses, wrong = np.empty(len(labels_N)), np.empty(len(labels_N), np.bool_)
        for fold in range(folds.FOLDS):
            here = fold_N == fold
            if not here.any():
                continue
            weights_M = fit(own_MN[:, ~here])
            losses[here] = ensemble.losses(own_MN[:, here], weights_M)
            mixed = ensemble.log_mixture([p[here] for p in log_p_MNC], weights_M.tolist())
            wrong[here] = mixed.argmax(axis=1) != labels_N[here]
        final = fit(own_MN)
        made.append(Option(way, final, losses, wrong, *_cost(found, final)))
    return sorted(made, key=lambda option: option.loss)


def _cost(found: Sequence[Tried], weights_M: npt.NDArray[np.float64]) -> tuple[float, float | None]:
    """Giga-MACs and milliseconds: a network runs once a view, whatever the heads on it."""
    runs = {
        (each.candidate.backbone.key, each.candidate.view): each.candidate
        for each, weight in zip(found, weights_M, strict=True)
        if weight > 0
    }
    macs = sum(each.backbone.architecture.giga_macs for each in runs.values())
    seconds = [cost_of(each.bench, each.backbone, 1) for each in runs.values()]
    known = [each for each in seconds if each is not None]
    return macs, 1000 * sum(known) if len(known) == len(seconds) else None


def groups_of(parts: Parts) -> list[str | None]:
    """The groups of the photos that options are measured on, as in `metrics.bootstrap`."""
    photos = folds.together(parts.train, parts.val)
    labels = photos.labels(parts.classes)
    return [g for g, label in zip(photos.groups, labels, strict=True) if label >= 0]


def intervals(
    option: Option, reference: Option, groups: Sequence[str | None], seed: int
) -> tuple[Interval, float, Interval]:
    """The interval of an option's error; the error less the reference's, paired, and its interval."""
    wrong_N = option.wrong_N.astype(np.float64)
    apart_N = wrong_N - reference.wrong_N
    of_error = metrics.bootstrap(wrong_N, groups, seed=seed)
    return of_error, float(apart_N.mean()), metrics.bootstrap(apart_N, groups, seed=seed)


def winner(made: Sequence[Option], groups: Sequence[str | None], seed: int) -> tuple[Option, str]:
    """The option to take, and why: the cheapest of those that tie with the least log-loss.

    Args:
        made: the options, the best first.
        groups: of the photos, as in `metrics.bootstrap`.
        seed: of the bootstrap.
    """
    best = made[0]
    ties = []
    for option in made:
        rise_N = option.losses_N - best.losses_N
        low, high = metrics.bootstrap(rise_N, groups, seed=seed) if option is not best else (0, 0)
        if low <= 0:
            ties.append((option, low, high))
    chosen, low, high = min(ties, key=lambda tie: (tie[0].giga_macs, tie[0].loss))
    if chosen is best:
        return best, (
            f"{best.name} has the least log-loss on photos that its heads and weights never saw "
            f"({best.loss:.3f}), and nothing cheaper ties with it."
        )
    return chosen, (
        f"{chosen.name} ties with {best.name} (log-loss {chosen.loss:.3f} against {best.loss:.3f}; "
        f"the difference is {low:.3f} to {high:.3f}) and costs less."
    )
