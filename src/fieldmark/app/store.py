"""A project: a folder with `project.sqlite`, beside it the ordinary folders of classifiers and jobs.

    project.sqlite      photos, answers of classifiers, and all decisions with who made them
    classifiers/01/     what `fieldmark train` and `grow` wrote
    jobs/0001-train/    command, log, and tables that were given to the command
    thumbnails/         a cache; may be deleted at any time

Photos stay where they are. Every transaction is on the disk before it is answered (WAL, synchronous=FULL), so
that neither a kill nor a power cut loses a decision.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fieldmark.data.events import Shot, number_events, place_of
from fieldmark.data.storage import places
from fieldmark.data.storage.places import Box, Boxed
from fieldmark.data.vernacular import common_names
from fieldmark.utils.errors import InputError

if TYPE_CHECKING:
    from fieldmark.data.photos import PhotoTable
    from fieldmark.inference.inputs import InputPhoto

EMPTY = "empty"
"""The label of a photo without an animal, as the readers of tables know it."""

Role = Literal["labelled", "new", "aside"]
"""What a photo or a box is there for: to learn from, or to be named. Aside are photos that boxes stand in
place of, and boxes that the last naming did not have, see `fieldmark.app.answers`."""
State = Literal["none", "given", "person", "unknown", "out"]
"""Of a photo's label: there is none, its folder or table gave it, a person did, a person does not know, or a
person left the photo out of what is learned from."""

_FILE = "project.sqlite"
_SCHEMAS = (
    """
CREATE TABLE sources (id INTEGER PRIMARY KEY, path TEXT NOT NULL, role TEXT NOT NULL, added TEXT NOT NULL,
    UNIQUE (path, role));
CREATE TABLE photos (id INTEGER PRIMARY KEY, source INTEGER NOT NULL, role TEXT NOT NULL,
    path TEXT NOT NULL UNIQUE, reason TEXT, label TEXT, state TEXT NOT NULL, learned TEXT, part TEXT,
    place TEXT, deployment TEXT, location TEXT, taken TEXT, sequence TEXT, latitude REAL, longitude REAL,
    event INTEGER);
CREATE TABLE species (name TEXT PRIMARY KEY, facts TEXT NOT NULL);
CREATE TABLE answers (photo INTEGER PRIMARY KEY, classifier TEXT NOT NULL, name TEXT, answer TEXT, score REAL,
    margin REAL, sure INTEGER, record TEXT NOT NULL);
CREATE TABLE actions (id INTEGER PRIMARY KEY AUTOINCREMENT, at TEXT NOT NULL, reviewer TEXT NOT NULL,
    what TEXT NOT NULL, undone INTEGER NOT NULL DEFAULT 0);
CREATE TABLE changes (action INTEGER NOT NULL, photo INTEGER NOT NULL, label_before TEXT, state_before TEXT,
    label TEXT, state TEXT NOT NULL, PRIMARY KEY (action, photo)) WITHOUT ROWID;
CREATE INDEX changes_of ON changes (photo, action);
CREATE INDEX photos_by ON photos (role, label);
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL)
""",
    """
