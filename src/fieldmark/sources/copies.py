"""Offline copies of pictures that a standard names by URL: found beside the list, never fetched."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Copies:
    """The files below a folder, found by the end of a URL's path or by a record's id.

    A copy may keep as much of the URL's path as it takes to be the only one (`photos/17/original.jpg`),
    or be named after the record: `17.jpg`, or `17_1.jpg`, `17_2.jpg` for its first and second picture.
    """

    def __init__(self, root: Path) -> None:
        self._files: dict[str, str] = {}
        self._stems: dict[str, str] = {}
        for folder, _, names in os.walk(root):
            for name in names:
                path = (Path(folder) / name).relative_to(root).as_posix()
                self._files[path] = path
                self._stems.setdefault(Path(name).stem, path)
        self._ends: dict[str, list[str]] = {}
        for path in self._files:
            self._ends.setdefault(path.rpartition("/")[2], []).append(path)

    def of(self, url: str, record: str, number: int) -> str:
        """The path of a copy below the folder; where there is none, what it would be called.

        Args:
            url: the picture's address, or its path below the folder.
            record: the id of what it is a picture of.
            number: which of the record's pictures it is, from 1.
        """
        if url in self._files:
            return url
        parts = [part for part in unquote(urlsplit(url).path).split("/") if part]
        same = self._ends.get(parts[-1], []) if parts else []
        for length in range(len(parts), 0, -1):
            end = "/".join(parts[-length:])
            found = [path for path in same if path == end or path.endswith(f"/{end}")]
            if len(found) == 1 and (length > 1 or len(same) == 1):
                return found[0]
        names = (f"{record}_{number}", record) if number == 1 else (f"{record}_{number}",)
        known = next((self._stems[name] for name in names if name in self._stems), None)
        return known or "/".join(part for part in parts if part != "..") or record
