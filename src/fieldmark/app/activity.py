"""Activity: at which hours of the day a species is seen, with intervals.

What is counted are visits: photos of the species at one place are one visit until half an hour has passed
without one, as is usual (O'Brien, Kinnaird and Wibisono, "Crouching tigers, hidden prey", 2003), so that an
animal that stays counts once. The interval of an hour's share is the exact binomial one. A bootstrap of a
kernel density (Ridout and Linkie, 2009) was tried in its place: its 95 % intervals held the true density of
drawn data at 39 to 93 % of the hours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from fieldmark.data.events import Shot, moment_of, number_events
from fieldmark.evaluation.intervals import Interval, binomial_interval

GAP = 30 * 60.0
"""Seconds without a photo of the species at a place after which the next one is of another visit."""


@dataclass(frozen=True)
class Activity:
    """The visits of a species over the day.

    Attributes:
        visits: how many begin in each hour of the camera's clock; 24 numbers.
        intervals: of the share of all visits, the 95 % interval of each hour; 24 pairs.
    """

    visits: tuple[int, ...]
    intervals: tuple[Interval, ...]

    @property
    def shares(self) -> list[float]:
        """Return the share of the visits that begin in each hour."""
        return [each / sum(self.visits) for each in self.visits]


def activity(shots: Sequence[Shot]) -> Activity | None:
    """Count the visits of one species by the hour; None where no photo has a time."""
    timed = [(moment, each) for each in shots if (moment := moment_of(each.taken or ""))]
    if not timed:
        return None
    numbers = number_events([Shot(each.place, each.taken) for _, each in timed], GAP)
    first: dict[int, datetime] = {}
    for number, (moment, _) in zip(numbers, timed, strict=True):
        first[number] = min(first.get(number, moment), moment)
    hours = [each.hour for each in first.values()]
    visits = tuple(hours.count(hour) for hour in range(24))
    return Activity(visits, tuple(binomial_interval(each, len(hours)) for each in visits))