ALTER TABLE photos ADD COLUMN whole INTEGER;
ALTER TABLE answers ADD COLUMN kind TEXT;
ALTER TABLE answers ADD COLUMN look INTEGER;
ALTER TABLE answers ADD COLUMN likeness INTEGER;
CREATE INDEX boxes_of ON photos (whole)
""",
)
"""What each version of the file adds to the one before. `whole`: of a box, the number of its photo; `kind`:
blank, human or vehicle, where the boxes of a photo say so and the classifier was not asked; `look` and
`likeness`: see `fieldmark.app.likeness`."""


@dataclass(frozen=True)
class Photo:
    """One photo of a project, or a box of one, with what is known of it.

    Attributes:
        path: the file.
        box: of a row that is a box: where it is in the photo.
        label: what a person or its folder calls it; None: no label.
        name: the most probable label of the classifier; None: not named yet.
        score: its probability.
        sure: whether the classifier answered at all.
        record: the whole answer; {} without one.
    """

    id: int
    path: Path
    box: Box | None
    role: Role
    reason: str | None
    label: str | None
    state: State
    place: str
    taken: str | None
    event: int | None
    name: str | None
    score: float | None
    sure: bool
    record: dict[str, Any]

    @property
    def picture(self) -> Path | Boxed:
        """Return what is looked at: the photo, or the crop of the box."""
        return Boxed(self.path, self.box) if self.box else self.path


def now() -> str:
    """Return the time, ISO 8601 in UTC."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Project:
    """The store of one project; it may be used from several threads."""

    def __init__(self, folder: Path) -> None:
        """Open a project, or make a new one in a new or empty folder.

        Raises:
            InputError: the folder holds other things, cannot be written to, or is of a later version.
        """
        self.folder = folder.resolve()
        file = self.folder / _FILE
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            others = [each.name for each in self.folder.iterdir() if not each.name.startswith(".")]
        except OSError as error:
            raise InputError(
                f"{folder} cannot be a project ({error.strerror or error}): name another folder."
            ) from error
        if others and not file.exists():
            raise InputError(
                f"{folder} holds other files: name a new folder for the project, photos stay where they are."
            )
        self._lock = threading.RLock()
        try:
            self._db = sqlite3.connect(file, check_same_thread=False, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
        except sqlite3.DatabaseError as error:
            raise InputError(
                f"{file} is not a project of fieldmark ({error}): name another folder."
            ) from error
        if version > len(_SCHEMAS):
            raise InputError(f"{file} is of a later version of fieldmark: update fieldmark.")
        if version < len(_SCHEMAS):
            with self.changing() as db:
                for statement in ";\n".join(_SCHEMAS[version:]).split(";\n"):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version={len(_SCHEMAS)}")

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    @contextmanager
    def changing(self) -> Iterator[sqlite3.Connection]:
        """Make one transaction of the block: all of it is on the disk at its end, or nothing."""
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        with self._lock:
            return self._db.execute(query, values).fetchall()

    def value(self, query: str, values: Sequence[Any] = ()) -> Any:
        """Return the first column of the first row of a query; None without a row."""
        found = self.rows(query, values)
        return found[0][0] if found else None

    # Settings

    def setting(self, name: str, default: str = "") -> str:
        """Return a setting of the project."""
        found = self.value("SELECT value FROM settings WHERE name = ?", (name,))
        return default if found is None else str(found)

    def set(self, name: str, value: str) -> None:
        """Keep a setting of the project."""
        with self.changing() as db:
            db.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (name, value))

    # Photos

    def add_labelled(self, table: PhotoTable, path: Path) -> tuple[int, int]:
        """Add the photos of a table to learn from; return how many are new, and how many are refused.

        A photo that is there keeps its label. Only photos that are files of this computer can be added.
        `path` is what the table was read from; common names that it has in several languages are kept.
        """
        spoken = common_names(path)
        labels = {taxon.id: taxon for taxon in table.taxonomy}
        rows, refused = [], 0
        for row in table.frame.iter_rows(named=True):
            place = table.file_of(row["path"])
            reason = row["reason"] if isinstance(place, Path) else "not-a-file"
            refused += reason is not None
            taxon = labels.get(row["taxon_id"])
            label = taxon.name if taxon and reason is None else None
            file = stored(place) if isinstance(place, Path) else f"{table.root}#{row['path']}"
            about = [
                row[each] for each in ("deployment", "location", "taken", "sequence", "latitude", "longitude")
            ]
            part = "test" if row["split"] == "test" else None
            rows.append(
                (file, reason, label, "given" if label else "none", part, _place(row, file, path), *about)
            )
        with self.changing() as db:
            for taxon in labels.values():
                facts = {
                    "common_name": taxon.common_name,
                    "supercategory": taxon.supercategory,
                    **taxon.ranks,
                    **{f"common_name_{code}": name for code, name in spoken.get(taxon.name, {}).items()},
                }
                facts = {name: value for name, value in facts.items() if value}
                db.execute(  # what is known of it already stays
                    "INSERT INTO species VALUES (?, ?) ON CONFLICT (name) DO UPDATE "
                    "SET facts = json_patch(excluded.facts, facts)",
                    (taxon.name, json.dumps(facts)),
                )
            return self._add(db, path, "labelled", rows), refused

    def add_new(self, photos: Iterable[InputPhoto], path: Path) -> int:
        """Add photos that the classifier is to name; return how many are new to the project."""
        rows = []
        for each in photos:
            if isinstance(each.path, Path):
                file = stored(each.path)
                about = (
                    each.deployment,
                    each.location,
                    each.taken,
                    each.sequence,
                    each.latitude,
                    each.longitude,
                )
                given = {"deployment": each.deployment, "location": each.location}
                rows.append((file, None, None, "none", None, _place(given, file, path), *about))
        with self.changing() as db:
            added = self._add(db, path, "new", rows)
        self.find_events()
        return added

    def _add(self, db: sqlite3.Connection, path: Path, role: Role, rows: list[tuple[Any, ...]]) -> int:
        where = (stored(path), role)
        db.execute("INSERT OR IGNORE INTO sources (path, role, added) VALUES (?, ?, ?)", (*where, now()))
        [source] = db.execute("SELECT id FROM sources WHERE path = ? AND role = ?", where).fetchone()
        before = db.total_changes
        db.executemany(
            "INSERT OR IGNORE INTO photos (source, role, path, reason, label, state, part, place, "
            "deployment, location, taken, sequence, latitude, longitude) VALUES "
            f"({source}, '{role}', {', '.join('?' * 12)})",
            rows,
        )
        return db.total_changes - before

    def find_events(self) -> None:
        """Number the events of the new photos again, by sequences, places and times."""
        found = self.rows("SELECT id, place, taken, sequence FROM photos WHERE role = 'new' ORDER BY path")
        numbers = number_events([Shot(place, taken, sequence) for _, place, taken, sequence in found])
        with self.changing() as db:
            pairs = [(number, row[0]) for number, row in zip(numbers, found, strict=True)]
            db.executemany("UPDATE photos SET event = ? WHERE id = ?", pairs)

    def photo(self, number: int) -> Photo | None:
        """Return one photo."""
        return next(iter(self.photos([number])), None)

    def photos(self, ids: Sequence[int]) -> list[Photo]:
        """Return photos in the order of their numbers that are given."""
        found = {}
        for start in range(0, len(ids), 500):
            some = ids[start : start + 500]
            for row in self.rows(
                "SELECT p.id, path, whole, role, reason, label, state, place, taken, event, a.name, a.score, "
                "a.sure, a.record FROM photos p LEFT JOIN answers a ON a.photo = p.id "
                f"WHERE p.id IN ({','.join('?' * len(some))})",
                some,
            ):
                number, text, whole, *about, sure, record = row
                place = places.at(Path(), text) if whole else Path(text)
                file = (place.photo, place.box) if isinstance(place, Boxed) else (place, None)
                known = json.loads(record) if record else {}
                found[number] = Photo(number, *file, *about, bool(sure), known)  # type: ignore[call-arg]  # of a row
        return [found[each] for each in ids if each in found]

    def names(self) -> list[str]:
        """Return all names of species: of labels, of answers, and those that a person added."""
        found = self.rows(
            "SELECT name FROM species UNION SELECT label FROM photos WHERE label IS NOT NULL "
            "UNION SELECT name FROM answers WHERE name IS NOT NULL"
        )
        return sorted((str(name) for (name,) in found), key=str.casefold)

    def facts(self) -> dict[str, dict[str, str]]:
        """Return what is known of each species: common name and ranks."""
        return {name: json.loads(facts) for name, facts in self.rows("SELECT name, facts FROM species")}


def stored(path: Path) -> str:
    """Return a path as text: absolute, links stay; bytes that are no Unicode are escaped."""
    found = os.path.abspath(path)  # noqa: PTH100  # links stay
    return os.fsencode(found).decode("utf-8", "backslashreplace")


def _place(row: dict[str, Any], file: str, source: Path) -> str:
    """Return the place of a photo: its deployment or location, else its folder below that of its source."""
    place = place_of(row.get("deployment"), row.get("location"), file)
    base = stored(source if source.is_dir() else source.parent).replace("\\", "/")
    below = place.removeprefix(base).strip("/") if place.startswith(base) else place
    return below or Path(base).name
