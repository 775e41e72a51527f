"""Cross-fitting: each photo is measured by a head that saw neither it nor its group.

The photos are divided into five folds of whole groups. What measures a fold is learned from the other four,
and is chosen and calibrated on predictions of heads that are learned from three of those four (nested
cross-validation; Varma and Simon, "Bias in error estimation when using cross-validation for model
selection", 2006). The head that is delivered is chosen by the same rule, and learned from all photos.

Hard photos are measured in the same way, by the heads of their fold; nothing is learned, chosen or calibrated
on them. Which photos are measured, and in which fold, does not depend on which of them are hard.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np

from fieldmark.data.cross_validation import FOLDS, folds
from fieldmark.data.subset import LabelledPhotos
from fieldmark.evaluation import calibration, metrics
from fieldmark.features.labelled import LabelledFeatures
from fieldmark.heads.base import LinearHead
from fieldmark.utils import cpu
from fieldmark.utils.threads import in_order
from fieldmark.utils.typing import BoolArray, FloatArray, IntArray

Learn = Callable[[LabelledFeatures], Mapping[str, LinearHead]]
"""Learns the candidates from photos: heads by name, always the same names."""

HEADS_LEARNED = 1 + FOLDS + FOLDS * (FOLDS - 1) // 2
"""How many times the candidates are learned."""


@dataclass(frozen=True)
class OutOfFold:
    """Logits of photos by heads that did not see them.

    Attributes:
        numbers_M: which photos: those of classes with a photo outside the fold.
        logits_MC: their logits.
    """

    numbers_M: IntArray
    logits_MC: FloatArray


_LeftOut = dict[int, dict[str, OutOfFold]]
"""For each fold that was left out, its photos by each candidate."""


@dataclass(frozen=True)
class Choice:
    """The candidate with the least out-of-fold loss.

    Attributes:
        name: of the candidate.
        losses: the log-loss of each candidate, after its temperature; NaN without photos.
        found: the chosen candidate's out-of-fold logits.
    """

    name: str
    losses: Mapping[str, float]
    found: OutOfFold


@dataclass(frozen=True)
class Round:
    """One fold: its photos' logits, and what they are calibrated on.

    Attributes:
        measured: the photos of the fold.
        choice: made on the other folds.
    """

    measured: OutOfFold
    choice: Choice


class CrossFit:
    """The candidates learned from all photos, and from all without one or two folds.

    Args:
        features: the photos.
        photos: the same photos, in the same order.
        learn: learns the candidates.
        seed: of the folds.
        on_learned: called each time the candidates are learned.
        learned_N: which photos are learned from; the others are only measured. None: all.
    """

    def __init__(
        self,
        features: LabelledFeatures,
        photos: LabelledPhotos,
        learn: Learn,
        seed: int,
        on_learned: Callable[[], None] = lambda: None,
        *,
        learned_N: BoolArray | None = None,
    ) -> None:
        self._features, self._groups = features, photos.groups
        self._fold_N = folds(photos, FOLDS, seed)
        self._learn, self._on_learned = learn, on_learned
        self._learned_N = np.ones(len(photos), np.bool_) if learned_N is None else learned_N
        self._taxon_N = np.unique(photos.taxon_ids, return_inverse=True)[1]  # also of classes not learned

    def groups(self, numbers_M: IntArray) -> tuple[str | None, ...]:
        """Return the groups of some photos."""
        return tuple(self._groups[number] for number in numbers_M)

    @property
    def heads(self) -> Mapping[str, LinearHead]:
        """The candidates, learned from all photos."""
        return self._all[0]

    @cached_property
    def choice(self) -> Choice:
        """The choice on all photos."""
        return self._choose(None)

    @cached_property
    def head(self) -> LinearHead:
        """The chosen head, learned from all photos."""
        return self.heads[self.choice.name]

    @cached_property
    def rounds(self) -> list[Round]:
        """Each fold, measured without it; folds without a photo to measure are left out."""
        found = []
        for fold in range(FOLDS):
            choice = self._choose(fold)
            measured = self._of(fold)[choice.name]
            if len(measured.numbers_M):
                found.append(Round(measured, choice))
        return found

    @cached_property
    def _all(self) -> tuple[Mapping[str, LinearHead], dict[frozenset[int], _LeftOut]]:
        """The candidates, learned from all photos; and what is left out by those of all without some folds.

        Side by side, each in one thread: the matrices are small, and the sums do not depend on the number
        of cores.
        """
        every = range(FOLDS)
        left_out = [frozenset(some) for some in (*combinations(every, 1), *combinations(every, 2))]
        with cpu.single_threaded(torch_too=True):
            (heads, _), *rest = in_order(self._without, [frozenset[int](), *left_out])
        return heads, {key: found for key, (_, found) in zip(left_out, rest, strict=True)}

    def _of(self, fold: int, *others: int) -> dict[str, OutOfFold]:
        """The photos of a fold by heads that were learned without it and others."""
        return self._all[1][frozenset((fold, *others))][fold]

    def _choose(self, left_out: int | None) -> Choice:
        """Choose on all folds, or on all but one."""
        others = [fold for fold in range(FOLDS) if fold != left_out]
        parts = [self._of(fold) if left_out is None else self._of(fold, left_out) for fold in others]
        found = {}
        for name in parts[0]:
            numbers_M = np.concatenate([part[name].numbers_M for part in parts])
            learned_M = self._learned_N[numbers_M]
            logits_MC = np.concatenate([part[name].logits_MC for part in parts])
            found[name] = OutOfFold(numbers_M[learned_M], logits_MC[learned_M])
        losses = {name: self._loss(each) for name, each in found.items()}
        # Without a photo to choose by, the weakest regularisation: with one photo a class it errs least.
        name = (
            list(losses)[-1] if all(map(np.isnan, losses.values())) else min(losses, key=losses.__getitem__)
        )
        return Choice(name, losses, found[name])

    def _loss(self, found: OutOfFold) -> float:
        labels_M = self._features.labels[found.numbers_M]
        if not len(labels_M):
            return float("nan")
        heat = calibration.fit_temperature(found.logits_MC, labels_M, self.groups(found.numbers_M))
        return metrics.negative_log_likelihood(found.logits_MC / np.float32(heat), labels_M)

    def _without(self, left_out: frozenset[int]) -> tuple[Mapping[str, LinearHead], _LeftOut]:
        """Learn the candidates without some folds; returns them, and those folds' photos by them."""
        outside_N = ~np.isin(self._fold_N, list(left_out))
        heads = self._learn(self._features.where(outside_N & self._learned_N))
        self._on_learned()
        seen_N = np.isin(self._taxon_N, self._taxon_N[outside_N])
        found: _LeftOut = {}
        for fold in left_out:
            numbers_M = np.flatnonzero((self._fold_N == fold) & seen_N)
            x_MD = self._features.features[numbers_M]
            found[fold] = {name: OutOfFold(numbers_M, head.logits(x_MD)) for name, head in heads.items()}
        return heads, found
