"""What was found: counts, activity, detection histories with effort, and files in the usual formats."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields
from datetime import date
from pathlib import Path
from typing import Any, cast

from fieldmark import __version__
from fieldmark.app import decisions
from fieldmark.app.learning import classifier_of
from fieldmark.app.store import Photo, Project, now
from fieldmark.data.events import seconds_of
from fieldmark.data.taxonomy import NO_ANIMAL, RANKS, Taxon, Taxonomy
from fieldmark.inference.formats import WRITERS, FormatOptions
from fieldmark.inference.formats.base import csv_line
from fieldmark.inference.record import Record
from fieldmark.utils import io
from fieldmark.utils.errors import InputError

logger = logging.getLogger(__name__)

FORMATS = {
    "csv": ("results.csv", "CSV table, one row a photo"),
    "xlsx": ("results.xlsx", "Excel: photos, species, detection history, effort"),
    "camtrap-dp": ("observations.camtrap.csv", "Camtrap DP observations"),
    "megadetector": ("results.megadetector.json", "MegaDetector JSON, for Timelapse"),
    "darwin-core": ("results.dwc.csv", "Darwin Core occurrences, for GBIF"),
}
"""The files that can be made: name and description of each."""


@dataclass(frozen=True)
class Observation:
    """One photo with the name that counts: that of a person, else the classifier's where it is sure.

    Attributes:
        by: `person` or `machine`; "" where there is no name.
        score: of the machine's name; None for a person's.
        event: the number of the event; photos of one event count as one visit.
    """

    file: str
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
    for photo, about in _photos(project):
        person = photo.state in ("person", "unknown")
        species, by, score = (photo.label or "", "person", None) if person else ("", "", None)
        if not person and photo.sure and not persons_only:
            species, by, score = photo.name or "", "machine", photo.score
        reviewer = said.get(photo.id, ("", ""))[0] if person else ""
        place = (photo.place, photo.taken or "", photo.event)
        found.append(Observation(str(photo.path), species, by, reviewer, score, *place, *about))
    return found


def _photos(project: Project) -> Iterator[tuple[Photo, tuple[float | None, float | None]]]:
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
    photos = Counter(each.species for each in found if each.species)
    events = Counter(
        species for species, _, _ in {(e.species, e.event, e.event is None and e.file) for e in found}
    )
    persons = Counter(each.species for each in found if each.by == "person")
    return [(name, count, events[name], persons[name]) for name, count in photos.most_common()]


def by_place(found: list[Observation]) -> dict[str, Counter[str]]:
    """Count the photos of each species at each place."""
    table: dict[str, Counter[str]] = {}
    for each in animals(found):
        table.setdefault(each.place, Counter())[each.species] += 1
    return dict(sorted(table.items()))


def by_time(found: list[Observation], unit: str) -> dict[str, list[int]]:
    """Count the photos of each species by `hour` (24 numbers) or `month` (12) of the camera's clock."""
    table: dict[str, list[int]] = {}
    for each in animals(found):
        if seconds_of(each.taken) is None:
            continue
        at = int(each.taken[11:13]) if unit == "hour" else int(each.taken[5:7]) - 1
        table.setdefault(each.species, [0] * (24 if unit == "hour" else 12))[at] += 1
    return table


