"""What was found: counts, activity, and detection histories with effort."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

from fieldmark.app import decisions
from fieldmark.app.activity import Activity, activity
from fieldmark.app.store import Photo, Project
from fieldmark.data.events import Shot, seconds_of
from fieldmark.data.taxonomy import NO_ANIMAL
from fieldmark.utils.errors import InputError
from fieldmark.utils.languages import say


@dataclass(frozen=True)
class Observation:
    """One photo or box with the name that counts: that of a person, else the classifier's where it is sure.

    Attributes:
        box: of a box: left, top, width and height as shares of the photo.
        by: `person` or `machine`; "" where there is no name.
        score: of the machine's name; None for a person's.
        event: the number of the event; photos of one event count as one visit.
    """

    file: str
    box: tuple[float, float, float, float] | None
    species: str
    by: str
    reviewer: str
    score: float | None
    place: str
    taken: str
    event: int | None
    latitude: float | None
    longitude: float | None


@dataclass(frozen=True)
class History:
    """A detection history: for each place and occasion 1, 0, or None where no camera stood there.

    Attributes:
        effort: for each place and occasion the number of days on which a camera stood there: those from its
            first to its last photo.
    """

    places: tuple[str, ...]
    occasions: tuple[str, ...]
    detected: tuple[tuple[int | None, ...], ...]
    effort: tuple[tuple[int, ...], ...]


def observations(project: Project, *, persons_only: bool = False) -> list[Observation]:
    """Return the new photos that could be used, with the names that count."""
    said = decisions.reviewed(project)
    found = []
    for photo, about in used_photos(project):
        person = photo.state in ("person", "unknown")
        species, by, score = (photo.label or "", "person", None) if person else ("", "", None)
        if not person and photo.sure and not persons_only:
            species, by, score = photo.name or "", "machine", photo.score
        reviewer = said.get(photo.id, ("", ""))[0] if person else ""
        place = (photo.place, photo.taken or "", photo.event)
        box = (photo.box.left, photo.box.top, photo.box.width, photo.box.height) if photo.box else None
        found.append(Observation(str(photo.path), box, species, by, reviewer, score, *place, *about))
    return found


def used_photos(project: Project) -> Iterator[tuple[Photo, tuple[float | None, float | None]]]:
    """Yield the new photos and boxes that could be used, each with its latitude and longitude."""
    rows = project.rows(
        "SELECT id, latitude, longitude FROM photos WHERE role = 'new' AND reason IS NULL ORDER BY path"
    )
    where = {number: (latitude, longitude) for number, latitude, longitude in rows}
    for photo in project.photos(list(where)):
        yield photo, where[photo.id]


def animals(found: list[Observation]) -> list[Observation]:
    """Return the observations with a name that is not that of an empty photo, a person or a vehicle."""
    return [each for each in found if each.species and each.species.lower() not in NO_ANIMAL]


def counts(found: list[Observation]) -> list[tuple[str, int, int, int]]:
    """Return for each species its photos, its events, and how many of the photos a person named."""
    photos = Counter(each.species for each in _photos(found) if each.species)
    events = Counter(
        species for species, _, _ in {(e.species, e.event, e.event is None and e.file) for e in found}
    )
    persons = Counter(each.species for each in _photos(found) if each.by == "person")
    return [(name, count, events[name], persons[name]) for name, count in photos.most_common()]


def _photos(found: list[Observation]) -> list[Observation]:
    """Return one observation of each species in a photo, that of a person first: boxes are not counted."""
    first: dict[tuple[str, str], Observation] = {}
    for each in sorted(found, key=lambda each: each.by != "person"):
        first.setdefault((each.file, each.species), each)
    return list(first.values())


def by_place(found: list[Observation]) -> dict[str, Counter[str]]:
    """Count the photos of each species at each place."""
    table: dict[str, Counter[str]] = {}
    for each in _photos(animals(found)):
        table.setdefault(each.place, Counter())[each.species] += 1
    return dict(sorted(table.items()))


def by_time(found: list[Observation], unit: str) -> dict[str, list[int]]:
    """Count the photos of each species by `hour` (24 numbers) or `month` (12) of the camera's clock."""
    table: dict[str, list[int]] = {}
    for each in _photos(animals(found)):
        if seconds_of(each.taken) is None:
            continue
        at = int(each.taken[11:13]) if unit == "hour" else int(each.taken[5:7]) - 1
        table.setdefault(each.species, [0] * (24 if unit == "hour" else 12))[at] += 1
    return table


def activity_of(found: list[Observation], species: str) -> Activity | None:
    """Return at which hours a species is seen; None where no photo of it has a time."""
    return activity([Shot(each.place, each.taken) for each in found if each.species == species])


def history(found: list[Observation], species: str, days: int = 7) -> History:
    """Return the detection history of a species over occasions of so many days, from the first photo on.

    Raises:
        InputError: no photo has a time.
    """
    timed = [(each, _day(each)) for each in found if seconds_of(each.taken) is not None]
    if not timed:
        raise InputError(
            say("No photo has a time: a detection history needs EXIF times, or a list with the column taken.")
        )
    first, last = min(day for _, day in timed), max(day for _, day in timed)
    number = (last - first).days // days + 1
    spans: dict[str, tuple[date, date]] = {}
    seen: set[tuple[str, int]] = set()
    for each, day in timed:
        low, high = spans.get(each.place, (day, day))
        spans[each.place] = (min(low, day), max(high, day))
        if each.species == species:
            seen.add((each.place, (day - first).days // days))
    places = sorted(spans)
    effort, detected = [], []
    for place in places:
        begin, end = ((day - first).days for day in spans[place])
        there = [max(0, min(end, (at + 1) * days - 1) - max(begin, at * days) + 1) for at in range(number)]
        effort.append(tuple(there))
        detected.append(tuple(int((place, at) in seen) if there[at] else None for at in range(number)))
    names = tuple(date.fromordinal(first.toordinal() + at * days).isoformat() for at in range(number))
    return History(tuple(places), names, tuple(detected), tuple(effort))


def _day(each: Observation) -> date:
    return date.fromisoformat(each.taken[:10].replace(":", "-"))
