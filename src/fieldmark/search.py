"""Several networks and views of a photo, learned on one split, and which of them to put together.

Everything is chosen on the training and validation photos by scores of heads that never saw the photo
(five folds), and measured on the test part once, at the end. A fold's head costs seconds on kept
features, so this is nearly free beside the features; and thousands of photos choose, not the few
hundred of a validation part, on which the best of many would be the luckiest.

A member's own head is then learned from nine tenths of all those photos, with a tenth to choose by.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fieldmark import backbones, calibration, ensemble, folds, metrics, progress
from fieldmark.backbones import Backbone
from fieldmark.classifier import name_of
from fieldmark.experiment import Bench, Parts, Photos
from fieldmark.heads.base import LinearHead
from fieldmark.heads.default import fit_best
from fieldmark.preprocess import Preprocess

FloatArray = npt.NDArray[np.float32]

RESERVE = 0.15
"""The share of a budget that is kept for choosing, measuring and writing."""

_SECONDS_A_GIGA_MAC = 0.05  # of a photo on a slow processor, until it has been measured here
_HEAD_SECONDS = 90.0  # of the heads of one candidate, until that has been measured


@dataclass
class Budget:
    """How long a search may take.

    Attributes:
        seconds: in all; None: as long as it takes.
        clock: the time in seconds.
    """

    seconds: float | None = None
    clock: Callable[[], float] = time.monotonic
    _start: float = field(init=False)

    def __post_init__(self) -> None:
        self._start = self.clock()

    @property
    def left(self) -> float:
        """The seconds that are left for candidates, the reserve taken off."""
        if self.seconds is None:
            return float("inf")
        return (1 - RESERVE) * self.seconds - (self.clock() - self._start)


@dataclass(frozen=True)
class Candidate:
    """One network and one view of a photo."""

    backbone: Backbone
    view: Preprocess

    @property
    def name(self) -> str:
        """What it is called on a page."""
        side = self.backbone.architecture.input_size if self.backbone.native else None
        return name_of(self.backbone.architecture.name, self.view, side)


@dataclass(frozen=True)
class Tried:
    """A candidate that was learned.

    Attributes:
        candidate: which.
        head: learned from nine tenths of the training and validation photos.
        logits_NC: of the training and validation photos, each by a head that never saw it.
        temperature: fitted on them.
        loss, error: of the calibrated scores on them.
        seconds: what it took here; features that were kept from before cost none.
    """

    candidate: Candidate
    head: LinearHead
    logits_NC: FloatArray
    temperature: float
    loss: float
    error: float
    seconds: float


@dataclass(frozen=True)
class Option:
    """One way to answer: a candidate alone, or some together.

    Attributes:
        name: "mean", "weights", "greedy", or the name of one candidate.
        weights_M: of each candidate that was tried.
        losses_N: of each photo, by weights that never saw it.
        error: the share named wrongly.
        giga_macs: its cost for one photo.
    """

    name: str
    weights_M: npt.NDArray[np.float64]
    losses_N: npt.NDArray[np.float64]
    error: float
    giga_macs: float

    @property
    def loss(self) -> float:
        """The mean log-loss in nats."""
        return float(self.losses_N.mean())


def learning_photos(parts: Parts) -> Photos:
    """The photos that are learned from and chosen by: all but the test part."""
    return folds.together(parts.train, parts.val)


def candidates(networks: Sequence[Backbone], bench: Bench, *, flips: bool) -> list[Candidate]:
    """The networks as they are, then with `flips` the same on mirrored photos; first come first."""
    plain = [Candidate(each, bench.crop_for(each)) for each in networks]
    if not flips:
        return plain
    flipped = [replace(each, view=replace(each.view, flip=True)) for each in plain]
    return [plain[0], flipped[0], *plain[1:], *flipped[1:]]


def bench_for(bench: Bench, candidate: Candidate) -> Bench:
    """Where the features of a candidate's view are kept."""
    return replace(bench, preprocess=replace(bench.preprocess, flip=candidate.view.flip))


