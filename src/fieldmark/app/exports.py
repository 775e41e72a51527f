"""Results as files in the usual formats: tables, Excel, Camtrap DP, MegaDetector's JSON, Darwin Core."""

from __future__ import annotations

import logging
import tempfile
import zipfile
from pathlib import Path
from typing import Any, cast

from fieldmark import __version__
from fieldmark.app import decisions, results
from fieldmark.app.learning import classifier_of
from fieldmark.app.results import Observation
from fieldmark.app.store import Photo, Project, now
from fieldmark.data.taxonomy import RANKS, Taxon, Taxonomy
from fieldmark.inference.formats import WRITERS, FormatOptions, sheets
from fieldmark.inference.formats.tidy import clock_time
from fieldmark.inference.record import Record
from fieldmark.utils import io
from fieldmark.utils.errors import InputError
from fieldmark.utils.languages import say, to_say

logger = logging.getLogger(__name__)

FORMATS = {
    "csv": ("results.csv", to_say("CSV table, one row a photo or box")),
    "xlsx": ("results.xlsx", to_say("Excel: photos, species, detection history, effort")),
    "camtrap-dp-package": ("camtrap-dp.zip", to_say("Camtrap DP: the whole package, zipped")),
    "camtrap-dp": ("observations.camtrap.csv", to_say("Camtrap DP: observations only")),
    "megadetector": ("results.megadetector.json", to_say("MegaDetector JSON, for Timelapse")),
    "darwin-core": ("results.dwc.csv", to_say("Darwin Core occurrences, for GBIF")),
}
"""The files that can be made: name and description of each."""

_COLUMNS = (
    *("file", "species", "by", "reviewer", "score"),
    *("date", "place", "event", "latitude", "longitude"),
    *("box_left", "box_top", "box_width", "box_height"),
)


def export(project: Project, form: str, path: Path, *, species: str = "", days: int = 7) -> None:
    """Write the results in one of `FORMATS`; the file is whole or not written.

    Raises:
        InputError: there is no such format, or no photo has a name.
    """
    if form not in FORMATS:
        raise InputError(f"There is no format {form!r}: choose one of {', '.join(FORMATS)}.")
    found = results.observations(project)
    if not any(each.by for each in found):
        raise InputError(say("No photo has a name yet: name or review photos first."))
    if form == "csv":
        sheets.write_csv(path, _COLUMNS, map(_row, found))
    elif form == "xlsx":
        _workbook(found, path, species, days)
    else:
        taxonomy, records = _records(project, form)
        by, when = f"fieldmark {__version__} {project.setting('classifier')}".strip(), now()
        options = FormatOptions(taxonomy, by=by, when=when)
        if form == "camtrap-dp-package":
            _package(path, project.folder.name, records, options)
        else:
            WRITERS[form].write(path, records, options)


def _row(each: Observation) -> tuple[Any, ...]:
    """Return the row of a photo or a box, by `_COLUMNS`."""
    event = None if each.event is None else each.event + 1
    return (
        *(each.file, each.species or None, each.by or None, each.reviewer or None),
        None if each.score is None else round(each.score, 4),
        *(clock_time(each.taken), each.place or None, event, each.latitude, each.longitude),
        *(each.box or (None, None, None, None)),
    )


def _package(path: Path, title: str, records: list[Record], options: FormatOptions) -> None:
    """Write a Camtrap DP package as a zip file; it is called after the project."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / title
        folder.mkdir()
        WRITERS["camtrap-dp-package"].write(folder / "datapackage.json", records, options)
        with io.replacing(path) as zipped, zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
            for each in sorted(folder.iterdir()):
                archive.write(each, each.name)


def _workbook(found: list[Observation], path: Path, species: str, days: int) -> None:
    """Write an Excel file: one sheet for each table."""
    counts = results.counts(found)
    with sheets.workbook(path) as book:
        sheets.add_sheet(book, "photos", _COLUMNS, map(_row, found))
        sheets.add_sheet(book, "species", ("species", "photos", "events", "named by a person"), counts)
        name = species or next((row[0] for row in results.counts(results.animals(found))), "")
        try:
            table = results.history(found, name, days)
        except InputError as error:
            logger.info(str(error))
            return
        rows = zip(table.places, table.detected, strict=True)
        head = f"place (history of {name}, occasions of {days} days)"
        seen = ((place, *("NA" if each is None else each for each in row)) for place, row in rows)
        sheets.add_sheet(book, "detection history", (head, *table.occasions), seen)
        effort = ((place, *row) for place, row in zip(table.places, table.effort, strict=True))
        sheets.add_sheet(book, "effort (days)", ("place", *table.occasions), effort)


def _records(project: Project, form: str) -> tuple[Taxonomy, list[Record]]:
    """Return the classifier's records, and one of each person's label: in its place, or as a row apart."""
    taxa = _taxa(project)
    said, records = decisions.reviewed(project), []
    for photo, (latitude, longitude) in results.used_photos(project):
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
            records.append(cast(Record, about | _boxes(photo) | _person(taxon, reviewer, when)))
    return Taxonomy(taxa.values()), records


def _boxes(photo: Photo) -> dict[str, Any]:
    """Return the boxes of a photo that a person named: its own one, and the others.

    The box of a person or a vehicle is its own only if that is the name.
    """
    own, others = photo.record.get("detection"), photo.record.get("others", [])
    if own and "kind" in photo.record and photo.label != photo.name:
        own, others = None, [own, *others]
    return ({"detection": own} if own else {}) | ({"others": others} if others else {})


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
