"""The table for people: one row a photo, or a box or an event, with the best name and whether it is sure."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

from fieldmark.data.events import moment_of, place_of
from fieldmark.data.locations import OF_CAMERA
from fieldmark.inference.record import Record

COLUMNS = (
    *("file", "name", "common_name", "score", "sure", "second", "second_score", "third", "third_score"),
    *("date", "place", "latitude", "longitude", *OF_CAMERA, "note"),
)


def row_of(record: Record) -> dict[str, Any]:
    """Return what a record says as values by `COLUMNS`; None for what is unknown.

    Scores are from 0 to 1, degrees are decimal, `temperature` is in degrees Celsius. `date` is the time on
    the camera's clock, as `datetime`, or as `date` where only the day is known. `sure` is "yes" or "no"; None
    where there is no answer.
    """
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    row |= {
        "file": record["file_name"],
        "date": clock_time(record.get("taken")),
        "place": _place(record) or None,
        "latitude": record.get("latitude"),
        "longitude": record.get("longitude"),
        **{name: record.get(name) for name in OF_CAMERA},
        "note": "; ".join(_notes(record)) or None,
    }
    if "kind" in record:
        found = record.get("detection")
        row |= {"name": record["kind"], "score": found and round(found["confidence"], 4), "sure": "yes"}
    for column, label in zip(("name", "second", "third"), record.get("labels", ()), strict=False):
        row[column] = label["name"]
        row["score" if column == "name" else f"{column}_score"] = round(label["score"], 4)
    if labels := record.get("labels"):
        row |= {"common_name": labels[0]["common_name"] or None, "sure": "yes" if record["sure"] else "no"}
    return row


def clock_time(taken: str | None) -> datetime | date | None:
    """Return a time as the camera's clock showed it, or the day; None where it is unknown."""
    if found := moment_of(taken or ""):
        return found.replace(tzinfo=None)
    try:
        return date.fromisoformat((taken or "")[:10])
    except ValueError:
        return None


def _place(record: Record) -> str:
    if "event" in record:
        return record["event"]["place"]
    return place_of(record.get("deployment"), record.get("location"), record["file_name"])


def _notes(record: Record) -> list[str]:
    if "kind" in record:
        return ["no animal in a box" if record["kind"] == "blank" else "by its box"]
    if "rejected" in record:
        return [f"cannot be used: {record['rejected']}"]
    notes = ["cut off: the part that is there was classified"] if "note" in record else []
    if record["source"] == "rolled up":
        notes.append(f"sure of the {record['rank']} {record['name']} ({record['score']:.1%})")
    elif record["source"] == "unknown":
        notes.append("unlike the photos it learned from")
    return notes