def history(found: list[Observation], species: str, days: int = 7) -> History:
    """Return the detection history of a species over occasions of so many days, from the first photo on.

    Raises:
        InputError: no photo has a time.
    """
    timed = [(each, _day(each)) for each in found if seconds_of(each.taken) is not None]
    if not timed:
        raise InputError(
            "No photo has a time: a detection history needs EXIF times, or a list with the column taken."
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


def export(project: Project, form: str, path: Path, *, species: str = "", days: int = 7) -> None:
    """Write the results in one of `FORMATS`; the file is whole or not written.

    Raises:
        InputError: there is no such format, or no photo has a name.
    """
    if form not in FORMATS:
        raise InputError(f"There is no format {form!r}: choose one of {', '.join(FORMATS)}.")
    found = observations(project)
    if not any(each.by for each in found):
        raise InputError("No photo has a name yet: name or review photos first.")
    if form == "csv":
        lines = [csv_line([each.name for each in fields(Observation)])]
        lines += [csv_line(["" if value is None else value for value in astuple(each)]) for each in found]
        io.write_text(path, "\r\n".join(lines) + "\r\n")
    elif form == "xlsx":
        _workbook(found, path, species, days)
    else:
        taxonomy, records = _records(project, form)
        by, when = f"fieldmark {__version__} {project.setting('classifier')}".strip(), now()
        WRITERS[form].write(path, records, FormatOptions(taxonomy, by=by, when=when))


def _records(project: Project, form: str) -> tuple[Taxonomy, list[Record]]:
    """Return the classifier's records, and one of each person's label: in its place, or as a row apart."""
    taxa = _taxa(project)
    said, records = decisions.reviewed(project), []
    for photo, (latitude, longitude) in _photos(project):
        about: dict[str, Any] = {"file_name": str(photo.path), "taken": photo.taken, "location": photo.place}
        about |= {"latitude": latitude, "longitude": longitude}
        about = {name: value for name, value in about.items() if value is not None}
        named = photo.state == "person" and photo.label is not None
        for label in photo.record.get("labels", ()):  # an older classifier may have known other species
            taxa.setdefault(label["name"], Taxon(label["taxon_id"], label["name"], label["common_name"]))
        if photo.record and not (named and form == "megadetector"):
            records.append(cast(Record, photo.record | about))
        if named:
            taxon = taxa.setdefault(photo.label or "", Taxon(photo.label or "", photo.label or ""))
            reviewer, when = said.get(photo.id, ("", ""))
            records.append(cast(Record, about | _person(taxon, reviewer, when)))
    return Taxonomy(taxa.values()), records


def _taxa(project: Project) -> dict[str, Taxon]:
    """Return the taxa by their names: of the classifier's labels, with what tables said of the others."""
    found: dict[str, Taxon] = {}
    for name, facts in project.facts().items():
        ranks = {rank: facts[rank] for rank in RANKS if rank in facts}
        found[name] = Taxon(name, name, facts.get("common_name", ""), facts.get("supercategory", ""), ranks)
    if classifier := classifier_of(project):
        known = Taxonomy.from_json(io.read_json(classifier / "classifier.json")["taxonomy"])
        found |= {taxon.name: taxon for taxon in known}
    return found


def _person(taxon: Taxon, reviewer: str, when: str) -> dict[str, Any]:
    about = {"taxon_id": taxon.id, "name": taxon.name, "common_name": taxon.common_name, "rank": taxon.rank}
    return {
        **{"source": "species", "rank": taxon.rank, "name": taxon.name, "score": 1.0, "sure": True},
        **{"unknown": False, "reason": "", "among": 1, "ranks": dict(taxon.lineage), "wider": []},
        **{"labels": [about | {"score": 1.0}], "reviewer": reviewer or "reviewer", "reviewed": when},
    }


def _workbook(found: list[Observation], path: Path, species: str, days: int) -> None:
    """Write an Excel file: one sheet for each table."""
    import xlsxwriter

    sheets: dict[str, list[tuple[Any, ...]]] = {
        "photos": [tuple(each.name for each in fields(Observation)), *(astuple(each) for each in found)],
        "species": [("species", "photos", "events", "named by a person"), *counts(found)],
    }
    try:
        name = species or next((row[0] for row in counts(animals(found))), "")
        table = history(found, name, days)
        head = ("place", *table.occasions)
        rows = zip(table.places, table.detected, table.effort, strict=True)
        sheets["detection history"] = [(f"{name}, occasions of {days} days",), head]
        sheets["effort (days)"] = [head]
        for place, detected, effort in rows:
            sheets["detection history"].append(
                (place, *("NA" if each is None else each for each in detected))
            )
            sheets["effort (days)"].append((place, *effort))
    except InputError as error:
        logger.info(str(error))
    with io.replacing(path) as temporary:
        # Names of files and species are of unknown origin: no cell becomes a formula or a link.
        options = {"strings_to_formulas": False, "strings_to_urls": False, "strings_to_numbers": False}
        with xlsxwriter.Workbook(str(temporary), options) as book:
            bold = book.add_format({"bold": True})
            for title, rows_ in sheets.items():
                sheet = book.add_worksheet(title)
                sheet.freeze_panes(1, 1)
                for number, row in enumerate(rows_):
                    sheet.write_row(number, 0, row, bold if number == 0 else None)
                sheet.autofit()
