"""The answers of a classifier: what is kept of each photo, or of each box of one.

A box is a row of its own in `photos`, with the path `PHOTO#box=LEFT,TOP,WIDTH,HEIGHT` and the number of its
photo in `whole`: it is reviewed and learned from like a photo. The photo that it is cut out of is set aside,
so that nothing is there twice; so are boxes that a later naming no longer has, unless a person decided on
them.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from typing import Any

from fieldmark.app.store import EMPTY, Project, Role, State
from fieldmark.data.storage.places import BOX_MARK
from fieldmark.inference.record import Record, key_of
from fieldmark.utils.printable import printable

_DECIDED = ("person", "unknown")
_Boxes = dict[str, tuple[int, State]]
"""The boxes of a photo: the number and the state of each, by the end of its path."""


def keep(
    project: Project, records: Iterable[Record], classifier: str, looks: Mapping[str, int] | None = None
) -> int:
    """Keep the answers of a classifier, by the names of the photos; return how many.

    Args:
        project: knows the photos.
        records: of photos and boxes; those of unknown photos are passed over.
        classifier: its name.
        looks: of some photos and boxes, by `key`, see `fieldmark.app.likeness`.
    """
    of_photo, boxes = _by_photo(project, records), _boxes(project)
    kept: dict[int, Record] = {}
    roles: list[tuple[Role, int]] = []
    with project.changing() as db:
        for (whole, state), found in of_photo.items():
            answers = [each for each in found if "rejected" not in each]
            if not answers:
                db.execute("UPDATE photos SET reason = ? WHERE id = ?", (found[0]["rejected"], whole))
                continue
            if state in _DECIDED and any(map(is_box, answers)):
                continue  # a person has named it as a whole
            own = boxes.setdefault(whole, {})
            rows = {_row(db, whole, own, each): each for each in answers}
            if own:  # those rows stand that were named now, and boxes that a person decided on
                roles.append(("new" if whole in rows else "aside", whole))
                stand = ((row in rows or state != "none", row) for row, state in own.values())
                roles += [("new" if stands else "aside", row) for stands, row in stand]
            kept |= rows
        _write(db, kept, classifier, looks or {})
        db.executemany("UPDATE photos SET role = ? WHERE id = ?", roles)
    project.find_events()
    return len(kept)


def _by_photo(project: Project, records: Iterable[Record]) -> dict[tuple[int, State], list[Record]]:
    """Return the records of each photo that is known, by its number and its state."""
    known = {
        printable(path): (number, state)
        for number, path, state in project.rows(
            "SELECT id, path, state FROM photos WHERE whole IS NULL AND role IN ('new', 'aside')"
        )
    }
    found: dict[tuple[int, State], list[Record]] = {}
    for each in records:
        if each["file_name"] in known:
            found.setdefault(known[each["file_name"]], []).append(each)
    return found


def _boxes(project: Project) -> dict[int, _Boxes]:
    """Return the boxes that photos have."""
    found: dict[int, _Boxes] = {}
    rows = project.rows("SELECT whole, path, id, state FROM photos WHERE whole IS NOT NULL")
    for whole, path, row, state in rows:
        found.setdefault(whole, {})[path[path.rindex(BOX_MARK) :]] = (row, state)
    return found


def is_box(record: Record) -> bool:
    """Return whether a record is of a box, and not of a whole photo.

    The box of a person or a vehicle says what the whole photo shows.
    """
    return "detection" in record and "kind" not in record


def key(record: Record) -> str:
    """Return the name of a photo or a box: the text of its place, with the photo's printable name."""
    return key_of(record) if is_box(record) else record["file_name"]


def _row(db: sqlite3.Connection, whole: int, own: _Boxes, record: Record) -> int:
    """Return the number of the row that a record is of; a new box is made and added to those of its photo."""
    if not is_box(record):
        return whole
    end = key(record).removeprefix(record["file_name"])
    if end not in own:
        about = "place, deployment, location, taken, sequence, latitude, longitude"
        made = db.execute(
            f"INSERT INTO photos (source, role, path, whole, state, {about}) "
            f"SELECT source, 'new', path || ?, id, 'none', {about} FROM photos WHERE id = ?",
            (end, whole),
        )
        assert made.lastrowid is not None
        own[end] = (made.lastrowid, "none")
    return own[end][0]


def _write(
    db: sqlite3.Connection, kept: Mapping[int, Record], classifier: str, looks: Mapping[str, int]
) -> None:
    """Write the answers of rows, and what the photos told of their times and places."""
    db.executemany(
        "INSERT OR REPLACE INTO answers "
        "(photo, name, answer, score, margin, sure, kind, record, classifier, look) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        ((row, *_values(each), classifier, looks.get(key(each))) for row, each in kept.items()),
    )
    db.executemany(
        "UPDATE photos SET reason = NULL, taken = coalesce(taken, ?), latitude = coalesce(latitude, ?), "
        "longitude = coalesce(longitude, ?) WHERE id = ?",
        ((*map(each.get, ("taken", "latitude", "longitude")), row) for row, each in kept.items()),
    )


def _values(record: Record) -> tuple[Any, ...]:
    """Return what is kept of an answer: name, answer, score, margin, sure, kind, record."""
    text = json.dumps(record, ensure_ascii=False)
    if kind := record.get("kind"):
        name, sure = EMPTY if kind == "blank" else kind, _sureness(record)
        return name, name, sure, sure, True, kind, text
    labels = record["labels"]
    scores = [label["score"] for label in labels] + [0.0, 0.0]
    first = labels[0]["name"] if labels else None
    return first, record["name"], scores[0], scores[0] - scores[1], record["sure"], None, text


def _sureness(record: Record) -> float:
    """Return the detector's confidence of a person or vehicle; of a blank photo, what its boxes lack of 1."""
    if (found := record.get("detection")) is not None:
        return found["confidence"]
    return 1 - max((each["confidence"] for each in record.get("others", ())), default=0.0)
