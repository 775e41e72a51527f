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

from fieldmark.app.store import EMPTY, Project
from fieldmark.inference.record import Record, key_of
from fieldmark.utils.printable import printable

_DECIDED = ("person", "unknown")


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
    known = {
        printable(path): (number, state)
        for number, path, state in project.rows(
            "SELECT id, path, state FROM photos WHERE whole IS NULL AND role IN ('new', 'aside')"
        )
    }
    cut = {row[0] for row in project.rows("SELECT DISTINCT whole FROM photos WHERE whole IS NOT NULL")}
    of_photo: dict[tuple[int, str], list[Record]] = {}
    for each in records:
        if each["file_name"] in known:
            of_photo.setdefault(known[each["file_name"]], []).append(each)
    kept = 0
    with project.changing() as db:
        for (whole, state), found in of_photo.items():
            answers = [each for each in found if "rejected" not in each]
            if not answers:
                db.execute("UPDATE photos SET reason = ? WHERE id = ?", (found[0]["rejected"], whole))
                continue
            boxed = any(map(is_box, answers))
            if boxed and state in _DECIDED:
                continue  # a person has named it as a whole
            rows = {_row(db, whole, each) if is_box(each) else whole: each for each in answers}
            for row, each in rows.items():
                _write(db, row, each, classifier, (looks or {}).get(key(each)))
            if boxed or whole in cut:
                _set_aside(db, whole, list(rows))
            kept += len(rows)
    project.find_events()
    return kept


def is_box(record: Record) -> bool:
    """Return whether a record is of a box, and not of a whole photo.

    The box of a person or a vehicle says what the whole photo shows.
    """
    return "detection" in record and "kind" not in record


def key(record: Record) -> str:
    """Return the name of a photo or a box: the text of its place, with the photo's printable name."""
    return key_of(record) if is_box(record) else record["file_name"]


def _row(db: sqlite3.Connection, whole: int, record: Record) -> int:
    """Return the number of a box's row, which is made where it is new."""
    end = key(record).removeprefix(record["file_name"])
    about = "place, deployment, location, taken, sequence, latitude, longitude"
    db.execute(
        f"INSERT OR IGNORE INTO photos (source, role, path, whole, state, {about}) "
        f"SELECT source, 'new', path || ?, id, 'none', {about} FROM photos WHERE id = ?",
        (end, whole),
    )
    [row] = db.execute(
        "SELECT id FROM photos WHERE path = (SELECT path || ? FROM photos WHERE id = ?)", (end, whole)
    ).fetchone()
    return int(row)


def _write(db: sqlite3.Connection, row: int, record: Record, classifier: str, look: int | None) -> None:
    """Write the answer of one row, and what the photo told of its time and place."""
    scores = [label["score"] for label in record.get("labels", [])] + [0.0, 0.0]
    first = record["labels"][0]["name"] if record.get("labels") else None
    about = (first, record.get("name"), scores[0], scores[0] - scores[1], record.get("sure"))
    if kind := record.get("kind"):
        sure = _sureness(record)
        name = EMPTY if kind == "blank" else kind
        about = (name, name, sure, sure, True)
    text = json.dumps(record, ensure_ascii=False)
    db.execute(
        "INSERT OR REPLACE INTO answers "
        "(photo, classifier, name, answer, score, margin, sure, record, kind, look) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (row, classifier, *about, text, kind, look),
    )
    db.execute(
        "UPDATE photos SET reason = NULL, taken = coalesce(taken, ?), latitude = coalesce(latitude, ?), "
        "longitude = coalesce(longitude, ?) WHERE id = ?",
        (record.get("taken"), record.get("latitude"), record.get("longitude"), row),
    )


def _sureness(record: Record) -> float:
    """Return the detector's confidence of a person or vehicle; of a blank photo, what its boxes lack of 1."""
    if (found := record.get("detection")) is not None:
        return found["confidence"]
    return 1 - max((each["confidence"] for each in record.get("others", ())), default=0.0)


def _set_aside(db: sqlite3.Connection, whole: int, rows: list[int]) -> None:
    """Let those rows of a photo stand that were named now, and boxes that a person decided on."""
    marks = ",".join("?" * len(rows))
    db.execute(
        f"UPDATE photos SET role = CASE WHEN id IN ({marks}) OR whole IS NOT NULL AND state != 'none' "
        "THEN 'new' ELSE 'aside' END WHERE id = ? OR whole = ?",
        (*rows, whole, whole),
    )
