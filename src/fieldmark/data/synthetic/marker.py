"""The file that tells what was drawn into a folder, and whether all of it."""

from __future__ import annotations

from pathlib import Path

from fieldmark.utils import io
from fieldmark.utils.errors import InputError

MARKER = "fieldguide.json"


def is_complete(folder: Path, about: dict[str, int]) -> bool:
    """Return whether the folder has what these settings draw, complete except for files deleted since.

    Raises:
        InputError: it has other files, or what other settings draw.
    """
    marker = folder / MARKER
    if not marker.exists():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(f"{folder} has other files: name a new or empty folder.")
        return False
    found = io.read_json(marker)
    if not isinstance(found, dict) or {k: v for k, v in found.items() if k != "complete"} != about:
        raise InputError(f"{folder} has photos drawn with other settings ({marker}): name another folder.")
    return found.get("complete") is True


def write(folder: Path, about: dict[str, int], *, complete: bool) -> None:
    """Record what is drawn into the folder."""
    io.write_json(folder / MARKER, {**about, "complete": complete})
