"""Compare the options of a search, which are candidates and ensembles of them, and choose one.

All measures are out-of-fold predictions of the training and validation photos; only a candidate's
temperature is fitted on all of them. First the options with last layers are compared, on all these
photos; then the chosen one with the fine-tuned networks, on their one held-out fold. So options are
always compared on the same photos.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fieldmark.data import cross_validation
from fieldmark.data.subset import DataSplits
from fieldmark.evaluation import ensemble, intervals
from fieldmark.evaluation.intervals import Interval
from fieldmark.features.extractor import cost_of
from fieldmark.training.automl.candidate import TrialResult, training_and_validation
from fieldmark.utils.typing import BoolArray, DoubleArray, IntArray

WeightFunction = Callable[[DoubleArray], DoubleArray]

WEIGHTINGS: dict[str, WeightFunction] = {
    **ensemble.WEIGHTINGS,
    **{f"best-{count}": ensemble.weights_of_best(count) for count in (2, 3, 4)},
}
"""The ways in which `best` weights candidates; a few of them cost less than all."""


@dataclass(frozen=True)
class EnsembleOption:
    """One candidate, or an ensemble of candidates.

    Attributes:
        name: of the weighting, or of the candidate.
        weights_M: of all candidates.
        losses_N: the log-loss of each photo, in nats.
        wrong_N: whether each photo's first answer is wrong.
        giga_macs: multiply-adds for one photo, in thousands of millions.
        milliseconds: for the features of one photo, without decoding; None: not known.
        without_FM: the weights for each fold, fitted on the other folds.
    """

    name: str
    weights_M: DoubleArray
    losses_N: DoubleArray
    wrong_N: BoolArray
    giga_macs: float
    milliseconds: float | None = None
    without_FM: DoubleArray | None = None

    @property
    def loss(self) -> float:
        """The mean log-loss in nats."""
        return float(self.losses_N.mean())

    @property
    def error(self) -> float:
        """The top-1 error."""
        return float(self.wrong_N.mean())


def options(
    found: Sequence[TrialResult], parts: DataSplits, seed: int, ways: Mapping[str, WeightFunction]
) -> list[EnsembleOption]:
    """Measure each candidate alone and the ensembles by each weighting, lowest log-loss first.

    The weights are fitted on four folds and measured on the fifth, in turn; the final weights of an
    option are fitted on all photos. The plain mean leaves variants of a candidate out.

    Args:
        found: candidates, measured on all training and validation photos.
        parts: the photos.
        seed: of the folds.
        ways: the weightings.
    """
    photos = training_and_validation(parts)
    labels_N = photos.labels(parts.classes)
    known = labels_N >= 0
    fold_N, labels_N = (cross_validation.folds(photos, cross_validation.FOLDS, seed)[known], labels_N[known])
    log_p_MNC = [each.log_p(known) for each in found]
    own_MN = np.stack([ensemble.label_probabilities(log_p_NC, labels_N) for log_p_NC in log_p_MNC])
    plain_M = np.array([not each.variant for each in found])
    made = []
    for number, each in enumerate(found):
        one = np.eye(len(found))[number]
        wrong = log_p_MNC[number].argmax(axis=1) != labels_N
        losses_N = ensemble.losses(own_MN, one)
        made.append(EnsembleOption(each.name, one, losses_N, wrong, *_cost(found, one)))
    for way, given in ways.items() if len(found) > 1 else ():
        fit = _mean_of(plain_M) if given is ensemble.mean else given
        mixed = _mixed(log_p_MNC, own_MN, labels_N, fold_N, fit)
        weights_M = fit(own_MN)
        made.append(
            EnsembleOption(f"{way} ensemble", weights_M, *mixed[:2], *_cost(found, weights_M), mixed[2])
        )
    return sorted(made, key=lambda option: option.loss)


def _mean_of(plain_M: BoolArray) -> WeightFunction:
    return lambda _: plain_M / plain_M.sum()


def _mixed(
    log_p_MNC: Sequence[npt.NDArray[Any]],
    own_MN: DoubleArray,
    labels_N: IntArray,
    fold_N: IntArray,
    fit: WeightFunction,
) -> tuple[DoubleArray, BoolArray, DoubleArray]:
    """Measure an ensemble, each fold with weights fitted on the others.

    Returns:
        Each photo's loss, whether its first answer is wrong, and the weights for each fold.
    """
    losses, wrong = np.empty(len(labels_N)), np.empty(len(labels_N), np.bool_)
    without_FM = np.empty((cross_validation.FOLDS, len(own_MN)))
    for fold in range(cross_validation.FOLDS):
        here = fold_N == fold
        weights_M = without_FM[fold] = fit(own_MN[:, ~here])
        if here.any():
            losses[here] = ensemble.losses(own_MN[:, here], weights_M)
            log_p_NC = ensemble.log_mixture([p[here] for p in log_p_MNC], weights_M.tolist())
            wrong[here] = log_p_NC.argmax(axis=1) != labels_N[here]
    return losses, wrong, without_FM


def options_with_fine_tuned(
    taken: EnsembleOption,
    found: Sequence[TrialResult],
    tuned: Sequence[TrialResult],
    parts: DataSplits,
    seed: int,
) -> list[EnsembleOption]:
    """Compare the chosen option, each fine-tuned network, and ensembles of them on the held-out fold.

    Args:
        taken: the chosen option of `found`; its weights on the fold are those fitted on the others.
        found: the candidates with last layers.
        tuned: the fine-tuned ones, at least one, all measured on the first fold.
        parts, seed: as for `options`.

    Returns:
        Options, lowest log-loss first, with weights for `found` followed by `tuned`; the chosen option
        keeps its name.
    """
    photos = training_and_validation(parts)
    labels_N = photos.labels(parts.classes)
    held = tuned[0].rows_N
    assert held is not None
    rows = held & (labels_N >= 0)
    inner_N = cross_validation.folds(photos.where(rows), cross_validation.FOLDS, seed)
    known, labels_N = labels_N[held] >= 0, labels_N[rows]
    before_M = taken.weights_M if taken.without_FM is None else taken.without_FM[0]
    first = ensemble.log_mixture([each.log_p(rows) for each in found], before_M.tolist())
    log_p_KNC = [first, *(each.log_p(known) for each in tuned)]
    own_KN = np.stack([ensemble.label_probabilities(log_p_NC, labels_N) for log_p_NC in log_p_KNC])
    every = [*found, *tuned]
    weights_KM = np.eye(len(every))[len(found) :]
    weights_KM = np.stack([np.append(taken.weights_M, np.zeros(len(tuned))), *weights_KM])
    names = [taken.name, *(each.name for each in tuned)]
    made = []
    for number, name in enumerate(names):
        wrong = log_p_KNC[number].argmax(axis=1) != labels_N
        losses_N = ensemble.losses(own_KN, np.eye(len(names))[number])
        weights_M = weights_KM[number]
        made.append(EnsembleOption(name, weights_M, losses_N, wrong, *_cost(every, weights_M)))
    sets = [[0, number] for number in range(1, len(names))]
    for some in [*sets, list(range(len(names)))] if len(sets) > 1 else sets:
        members = [log_p_KNC[number] for number in some]
        mixed = _mixed(members, own_KN[some], labels_N, inner_N, ensemble.weights)
        weights_M = ensemble.weights(own_KN[some]) @ weights_KM[some]
        name = " with ".join(names[number] for number in some)
        made.append(EnsembleOption(name, weights_M, *mixed[:2], *_cost(every, weights_M)))
    return sorted(made, key=lambda option: option.loss)


def _cost(found: Sequence[TrialResult], weights_M: DoubleArray) -> tuple[float, float | None]:
    """Compute giga-MACs and milliseconds; a network runs once per view, whatever the heads on it."""
    runs = {
        (each.candidate.backbone.key, each.candidate.view): each.candidate
        for each, weight in zip(found, weights_M, strict=True)
        if weight > 0
    }
    macs = sum(each.backbone.architecture.giga_macs for each in runs.values())
    seconds = [cost_of(each.extractor, each.backbone, 1) for each in runs.values()]
    known = [each for each in seconds if each is not None]
    return macs, 1000 * sum(known) if len(known) == len(seconds) else None


def groups_of(parts: DataSplits, tuned: Sequence[TrialResult] = ()) -> list[str | None]:
    """Return the groups of the photos that options are measured on, as in `intervals.bootstrap`."""
    photos = training_and_validation(parts)
    rows = photos.labels(parts.classes) >= 0
    if tuned and tuned[0].rows_N is not None:
        rows &= tuned[0].rows_N
    return list(photos.where(rows).groups)


def compared(
    option: EnsembleOption, reference: EnsembleOption, groups: Sequence[str | None], seed: int
) -> tuple[Interval, float, Interval]:
    """Compute the interval of an option's error, its paired difference from the reference, and the
    interval of the difference."""
    wrong_N = option.wrong_N.astype(np.float64)
    difference_N = wrong_N - reference.wrong_N
    difference_interval = intervals.difference_interval(difference_N, groups, seed=seed)
    error_interval = intervals.error_interval(wrong_N, groups)
    return error_interval, float(difference_N.mean()), difference_interval


def loss_differences(
    made: Sequence[EnsembleOption], groups: Sequence[str | None], seed: int
) -> list[Interval]:
    """Compute the interval of each option's log-loss minus the first option's, paired."""
    best_N, found = made[0].losses_N, []
    for each in made:
        rise_N = each.losses_N - best_N
        same = not rise_N.any()  # itself, or one with the same predictions
        found.append(
            (0.0, 0.0)
            if same
            else intervals.difference_interval(rise_N, groups, most=ensemble.MOST, seed=seed)
        )
    return found


def choose_option(made: Sequence[EnsembleOption], rise: Sequence[Interval]) -> tuple[EnsembleOption, str]:
    """Choose the cheapest option that ties with the lowest log-loss; return it and the reason.

    Args:
        made: the options, lowest log-loss first.
        rise: the result of `loss_differences`.
    """
    best = made[0]
    ties = [each for each in zip(made, rise, strict=True) if each[1][0] <= 0]
    chosen, (low, high) = min(ties, key=lambda tie: (tie[0].giga_macs, tie[0].loss))
    if chosen is best:
        return best, (
            f"{best.name} has the lowest out-of-fold log-loss ({best.loss:.3f}), and no cheaper "
            "option ties with it."
        )
    return chosen, (
        f"{chosen.name} ties with {best.name} (log-loss {chosen.loss:.3f} against {best.loss:.3f}; "
        f"the difference is {low:.3f} to {high:.3f}) and costs less."
    )
