"""Events: the photos of one visit of an animal, by their sequence, or by place and time."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from fieldmark.utils.errors import InputError

if TYPE_CHECKING:
    from fieldmark.data.photos import PhotoTable

_CENTURY = 100 * 365.25 * 86_400.0  # seconds
GAP = 60.0
"""Seconds without a photo at a place after which the next one begins an event, as camera traps count."""


@dataclass(frozen=True)
class Shot:
    """When and where a photo was taken.

    Attributes:
        place: the camera or its folder; None: unknown.
        taken: the time in ISO 8601; None: unknown.
        sequence: the sequence that the source puts it in; None: in none.
    """

    place: str | None = None
    taken: str | None = None
    sequence: str | None = None


def seconds_of(taken: str | None) -> float | None:
    """Return a time as seconds since 1970, UTC where it has no zone; None for a date alone, or nothing."""
    found = moment_of(taken or "")
    return found.timestamp() if found else None


def moment_of(text: str) -> datetime | None:
    """Return a time with its zone, UTC where it has none; None for a date alone, or nothing."""
    found = re.fullmatch(
        r"(\d{4})[-:](\d\d)[-:](\d\d)[T ](\d\d:\d\d(?::\d\d)?(?:\.\d+)?)(Z|[+-]\d\d:?\d\d)?", text.strip()
    )
    if not found:
        return None
    zone = (found[5] or "Z").replace("Z", "+00:00")
    try:
        moment = datetime.fromisoformat(f"{found[1]}-{found[2]}-{found[3]}T{found[4]}{zone}")
    except ValueError:  # the 31st of June
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def shifted(taken: str, seconds: float) -> str:
    """Return a time that is some seconds later, in ISO 8601; one that cannot be read stays."""
    found = moment_of(taken)
    if found is None:
        return taken
    return (found + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


def number_events(shots: Sequence[Shot], gap: float = GAP) -> list[int]:
    """Return the event of each photo, as numbers from 0 in the order of their first photos.

    Photos of one sequence are one event. Others are one where they are of one place and no gap between
    two that follow each other is longer than `gap` seconds; a photo without a time is alone.
    """
    found: dict[int, object] = {}
    timed: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for number, shot in enumerate(shots):
        if shot.sequence is not None:
            found[number] = ("sequence", shot.place, shot.sequence)
        elif (second := seconds_of(shot.taken)) is not None:
            timed[shot.place or ""].append((second, number))
        else:
            found[number] = ("photo", number)
    for place, rows in timed.items():
        last, start = float("-inf"), 0
        for second, number in sorted(rows):
            if second - last > gap:
                start = number
            found[number], last = ("visit", place, start), second
    order: dict[object, int] = {}
    return [order.setdefault(found[number], len(order)) for number in range(len(shots))]


def shots_of(table: PhotoTable, ids: Iterable[str]) -> list[Shot]:
    """Return where and when some photos of a table were taken; boxes are those of their photos."""
    columns = ("id", "path", "location", "deployment", "taken", "sequence")
    known = {row[0]: _shot(*row[1:]) for row in table.frame.select(columns).iter_rows()}
    return [known[each] for each in ids]


def _shot(
    path: str, location: str | None, deployment: str | None, taken: str | None, sequence: str | None
) -> Shot:
    return Shot(place_of(deployment, location, path.partition("#")[0]), taken, sequence)


def place_of(deployment: str | None, location: str | None, path: str) -> str:
    """Return the place of a photo: its deployment, its location, or the folder that it is in."""
    return deployment or location or folder_of(path)


def folder_of(path: str) -> str:
    """Return the folder of a photo's path, with `/` between its parts; "" without one."""
    return path.replace("\\", "/").rpartition("/")[0]


def read_clocks(path: Path) -> Mapping[str, float]:
    """Read by how many seconds the clock of each deployment was slow.

    The table has the columns `deployment` and `seconds`; the seconds are added to the camera's times.

    Raises:
        InputError: it cannot be read, lacks a column, or holds what is no number.
    """
    import polars as pl

    from fieldmark.data.readers import column_names, tabular

    rows = tabular.read_text_table(path)
    what = "a table with the columns deployment,seconds"
    tabular.require_columns(rows, ("deployment", "seconds"), path, what)
    try:
        seconds = column_names.with_point("seconds").cast(pl.Float64)
        found = rows.select("deployment", seconds).drop_nulls().unique(maintain_order=True)
    except pl.exceptions.PolarsError as error:
        raise InputError(f"{path}: a value of seconds is no number: write how much to add.") from error
    if wrong := found.filter(~(pl.col("seconds").abs() <= _CENTURY)).rows():
        raise InputError(f"{path}: {wrong[0][1]:g} seconds of {wrong[0][0]} are more than 100 years.")
    if twice := found.filter(pl.col("deployment").is_duplicated())["deployment"].to_list():
        raise InputError(f"{path} has the deployment {twice[0]!r} twice: keep one of its rows.")
    return dict(found.iter_rows())
