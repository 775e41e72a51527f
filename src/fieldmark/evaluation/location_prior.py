"""Which classes are to be expected at a place and a time of the year, and what that is worth to a classifier.

The prior is a kernel density: occurrences count the more, the nearer they are on the sphere and in the
year. Bandwidths and smoothing have the least cross-entropy on occurrences that were left out. A
probability is multiplied by the ratio of the prior here to that overall, to the power of a strength
(Mac Aodha and others, "Presence-only geographical priors for fine-grained image classification", 2019, have
the same product with a network as the prior).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product

import numpy as np

from fieldmark.data.locations import Locations
from fieldmark.data.taxonomy import Level
from fieldmark.evaluation import calibration, intervals, metrics
from fieldmark.evaluation.calibration import Threshold
from fieldmark.evaluation.comparison import Difference
from fieldmark.evaluation.events import halves
from fieldmark.utils import random
from fieldmark.utils.typing import BoolArray, DoubleArray, FloatArray, IntArray

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
FLOOR = 0.05
"""No class is thought more than 20 times rarer at a place than overall."""
_KILOMETRES = (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
_DAYS = (10.0, 30.0, 60.0, 1000.0)  # the last: the season does not count
_SMOOTHING = (1.0, 5.0)  # occurrences that the overall frequencies stand for
_YEAR, _EARTH = 365.25, 6371.0  # days; kilometres, the radius
MOST = 20_000
"""Of more occurrences a sample is drawn."""
_ASKED = 500  # occurrences that bandwidths are chosen on
_BLOCK = 1 << 20  # distances in memory at once
FEWEST = 20
"""Photos with a place, and occurrences, from which a prior can be chosen."""


@dataclass(frozen=True, eq=False)
class KernelPrior:
    """The frequencies of classes by place and time of the year.

    Attributes:
        locations: of N occurrences.
        class_N: the class of each, in ascending order.
        classes: how many there are, C.
        kilometres, days: the standard deviations of the kernel.
        smoothing: the number of occurrences that the overall frequencies stand for.
    """

    locations: Locations
    class_N: IntArray
    classes: int
    kilometres: float = 100.0
    days: float = 30.0
    smoothing: float = 1.0

    @classmethod
    def fit(
        cls, locations: Locations, class_N: IntArray, classes: int, places: Sequence[str], seed: int = 0
    ) -> KernelPrior:
        """Choose bandwidths and smoothing.

        Args:
            locations: of occurrences, see `distinct`.
            class_N: the class of each.
            classes: how many there are.
            places: of each occurrence: all of one place are left out together.
            seed: of the sample of occurrences that the choice is made on.
        """
        whole = cls(locations, class_N, classes)
        unit_N, asked_Q = intervals.units(places, len(class_N)), np.arange(len(class_N))
        if len(asked_Q) > _ASKED:
            asked_Q = np.sort(random.generator(seed, "asked").choice(asked_Q, _ASKED, replace=False))
        losses = whole._losses(asked_Q, unit_N)
        kilometres, days, smoothing = min(losses, key=lambda each: losses[each])
        return replace(whole, kilometres=kilometres, days=days, smoothing=smoothing)

    def _losses(self, asked_Q: IntArray, unit_N: IntArray) -> dict[tuple[float, float, float], float]:
        """Compute the cross-entropy of some occurrences by those of other places, for each setting."""
        found = dict.fromkeys(product(_KILOMETRES, _DAYS, _SMOOTHING), 0.0)
        step = max(1, _BLOCK // max(1, len(self.class_N)))
        for start in range(0, len(asked_Q), step):
            rows = asked_Q[start : start + step]
            far_BN = _kilometres(self.locations.where(rows), self.locations)
            late_BN = _days(self.locations.where(rows), self.locations)
            other_BN = (unit_N[rows][:, None] != unit_N).astype(np.float64)
            own_BN = self.class_N[rows][:, None] == self.class_N
            share_B = self._share_C[self.class_N[rows]]
            near = {each: _near(far_BN, each) * other_BN for each in _KILOMETRES}
            soon = {each: _soon(late_BN, each) for each in _DAYS}
            for kilometres, days in product(_KILOMETRES, _DAYS):
                weight_BN = near[kilometres] * soon[days]
                own_B, all_B = (weight_BN * own_BN).sum(axis=1), weight_BN.sum(axis=1)
                for smoothing in _SMOOTHING:
                    p_B = (own_B + smoothing * share_B) / (all_B + smoothing)
                    loss = -np.log(FLOOR * share_B + (1 - FLOOR) * p_B).sum()
                    found[kilometres, days, smoothing] += float(loss)
        return found

    def only(self, columns: Sequence[int]) -> KernelPrior:
        """Return the prior of some of the classes."""
        new_C = np.full(self.classes, -1)
        new_C[list(columns)] = np.arange(len(columns))
        rows = new_C[self.class_N] >= 0
        kept, places = new_C[self.class_N][rows], self.locations.where(rows)
        return replace(self, locations=places, class_N=kept, classes=len(columns))

    @cached_property
    def _count_C(self) -> IntArray:
        return np.bincount(self.class_N, minlength=self.classes)

    @cached_property
    def overall_C(self) -> DoubleArray:
        """The frequencies of the classes overall, each with one occurrence more; they sum to 1."""
        found: DoubleArray = (self._count_C + 1.0) / (len(self.class_N) + self.classes)
        return found

    @cached_property
    def _share_C(self) -> DoubleArray:
        """The frequencies among the classes that have an occurrence."""
        share_C = np.where(self._count_C > 0, self.overall_C, 0.0)
        found: DoubleArray = share_C / share_C.sum()
        return found

    def probabilities(self, at: Locations, units: tuple[IntArray, IntArray] | None = None) -> DoubleArray:
        """Compute the frequencies at some places and days, shape (Q, C), which sum to 1.

        None is below `FLOOR` times that overall. A class without an occurrence has that overall, and so have
        all at an unknown place, or far from every occurrence.

        Args:
            at: the places and days.
            units: a number for each of them and for each occurrence: those with the same are left out.
        """
        p_QC = np.empty((len(at), self.classes))
        step = max(1, _BLOCK // max(1, len(self.class_N)))
        for start in range(0, len(at), step):
            rows = np.arange(start, min(start + step, len(at)))
            here = at.where(rows)
            weight_BN = _near(_kilometres(here, self.locations), self.kilometres)
            weight_BN *= _soon(_days(here, self.locations), self.days)
            weight_BN *= here.known_N[:, None]
            if units is not None:
                weight_BN *= units[0][rows][:, None] != units[1]
            p_QC[rows] = self._smoothed(weight_BN)
        return p_QC

    def _smoothed(self, weight_BN: DoubleArray) -> DoubleArray:
        seen_S = np.flatnonzero(self._count_C)
        starts_S = np.searchsorted(self.class_N, seen_S)
        count_BC = np.zeros((len(weight_BN), self.classes))
        count_BC[:, seen_S] = np.add.reduceat(weight_BN, starts_S, axis=1)
        all_B1 = weight_BN.sum(axis=1, keepdims=True)
        p_BC = (count_BC + self.smoothing * self._share_C) / (all_B1 + self.smoothing)
        p_BC = FLOOR * self._share_C + (1 - FLOOR) * p_BC
        seen_C = self._count_C > 0
        found: DoubleArray = np.where(seen_C, p_BC * self.overall_C[seen_C].sum(), self.overall_C)
        return found

    def log_ratios(self, at: Locations, units: tuple[IntArray, IntArray] | None = None) -> FloatArray:
        """Compute the logarithms of `probabilities` over the frequencies overall, shape (Q, C)."""
        return np.log(self.probabilities(at, units) / self.overall_C).astype(np.float32)


def distinct(locations: Locations, class_N: IntArray, seed: int = 0) -> IntArray:
    """Return the rows of occurrences, by class: one for each class, place and day, and 20,000 at most.

    Photos of one visit are one occurrence. Places are told apart to 0.001 degrees; of too many occurrences a
    sample is drawn.
    """
    keys_N4 = np.stack(
        [class_N, np.round(locations.latitude_N, 3), np.round(locations.longitude_N, 3), locations.day_N], 1
    )
    rows = np.unique(keys_N4, axis=0, return_index=True)[1]
    if len(rows) > MOST:
        rows = random.generator(seed, "occurrences").choice(rows, MOST, replace=False)
    found: IntArray = rows[np.lexsort((rows, class_N[rows]))]
    return found


def _kilometres(one: Locations, other: Locations) -> DoubleArray:
    """Compute distances on the sphere, shape (Q, N), by the haversine formula; 0 where one is unknown."""
    latitude_Q, latitude_N = np.radians(one.latitude_N)[:, None], np.radians(other.latitude_N)
    turn_QN = np.radians(one.longitude_N[:, None] - other.longitude_N)
    square_QN = np.sin((latitude_Q - latitude_N) / 2) ** 2
    square_QN += np.cos(latitude_Q) * np.cos(latitude_N) * np.sin(turn_QN / 2) ** 2
    found: DoubleArray = 2 * _EARTH * np.arcsin(np.sqrt(np.minimum(np.nan_to_num(square_QN), 1)))
    return found


def _days(one: Locations, other: Locations) -> DoubleArray:
    """Compute how far days of the year are apart, shape (Q, N); NaN where one is unknown."""
    apart_QN: DoubleArray = np.abs(one.day_N[:, None] - other.day_N).astype(np.float64)
    apart_QN = np.minimum(apart_QN, np.maximum(_YEAR - apart_QN, 0))
    apart_QN[:, other.day_N == 0] = np.nan
    apart_QN[one.day_N == 0] = np.nan
    return apart_QN


def _near(far_QN: DoubleArray, kilometres: float) -> DoubleArray:
    found: DoubleArray = np.exp(-0.5 * (far_QN / kilometres) ** 2)
    return found


def _soon(late_QN: DoubleArray, days: float) -> DoubleArray:
    """Compute the kernel of the time of the year; its mean over the year where a day is unknown."""
    mean = min(1.0, days * np.sqrt(2 * np.pi) / _YEAR)
    found: DoubleArray = np.nan_to_num(np.exp(-0.5 * (late_QN / days) ** 2), nan=mean)
    return found


@dataclass(frozen=True)
class LocationRule:
    """How the prior and a classifier are combined.

    Attributes:
        strength: the power of the ratio of the prior here to that overall; 0: it does not count.
        temperature: of the result.
        thresholds: from which score on an answer is given, by rank.
    """

    strength: float
    temperature: float = 1.0
    thresholds: Mapping[str, Threshold] = field(default_factory=dict)

    def logits(self, log_p_NC: FloatArray, ratio_NC: FloatArray) -> FloatArray:
        """Compute calibrated logits; of strength 0 and temperature 1 the log-probabilities themselves."""
        if not self.strength and self.temperature == 1:
            return log_p_NC
        found_NC = (log_p_NC + np.float32(self.strength) * ratio_NC) / np.float32(self.temperature)
        return found_NC.astype(np.float32, copy=False)


@dataclass(frozen=True)
class LocationMeasure:
    """What a prior is worth on photos that were not learned from; differences are with less without it.

    The strength and the temperature of each place were chosen on other places.
    """

    photos: int
    places: int
    error: float
    without: float
    paired: Difference
    log_loss: float
    log_loss_without: float
    paired_loss: Difference


def choose(
    log_p_NC: FloatArray,
    y_N: IntArray,
    ratio_NC: FloatArray,
    places: Sequence[str],
    levels: Sequence[Level],
    precision: float = 0.95,
    groups: Sequence[str | None] | None = None,
) -> LocationRule:
    """Choose the strength with the least cross-entropy; 0 where it is a tie at other places.

    Args:
        log_p_NC: calibrated log-probabilities of photos that were not learned from.
        y_N: their classes.
        ratio_NC: see `KernelPrior.log_ratios`, without the photo itself.
        places: of each photo.
        levels: the wider ranks, see `calibration.fit_thresholds`.
        precision: the share of given answers that is to be right.
        groups: of each photo, which the thresholds take as one; None: its place.
    """
    rule = _best(_fitted(log_p_NC, y_N, ratio_NC, places))
    if not rule.strength or measure(log_p_NC, y_N, ratio_NC, ratio_NC, places).paired_loss.interval[1] >= 0:
        return LocationRule(0.0)
    p_NC = np.exp(metrics.log_softmax32(rule.logits(log_p_NC, ratio_NC)))
    return replace(
        rule, thresholds=calibration.fit_thresholds(p_NC, y_N, levels, precision, groups or places)
    )


def measure(
    log_p_NC: FloatArray, y_N: IntArray, chosen_on_NC: FloatArray, ratio_NC: FloatArray, places: Sequence[str]
) -> LocationMeasure:
    """Measure photos with a prior, see `choose`.

    Args:
        log_p_NC, y_N, places: as for `choose`.
        chosen_on_NC: the ratios that strength and temperature are chosen by.
        ratio_NC: the ratios that are measured.
    """
    with_N, plain_N, wrong_N = _held_out(log_p_NC, y_N, chosen_on_NC, ratio_NC, places)
    before_N = log_p_NC.argmax(axis=1) != y_N
    return LocationMeasure(
        photos=len(y_N),
        places=len(set(places)),
        error=float(wrong_N.mean()),
        without=float(before_N.mean()),
        paired=Difference.of(wrong_N.astype(np.float64) - before_N, places),
        log_loss=float(with_N.mean()),
        log_loss_without=float(plain_N.mean()),
        paired_loss=Difference.of(with_N - plain_N, places, most=float(np.abs(with_N - plain_N).max())),
    )


def _held_out(
    log_p_NC: FloatArray, y_N: IntArray, chosen_on_NC: FloatArray, ratio_NC: FloatArray, places: Sequence[str]
) -> tuple[DoubleArray, DoubleArray, BoolArray]:
    """Compute the losses with and without a prior, and which answers are wrong with it.

    Strength and temperature of each half of the places are chosen on the other half.
    """
    with_N, plain_N, wrong_N = np.empty(len(y_N)), np.empty(len(y_N)), np.empty(len(y_N), np.bool_)
    half_N = halves(places, len(y_N))
    for here_N in (half_N, ~half_N):
        others = [place for place, here in zip(places, here_N, strict=True) if not here]
        rules = _fitted(log_p_NC[~here_N], y_N[~here_N], chosen_on_NC[~here_N], others)
        own_MC, ratio_MC, y_M = log_p_NC[here_N], ratio_NC[here_N], y_N[here_N]
        logits_MC = _best(rules).logits(own_MC, ratio_MC)
        with_N[here_N], wrong_N[here_N] = _loss(logits_MC, y_M), logits_MC.argmax(axis=1) != y_M
        # Without the prior the temperature is fitted anew as well: that is no merit of the prior.
        plain_N[here_N] = _loss(rules[0][1].logits(own_MC, ratio_MC), y_M)
    return with_N, plain_N, wrong_N


def _fitted(
    log_p_NC: FloatArray, y_N: IntArray, ratio_NC: FloatArray, places: Sequence[str]
) -> list[tuple[float, LocationRule]]:
    """Fit the temperature of each strength, 0 first, and return them with their cross-entropies."""
    found = []
    for strength in STRENGTHS:
        raw_NC = LocationRule(strength).logits(log_p_NC, ratio_NC)
        rule = LocationRule(strength, calibration.fit_temperature(raw_NC, y_N, places))
        found.append((float(_loss(rule.logits(log_p_NC, ratio_NC), y_N).sum()), rule))
    return found


def _best(rules: Sequence[tuple[float, LocationRule]]) -> LocationRule:
    return min(rules, key=lambda each: each[0])[1]


def _loss(logits_NC: FloatArray, y_N: IntArray) -> DoubleArray:
    found: DoubleArray = -metrics.log_softmax(logits_NC)[np.arange(len(y_N)), y_N]
    return found
