"""Plan what the cameras of drawn stations see: where they stand, and what passes them, and when.

Each species lives in one or two of three regions, and has a season and hours of the day. At each station a
few species are much more frequent than the others, so that a background tells which animal to expect there,
and misleads at a new station.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from fieldmark.utils import random
from fieldmark.utils.typing import DoubleArray

REGIONS = ((47.4, 8.3), (52.6, 13.9), (43.9, 4.6))  # latitude and longitude of their centres, in degrees
REACH = 0.4  # degrees from a region's centre to its farthest stations
EMPTY, HUMAN, VEHICLE, FIRST_SPECIES = range(4)  # categories; a species has FIRST_SPECIES + its number
_CHANCES = {EMPTY: 0.2, HUMAN: 0.04, VEHICLE: 0.02}  # of a visit; all others are by animals
_START, _DAYS = datetime(2023, 3, 1), 240


@dataclass(frozen=True)
class Station:
    """One camera, which stays in its place."""

    name: str
    region: int
    latitude: float  # in degrees
    longitude: float
    start: datetime  # of its deployment
    days: int
    slow: timedelta = timedelta()  # by how much its clock is behind


@dataclass(frozen=True)
class Habits:
    """Where and when a species is seen, and how often."""

    regions: frozenset[int]
    season: int  # its middle, in days from the first of March
    hour: float  # the middle of its active time
    frequency: float


@dataclass(frozen=True)
class Passer:
    """An animal, person or vehicle that passes; positions and sizes are shares of the photo's sides."""

    category: int
    individual: str
    size: float  # its longer side, as a share of the photo's width
    start: tuple[float, float]  # its middle in the first frame
    speed: tuple[float, float]  # a second


@dataclass(frozen=True)
class Visit:
    """One burst of photos of a station."""

    station: Station
    id: str
    taken: datetime
    seconds: tuple[int, ...]  # from the first frame to each
    passers: tuple[Passer, ...]  # from the farthest to the nearest; none where wind triggered the camera

    @property
    def night(self) -> bool:
        """Return whether the photos are taken with infrared light."""
        return not 6 <= self.taken.hour < 20


def stations(count: int, seed: int, *, wrong_clock: bool = False) -> list[Station]:
    """Place the stations, in turn in each region; a wrong clock, of the last, starts in the year 2000."""
    made = []
    for number in range(count):
        rng = random.generator(seed, "station", number)
        centre = REGIONS[number % len(REGIONS)]
        latitude, longitude = (round(c + float(rng.uniform(-REACH, REACH)), 5) for c in centre)
        start = _START + timedelta(days=int(rng.integers(30)), hours=9)
        wrong = wrong_clock and number == count - 1
        slow = start - datetime(2000, 1, 1) if wrong else timedelta()
        name = f"S{number + 1:02}"
        made.append(Station(name, number % len(REGIONS), latitude, longitude, start, _DAYS, slow))
    return made


def habits(species: int, seed: int) -> list[Habits]:
    """Return the habits of each species; of two that look alike, the regions differ."""
    rarity = random.order([str(number) for number in range(species)], "station rarity", seed)
    made = []
    for number in range(species):
        rng = random.generator(seed, "habits", number)
        home = number % len(REGIONS)
        second = {(home + 1) % len(REGIONS)} if number % 2 else set()
        hour = rng.normal(*((23, 2) if number % 5 in (0, 3) else (13, 2.5))) % 24
        share = int(rarity[number]) / max(1, species - 1)
        season = int(rng.integers(20, _DAYS))
        made.append(Habits(frozenset({home} | second), season, float(hour), float(0.04**share)))
    return made


def plan(places: list[Station], visits: int, species: int, seed: int) -> list[Visit]:
    """Plan so many visits of each station, in the order of their times: a pure function of its arguments."""
    known = habits(species, seed)
    made = []
    for place in places:
        rng = random.generator(seed, "local", place.name)
        frequency_K = np.array([each.frequency * (place.region in each.regions) for each in known])
        frequency_K = frequency_K * np.exp(rng.normal(0, 1, species))
        drawn = [_visit(place, number, known, frequency_K, seed) for number in range(visits)]
        made += sorted(drawn, key=lambda visit: (visit.taken, visit.id))
    return made


def _visit(place: Station, number: int, known: list[Habits], frequency_K: DoubleArray, seed: int) -> Visit:
    name = f"{place.name}-{number:04}"
    rng = random.generator(seed, "visit", name)
    category = int(rng.choice([*_CHANCES, -1], p=[*_CHANCES.values(), 1 - sum(_CHANCES.values())]))
    hours = (0, 24) if category == EMPTY else (7, 20)  # people and vehicles: by day
    when = _at(place, int(rng.integers(1, place.days)), rng.uniform(*hours))
    seen = [] if category == EMPTY else [category]
    if category < 0:
        chance_K = frequency_K / frequency_K.sum()
        first, other = (int(each) for each in rng.choice(len(known), 2, p=chance_K))
        second = [] if rng.random() > 0.15 else [other if rng.random() < 0.2 else first]
        seen = [FIRST_SPECIES + each for each in (first, *second)]
        when = _active(place, known[first], rng)
    passers = [_passer(each, f"{name}/{index}", rng) for index, each in enumerate(seen)]
    frames = int(rng.integers(3, 6))
    seconds = np.append(0, np.cumsum(rng.integers(1, 4, frames - 1)))
    passers.sort(key=lambda passer: passer.size)
    return Visit(place, name, when, tuple(int(second) for second in seconds), tuple(passers))


def _at(place: Station, day: int, hour: float) -> datetime:
    midnight = place.start.replace(hour=0) + timedelta(days=day)
    return midnight + timedelta(seconds=int(hour % 24 * 3600))


def _active(place: Station, species: Habits, rng: np.random.Generator) -> datetime:
    """Draw a time in the season and the active hours of a species, while the camera is there."""
    days = np.arange(1, place.days)
    first = (place.start - _START).days
    weight = np.exp(-0.5 * ((days + first - species.season) / 35) ** 2) + 1e-9
    day = int(rng.choice(days, p=weight / weight.sum()))
    return _at(place, day, rng.normal(species.hour, 1.8))


def _passer(category: int, individual: str, rng: np.random.Generator) -> Passer:
    """Let something pass: animals anywhere, most of them small; some leave the photo or cross its edge."""
    size, y = 0.08 + 0.27 * rng.beta(1.1, 3.6), rng.uniform(0.35, 0.9)
    if category in (HUMAN, VEHICLE):
        size, y = rng.uniform(0.28, 0.5), rng.uniform(0.55, 0.7)
    edge = rng.random() < 0.3
    x = (-0.1 if edge else 0.6 * rng.random()) + rng.normal(0, 0.04)
    speed = rng.gamma(1.5, 0.04)
    if rng.random() < 0.5:  # from the right
        x, speed = 1 - x, -speed
    return Passer(
        category, individual, float(size), (float(x), float(y)), (speed, float(rng.normal(0, 0.02)))
    )
