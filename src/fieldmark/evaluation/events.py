"""One answer for several photos of an event: ways to combine them, and the choice among these.

The photos of a visit are alike, so that a product of their probabilities is far too sure. Each way has a
temperature, fitted on events that were not learned from; the way with the least cross-entropy on those is
taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import numpy as np

from fieldmark.data.taxonomy import Level
from fieldmark.evaluation import calibration, intervals, metrics
from fieldmark.evaluation.calibration import Threshold
from fieldmark.evaluation.comparison import Difference
from fieldmark.evaluation.intervals import Interval
from fieldmark.utils.typing import BoolArray, DoubleArray, FloatArray, IntArray

Way = Literal["mean", "product", "maximum", "confidence"]
FEWEST = 20
"""Events with several photos, from which a way can be chosen."""


def combined(log_p_NC: FloatArray, event_N: IntArray, way: Way) -> DoubleArray:
    """Combine the log-probabilities of the photos of each event, normalised, shape (E, C).

    Args:
        log_p_NC: of photos or boxes.
        event_N: the event of each, numbers 0 .. E-1 that all occur.
        way: `mean` of the probabilities; their `product`; the `maximum` of each class; or a mean in which
            each counts by its `confidence`, the square of its highest probability.
    """
    order = np.argsort(event_N, kind="stable")
    starts = np.flatnonzero(np.diff(event_N[order], prepend=-1))
    rows_NC = log_p_NC[order].astype(np.float64)
    if way == "product":
        found = np.add.reduceat(rows_NC, starts)
    elif way == "maximum":
        found = np.maximum.reduceat(rows_NC, starts)
    else:
        p_NC = np.exp(rows_NC)
        weight_N = np.ones(len(p_NC)) if way == "mean" else p_NC.max(axis=1) ** 2
        sums = np.add.reduceat(p_NC * weight_N[:, None], starts)
        found = np.log(np.maximum(sums, 1e-300))
    return metrics.log_softmax(found)


@dataclass(frozen=True)
class EventRule:
    """How the photos of an event are combined to one answer.

    Attributes:
        way: see `combined`.
        temperature: of the result.
        thresholds: from which score on an answer is given, by rank; empty: as for a photo.
    """

    way: Way = "mean"
    temperature: float = 1.0
    thresholds: Mapping[str, Threshold] = field(default_factory=dict)

    def probabilities(self, log_p_NC: FloatArray, event_N: IntArray) -> FloatArray:
        """Compute the calibrated probabilities of events, shape (E, C); see `combined`."""
        log_p_EC = combined(log_p_NC, event_N, self.way) / self.temperature
        return np.exp(metrics.log_softmax(log_p_EC)).astype(np.float32)


@dataclass(frozen=True)
class EventMeasure:
    """What combining the photos of events is worth, on events that were not learned from.

    Attributes:
        rule: the way that was taken.
        losses: the cross-entropy of each way, in nats an event.
        events: how many.
        several: how many of them have several photos.
        error: the share of events whose first label is wrong, with the way and temperature of other events.
        interval: its 95 % CI.
        photo_error: the share of photos, each event counting the same.
        paired: the error of events less that of their photos.
    """

    rule: EventRule
    losses: Mapping[str, float]
    events: int
    several: int
    error: float
    interval: Interval | None
    photo_error: float
    paired: Difference


def choose(
    log_p_NC: FloatArray,
    y_N: IntArray,
    event_N: IntArray,
    levels: Sequence[Level],
    precision: float = 0.95,
    places: Sequence[str | None] | None = None,
) -> EventMeasure | None:
    """Choose how photos of events are combined, on photos that were not learned from.

    Args:
        log_p_NC: calibrated log-probabilities of photos or boxes.
        y_N: their classes; those of none of the classes (-1) are left out.
        event_N: the event of each; events with several labels are left out.
        levels: the wider ranks, see `calibration.fit_thresholds`.
        precision: the share of given answers that is to be right.
        places: the place of each row: events of one place are not independent; None: they are.

    Returns:
        None where fewer than 20 events have several photos.
    """
    rows = np.flatnonzero(_is_plain(y_N, event_N))
    log_p_NC, y_N = log_p_NC[rows], y_N[rows]
    _, first_E, event_N, size_E = np.unique(
        event_N[rows], return_index=True, return_inverse=True, return_counts=True
    )
    if int((size_E > 1).sum()) < FEWEST:
        return None
    y_E = y_N[first_E]
    place_E = None if places is None else [places[rows[first]] for first in first_E]
    half_E = halves(place_E, len(y_E))
    wrong_E = np.zeros(len(y_E), np.bool_)
    for here_E in (half_E, ~half_E):
        own = _rule(log_p_NC, y_E, event_N, ~here_E, place_E)[0]
        wrong_E[here_E] = own.probabilities(log_p_NC, event_N)[here_E].argmax(axis=1) != y_E[here_E]
    rule, losses = _rule(log_p_NC, y_E, event_N, np.ones(len(y_E), np.bool_), place_E)
    p_EC = rule.probabilities(log_p_NC, event_N)
    thresholds = calibration.fit_thresholds(p_EC, y_E, levels, precision, place_E)
    photo_E = np.bincount(event_N, log_p_NC.argmax(axis=1) != y_N) / size_E
    return EventMeasure(
        rule=replace(rule, thresholds=thresholds),
        losses=losses,
        events=len(y_E),
        several=int((size_E > 1).sum()),
        error=float(wrong_E.mean()),
        interval=intervals.error_interval(wrong_E, place_E),
        photo_error=float(photo_E.mean()),
        paired=Difference.of(wrong_E - photo_E, place_E),
    )


def halves(places: Sequence[str | None] | None, events: int) -> BoolArray:
    """Divide events in two, where possible so that no place is in both."""
    names = sorted({each or "" for each in places or ()})
    if len(names) < 2:
        first_E: BoolArray = np.arange(events) % 2 == 0
        return first_E
    number = {name: at for at, name in enumerate(names)}
    return np.fromiter((number[each or ""] % 2 == 0 for each in places or ()), np.bool_)


def _rule(
    log_p_NC: FloatArray,
    y_E: IntArray,
    event_N: IntArray,
    used_E: BoolArray,
    places: Sequence[str | None] | None,
) -> tuple[EventRule, dict[str, float]]:
    """Choose the way with the least cross-entropy on some events; return the losses of all ways too."""
    groups = None if places is None else [each for each, used in zip(places, used_E, strict=True) if used]
    found: dict[str, tuple[EventRule, float]] = {}
    for way in get_args(Way):
        raw_EC = combined(log_p_NC, event_N, way)[used_E].astype(np.float32)
        heat = calibration.fit_temperature(raw_EC, y_E[used_E], groups)
        loss = metrics.negative_log_likelihood(raw_EC / np.float32(heat), y_E[used_E])
        found[way] = EventRule(way, heat), float(loss)
    rule = min(found.values(), key=lambda each: each[1])[0]
    return rule, {way: loss for way, (_, loss) in found.items()}


def _is_plain(y_N: IntArray, event_N: IntArray) -> BoolArray:
    """Return which photos are of events with one label, and that one of the classes."""
    events = int(event_N.max(initial=-1)) + 1
    lowest_E, highest_E = np.full(events, np.iinfo(np.int64).max), np.full(events, -1)
    np.minimum.at(lowest_E, event_N, y_N)
    np.maximum.at(highest_E, event_N, y_N)
    plain_E = (lowest_E == highest_E) & (lowest_E >= 0)
    plain_N: BoolArray = plain_E[event_N]
    return plain_N