def tried(
    wanted: Sequence[Candidate], bench: Bench, parts: Parts, seed: int, budget: Budget
) -> Iterator[Tried | str]:
    """Learn the candidates, one after the other; a sentence for one that the budget has no room for.

    The first is always learned. What a candidate will take is estimated from those before it.
    """
    head_seconds, rate = _HEAD_SECONDS, _SECONDS_A_GIGA_MAC
    for number, candidate in enumerate(wanted):
        own = bench_for(bench, candidate)
        cost = candidate.backbone.architecture.giga_macs * _missing(own, candidate, parts)
        estimate = rate * cost + head_seconds
        if number and estimate > budget.left:
            yield (
                f"{candidate.name}: not tried, it would take about {estimate:,.0f} s and "
                f"{max(0.0, budget.left):,.0f} s are left"
            )
            continue
        start = budget.clock()
        for _ in own.compute(
            parts.files, {candidate.backbone.architecture.name: candidate.backbone}
        ):
            pass
        features_done = budget.clock()
        found = _learned(candidate, own, parts, seed)
        end = budget.clock()
        head_seconds = 1.2 * (end - features_done)
        if cost:
            rate = 1.2 * (features_done - start) / cost
        yield replace(found, seconds=end - start)


def _missing(bench: Bench, candidate: Candidate, parts: Parts) -> int:
    """How many photos have no kept features of a candidate."""
    rows = bench.shelf(candidate.backbone).rows([photo.sha256 for photo in parts.files])
    return int((rows < 0).sum())


def _learned(candidate: Candidate, bench: Bench, parts: Parts, seed: int) -> Tried:
    photos, classes = learning_photos(parts), len(parts.classes)
    labelled = bench.features(candidate.backbone, photos, parts.classes)
    logits_NC = np.empty((len(photos), classes), np.float32)
    for fold in folds.rounds(photos, seed):
        learn, choose = labelled.where(fold.learn), labelled.where(fold.choose)
        head = fit_best(learn, choose, classes, seed=seed)[0].head
        logits_NC[fold.measure] = head.logits_of(labelled.where(fold.measure).features)
    choose_N = folds.folds(photos, 10, seed + 1) == 0
    learn, choose = labelled.where(~choose_N), labelled.where(choose_N)
    final = fit_best(learn, choose, classes, seed=seed)[0].head
    known = labelled.labels >= 0
    temperature = calibration.fit_temperature(logits_NC, labelled.labels)
    scaled, labels = logits_NC[known] / np.float32(temperature), labelled.labels[known]
    return Tried(
        candidate,
        final,
        logits_NC,
        temperature,
        metrics.negative_log_likelihood(scaled, labels),
        metrics.top_k_error(scaled, labels),
        0.0,
    )


def options(found: Sequence[Tried], parts: Parts, seed: int, ways: Sequence[str]) -> list[Option]:
    """Each candidate alone, and all of them together in each way, the least log-loss first.

    The weights are fitted on four folds and measured on the fifth, in turn; those that an option has
    at the end are fitted on all photos.
    """
    photos = learning_photos(parts)
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
        losses = ensemble.losses(own_MN, one)
        made.append(Option(each.candidate.name, one, losses, each.error, _cost(found, one)))
    for way in ways if len(found) > 1 else ():
        fit = ensemble.WAYS[way]
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
        made.append(Option(way, final, losses, float(wrong.mean()), _cost(found, final)))
    return sorted(made, key=lambda option: option.loss)


def _cost(found: Sequence[Tried], weights_M: npt.NDArray[np.float64]) -> float:
    used = (each for each, weight in zip(found, weights_M, strict=True) if weight > 0)
    return sum(each.candidate.backbone.architecture.giga_macs for each in used)


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


def load_all(names: Sequence[str], weights_dir: Any, seed: int) -> list[Backbone]:
    """The networks with their pretrained weights; what they are is said."""
    found = []
    for name in names:
        found.append(backbones.load(name, weights_dir=weights_dir, seed=seed))
        progress.say(f"Network: {name}; {found[-1].account.summary}")
    return found
