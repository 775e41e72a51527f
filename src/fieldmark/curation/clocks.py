"""Find photos whose time cannot be right: the camera's clock was not set, or was set back.

A camera whose battery was changed often begins again at a fixed date, such as the first of January 2000.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import polars as pl

from fieldmark.data import images
from fieldmark.data.events import seconds_of
from fieldmark.data.photos import PhotoTable
from fieldmark.data.storage import places
from fieldmark.utils.threads import in_order

EARLY = datetime(2005, 1, 1, tzinfo=UTC).timestamp()
"""Before this few cameras took digital photos, and many clocks begin."""
_DAY = 86400.0
_MOST = 0.25
"""Where more of a folder's photos would jump, their names do not follow the time."""


def wrong_clocks(table: PhotoTable) -> pl.Series:
    """Return for each kept row `early`, `future`, `jump` (back by more than a day, by name), or null.

    The time is that of the table, else of EXIF for photos on this machine.
    """
    rows = table.kept.select("path", "location", "deployment", "taken").rows()
    seconds = list(in_order(lambda row: _second(table, row[0], row[3]), rows, None))
    found: list[str | None] = [None] * len(rows)
    latest = (datetime.now(UTC) + timedelta(days=1)).timestamp()
    folders: dict[tuple[str | None, ...], list[int]] = defaultdict(list)
    for number, (second, (path, location, deployment, _)) in enumerate(zip(seconds, rows, strict=True)):
        if second is None:
            continue
        if second < EARLY or second > latest:
            found[number] = "early" if second < EARLY else "future"
        else:
            folders[deployment or location, path.rpartition("/")[0]].append(number)
    for numbers in folders.values():
        ordered = sorted(numbers, key=lambda number: _by_number(rows[number][0]))
        for number in _back(ordered, seconds):
            found[number] = "jump"
    return pl.Series("clock", found, pl.String)


def _second(table: PhotoTable, path: str, taken: str | None) -> float | None:
    place = table.file_of(path)
    if (known := seconds_of(taken)) is not None or not places.is_local(place):
        return known
    return seconds_of(images.exif_of(place).taken)


def _by_number(path: str) -> list[tuple[int, str]]:
    """Return a key to sort by that puts `IMG_9` before `IMG_10`."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", path)]


def _back(ordered: Sequence[int], seconds: Sequence[float | None]) -> list[int]:
    """Return the photos that are more than a day older than one before them."""
    latest, found = float("-inf"), []
    for number in ordered:
        second = seconds[number] or 0.0
        if second < latest - _DAY:
            found.append(number)
        latest = max(latest, second)
    return found if len(found) <= _MOST * len(ordered) else []
