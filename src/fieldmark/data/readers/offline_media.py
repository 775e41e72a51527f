"""Find offline copies of photos that a list names by URL.

A copy is found by the end of its URL's path if that is unique (`photos/17/original.jpg`); by its name
only if no other photo of the list has the same name. Otherwise by its name without the suffix:

    17, 17_1, 17_2    the id of its record: the only photo, the first, the second
    48                the number in a URL whose file is named after a size: `48/medium.jpg`
    d41d8cd98f...     the MD5 or the SHA-1 of the URL

The same scheme is used for all photos of a list, the one that finds most: both sorts of numbers have the
same range, so that mixing them would assign photos to wrong records.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import polars as pl

from fieldmark.data.readers.base import may_be_image
from fieldmark.data.readers.inat_tables import SIZES


class _MediaItem(NamedTuple):
    """A photo that a list names."""

    url: str  # or its path below the list's folder
    record: str  # the id of its record
    number: int = 1  # among the record's photos

    @property
    def parts(self) -> list[str]:
        """Return the parts of the URL's path, without `..`."""
        _, scheme, rest = self.url.partition("://")  # a third of the time that urlsplit takes
        path = rest.partition("/")[2] if scheme else self.url
        path = path.partition("#")[0].partition("?")[0]
        return [part for part in unquote(path).split("/") if part not in ("", "..")]


def find_copies(root: Path, rows: pl.DataFrame) -> pl.Series:
    """Return the path of each photo's copy below the folder; the expected path where there is none.

    Args:
        root: the folder.
        rows: the photos: URL (or path), id of the record, and optionally the number in it, in this order.
    """
    pictures = [_MediaItem(*row) for row in rows.iter_rows()]
    files = _FileIndex(root)
    called = [picture.parts for picture in pictures]
    often = Counter(parts[-1] for parts in called if parts)
    paths = [
        files.by_url(picture.url, parts, alone=bool(parts) and often[parts[-1]] == 1)
        for picture, parts in zip(pictures, called, strict=True)
    ]
    lost = [number for number, path in enumerate(paths) if path is None]
    if lost and files.stems:
        each = [[files.by_name(names) for names in _names(pictures[number])] for number in lost]
        ways = list(zip(*each, strict=True))
        best = max(ways, key=lambda found: sum(path is not None for path in found))
        for number, path in zip(lost, best, strict=True):
            paths[number] = path
    found = [
        path or "/".join(parts) or picture.record
        for path, parts, picture in zip(paths, called, pictures, strict=True)
    ]
    return pl.Series(found, dtype=pl.String)


class _FileIndex:
    """The files below a folder."""

    def __init__(self, root: Path) -> None:
        self._files: set[str] = set()
        self.stems: dict[str, str] = {}
        self._ends: dict[str, list[str]] = {}
        for folder, below, names in os.walk(root):
            below.sort()  # the same copy on every file system
            for name in sorted(names):
                path = (Path(folder) / name).relative_to(root).as_posix()
                self._files.add(path)
                if may_be_image(name):  # other files may be named after the record
                    self.stems.setdefault(Path(name).stem, path)
                self._ends.setdefault(name, []).append(path)

    def by_url(self, url: str, parts: list[str], *, alone: bool) -> str | None:
        """Find a file by the end of a URL; by its name only where that is unique."""
        if url in self._files:
            return url
        same = self._ends.get(parts[-1], []) if parts else []
        for length in range(len(parts) if same else 0, 0, -1):
            end = "/".join(parts[-length:])
            found = [path for path in same if path == end or path.endswith(f"/{end}")]
            if len(found) == 1 and (length > 1 or (alone and len(same) == 1 and not _is_size(end))):
                return found[0]
        return None

    def by_name(self, names: list[str]) -> str | None:
        return next((self.stems[name] for name in names if name in self.stems), None)


def _is_size(name: str) -> bool:
    return name.partition(".")[0] in SIZES


def _names(picture: _MediaItem) -> tuple[list[str], ...]:
    """Return the names of a copy after its record, after the number in its URL, and after the URL's hash."""
    numbered = f"{picture.record}_{picture.number}"
    *_, folder, name = ["", "", *picture.parts]
    url = picture.url.encode()
    return (
        [numbered, picture.record] if picture.number == 1 else [numbered],
        [folder] if _is_size(name) else [],
        [hashlib.new(kind, url, usedforsecurity=False).hexdigest() for kind in ("md5", "sha1")],
    )
