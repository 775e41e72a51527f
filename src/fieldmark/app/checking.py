"""Copies, bursts, poor photos and suspect labels among the photos to learn from, and leaving photos out.

`fieldmark check` finds them, as a job; bursts are events. What it found is kept until the next check.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, Literal

from fieldmark.app import decisions, learning
from fieldmark.app.jobs import Job
from fieldmark.app.queues import Group, Wall
from fieldmark.app.store import Project
from fieldmark.data.events import Shot, number_events
from fieldmark.utils.errors import InputError
from fieldmark.utils.languages import say, to_say

Listing = Literal["copies", "bursts", "poor", "labels", "out"]
TITLES: dict[Listing, str] = {
    "copies": to_say("Copies"),
    "bursts": to_say("Bursts"),
    "poor": to_say("Poor photos"),
    "labels": to_say("Suspect labels"),
    "out": to_say("Left out"),
}
"""The lists of a check, and that of the photos that were left out."""
_POOR = {
    "dark": to_say("Dark"),
    "blurred": to_say("Blurred"),
    "tiny": to_say("Tiny"),
    "rotated": to_say("Rotated"),
}
_TABLE = """CREATE TABLE IF NOT EXISTS findings (photo INTEGER NOT NULL, kind TEXT NOT NULL,
    cluster INTEGER NOT NULL, spare INTEGER NOT NULL, PRIMARY KEY (photo, kind)) WITHOUT ROWID"""


def listing_of(name: str) -> Listing | None:
    """Return the list that has this name; None for any other word."""
    return next((each for each in TITLES if each == name), None)


def check(project: Project, more: str = "") -> Job:
    """Start `fieldmark check` on all labelled photos; `more` are further options as one would type them.

    Raises:
        InputError: there is no labelled photo, or another job is running.
    """
    if not project.value("SELECT count(*) FROM photos WHERE label IS NOT NULL AND reason IS NULL"):
        raise InputError(say("There is no photo to check: add folders of photos first."))
    words = ["check", "{job}/photos.csv", "--out", "{job}/check"]
    options = learning.split_options(more)
    return learning.start(project, "check", words, options, learning.write_labels, file="photos.csv")


def take(project: Project, folder: Path) -> None:
    """Keep what a check wrote to its folder, in place of what an earlier one found."""
    import polars as pl

    from fieldmark.curation.findings import ids_to_drop

    found = pl.read_parquet(folder / "findings.parquet")
    ids = {path: number for number, path in project.rows("SELECT id, path FROM photos WHERE role='labelled'")}
    spare = set(ids_to_drop(found, "near-duplicates"))
    rows: list[tuple[int, str, int, bool]] = []
    for row in found.iter_rows(named=True):
        number = ids.get(row["id"].removeprefix("'"))
        if number is None:
            continue
        if row["twins"] is not None:
            first = ids.get(row["twins"].removeprefix("'"), number)
            rows.append((number, "copies", first, row["id"] in spare))
        rows += [(number, kind, 0, False) for kind in _POOR if row[kind]]
        if row["suspect"] is not None:
            rows.append((number, "labels", 0, False))
    with project.changing() as db:
        db.execute(_TABLE)
        db.execute("DELETE FROM findings")
        db.executemany("INSERT INTO findings VALUES (?, ?, ?, ?)", rows + _bursts(project))


def _bursts(project: Project) -> list[tuple[int, str, int, bool]]:
    """Return the photos of events of several photos; all but the first are spare."""
    found = project.rows(
        "SELECT id, place, taken, sequence FROM photos "
        "WHERE role = 'labelled' AND label IS NOT NULL AND reason IS NULL ORDER BY taken, path"
    )
    events = number_events([Shot(place, taken, sequence) for _, place, taken, sequence in found])
    sizes, seen, rows = Counter(events), set[int](), []
    for (number, *_), event in zip(found, events, strict=True):
        if sizes[event] > 1:
            rows.append((number, "bursts", event, event in seen))
        seen.add(event)
    return rows


def wall(project: Project, listing: Listing) -> Wall:
    """Return the photos of a list in its groups, without those that were left out since."""
    if listing == "out":
        found = project.rows("SELECT id FROM photos WHERE state = 'out' ORDER BY path")
        return _grouped([(row[0], "out", say(TITLES["out"])) for row in found])
    kinds = tuple(_POOR) if listing == "poor" else (listing,)
    rows = _rows(
        project,
        "SELECT f.photo, f.kind, f.cluster, p.path FROM findings f JOIN photos p ON p.id = f.photo "
        f"WHERE f.kind IN ({','.join('?' * len(kinds))}) AND p.state != 'out' AND p.reason IS NULL "
        "ORDER BY f.kind, f.cluster, f.spare, p.path",
        kinds,
    )
    if listing in ("copies", "bursts"):
        sizes = Counter(row[2] for row in rows)
        rows = [row for row in rows if sizes[row[2]] > 1]
        heads = {row[2]: Path(row[3]).name for row in reversed(rows)}
        return _grouped([(row[0], row[2], heads[row[2]]) for row in rows])
    return _grouped([(row[0], row[1], say(_POOR.get(row[1], TITLES["labels"]))) for row in rows])


def _grouped(rows: list[tuple[int, object, str]]) -> Wall:
    """Return a wall of photos, each with the key and the name of its group; groups stand together."""
    counts = Counter(key for _, key, _ in rows)
    names = {key: name for _, key, name in rows}
    return Wall(tuple(row[0] for row in rows), tuple(Group(names[key], counts[key]) for key in counts))


def spare(project: Project, listing: Listing) -> list[int]:
    """Return the photos of copies or bursts that can be left out so that the best one of each stays."""
    rows = _rows(
        project,
        "SELECT f.photo FROM findings f JOIN photos p ON p.id = f.photo "
        "WHERE f.kind = ? AND f.spare AND p.state != 'out' AND p.reason IS NULL",
        (listing,),
    )
    return [row[0] for row in rows]


def leave_out(project: Project, photos: list[int], *, reviewer: str) -> int:
    """Take photos out of what is learned from; the files stay, and undo takes them in again."""
    return decisions.decide(project, photos, None, reviewer=reviewer, state="out", what="left out")


def _rows(project: Project, query: str, values: tuple[str, ...]) -> list[tuple[Any, ...]]:
    project.rows(_TABLE)  # a project may be older than this table
    return project.rows(query, values)
