"""Kernels and networks as priors of places and times, with what each says of photos that it did not see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fieldmark.data.cross_validation import FOLDS
from fieldmark.data.locations import Locations
from fieldmark.evaluation import intervals, location_network, location_prior
from fieldmark.evaluation.location_prior import KernelPrior
from fieldmark.inference.classifier.location import Frequencies
from fieldmark.utils import random
from fieldmark.utils.choices import PriorKind
from fieldmark.utils.logging import progress_bar
from fieldmark.utils.typing import DoubleArray, FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class Candidate:
    """A prior, and its ratios (see `KernelPrior.log_ratios`) for photos that it did not see.

    Attributes:
        kind: `kernel` or `network`.
        frequencies: learned from all occurrences.
        occurrences: how many.
        known_NC: without those of the photo's place and day.
        new_NC: without those of the photo's place; the same array where both are.
    """

    kind: str
    frequencies: Frequencies
    occurrences: int
    known_NC: FloatArray
    new_NC: FloatArray


@dataclass(frozen=True, eq=False)
class Photos:
    """Photos that a prior is learned from, and that it is measured on.

    Attributes:
        here: where and when they were taken.
        y_N: their classes.
        places: the name of the place of each.
        easy_E: which may be learned from.
        classes: how many there are.
        by_place: whether no fold knows the place of a photo: then the prior does not either.
    """

    here: Locations
    y_N: IntArray
    places: Sequence[str]
    easy_E: IntArray
    classes: int
    by_place: bool

    def candidates(self, kind: PriorKind, seed: int) -> list[Candidate]:
        """Learn a kernel, a network or both."""
        found = location_prior.distinct(self.here.where(self.easy_E), self.y_N[self.easy_E], seed)
        rows = self.easy_E[found]
        made = {"kernel": self._kernel, "network": self._network}
        return [make(rows, seed) for name, make in made.items() if kind in (name, "auto")]

    @property
    def _days(self) -> list[str]:
        return [f"{place} {day}" for place, day in zip(self.places, self.here.day_N, strict=True)]

    def _kernel(self, rows: IntArray, seed: int) -> Candidate:
        asked = self.places if self.by_place else self._days
        names = [asked[row] for row in rows]
        kernel = KernelPrior.fit(self.here.where(rows), self.y_N[rows], self.classes, names, seed)
        new_NC = _ratios(kernel, self.here, self.places, rows)
        known_NC = new_NC if self.by_place else _ratios(kernel, self.here, asked, rows)
        return Candidate("kernel", kernel, len(rows), known_NC, new_NC)

    def _network(self, rows: IntArray, seed: int) -> Candidate:
        at, class_M = self.here.where(rows), self.y_N[rows]

        def unseen(names: Sequence[str]) -> FloatArray:
            return _unseen(at, class_M, self.classes, self.here, names, rows, seed)

        whole = location_network.fit(at, class_M, self.classes, seed)
        new_NC = unseen(self.places)
        known_NC = new_NC if self.by_place else unseen(self._days)
        smoothing = _smoothing(known_NC[rows], class_M, whole.overall_C)
        found = [_shares(each, whole.overall_C, smoothing) for each in (known_NC, new_NC)]
        known_NC, new_NC = (found[0], found[0]) if self.by_place else found
        return Candidate("network", replace(whole, smoothing=smoothing), len(rows), known_NC, new_NC)


def of_table(
    occurrences: Locations, class_M: IntArray, classes: int, here: Locations, kind: PriorKind, seed: int
) -> list[Candidate]:
    """Learn a kernel, a network or both from occurrences of a table; ratios are of the photos `here`."""
    rows = location_prior.distinct(occurrences, class_M, seed)
    at, class_M = occurrences.where(rows), class_M[rows]
    cells = [f"{a:.1f},{b:.1f}" for a, b in zip(at.latitude_N, at.longitude_N, strict=True)]
    found: list[tuple[str, Frequencies]] = []
    if kind != "network":
        found.append(("kernel", KernelPrior.fit(at, class_M, classes, cells, seed)))
    if kind != "kernel":
        whole = location_network.fit(at, class_M, classes, seed)
        presence_MC = _unseen(at, class_M, classes, at, cells, np.arange(len(rows)), seed)
        smoothing = _smoothing(presence_MC, class_M, whole.overall_C)
        found.append(("network", replace(whole, smoothing=smoothing)))
    made = []
    for name, each in found:
        ratio_NC = _ratios(each, here) if isinstance(each, KernelPrior) else each.log_ratios(here)
        made.append(Candidate(name, each, len(rows), ratio_NC, ratio_NC))
    return made


def _ratios(
    kernel: KernelPrior, here: Locations, names: Sequence[str] | None = None, rows: IntArray | None = None
) -> FloatArray:
    """Compute the ratios of photos, each without those of its name; the kernel has the photos `rows`."""
    unit_N = np.zeros(len(here), np.int64) if names is None else intervals.units(names, len(here))
    keys_N4 = np.stack([here.latitude_N, here.longitude_N, here.day_N, unit_N], 1)
    _, first_Q, back_N = np.unique(keys_N4, axis=0, return_index=True, return_inverse=True)
    units = None if rows is None else (unit_N[first_Q], unit_N[rows])
    return kernel.log_ratios(here.where(first_Q), units)[back_N.reshape(-1)]


def _unseen(
    at: Locations,
    class_M: IntArray,
    classes: int,
    here: Locations,
    names: Sequence[str],
    rows: IntArray,
    seed: int,
) -> FloatArray:
    """Compute what networks that saw no occurrence of a photo's name say of it: presence, shape (N, C).

    The occurrences are those of the photos `rows`. It is 0, for all classes, where there is no other name.
    """
    unit_N = intervals.units(names, len(here))
    order = random.generator(seed, "prior folds").permutation(int(unit_N.max()) + 1)
    fold_N = order[unit_N] % FOLDS
    found_NC = np.zeros((len(here), classes), np.float32)
    with progress_bar("network of places", FOLDS, unit="folds") as bar:
        for fold in range(FOLDS):
            here_N, learn_M = fold_N == fold, fold_N[rows] != fold
            if here_N.any() and learn_M.any():
                network = location_network.fit(at.where(learn_M), class_M[learn_M], classes, seed)
                found_NC[here_N] = network.presence(here.where(here_N))
            bar.advance()
    return found_NC


def _shares(presence_NC: FloatArray, overall_C: DoubleArray, smoothing: float) -> FloatArray:
    """Compute ratios from the probabilities of presence."""
    p_NC = location_network.shares(presence_NC, overall_C, smoothing)
    return np.log(p_NC / overall_C).astype(np.float32)


def _smoothing(presence_MC: FloatArray, class_M: IntArray, overall_C: DoubleArray) -> float:
    """Choose the smoothing with the least cross-entropy on occurrences that were not learned from."""

    def loss(smoothing: float) -> float:
        p_MC = location_network.shares(presence_MC, overall_C, smoothing)
        return -float(np.log(p_MC[np.arange(len(class_M)), class_M]).mean())

    return min(location_network.SMOOTHING, key=loss)
