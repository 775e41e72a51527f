"""A partial download: its bytes in `NAME.part`, its version in `NAME.part.json`."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from fieldmark.utils import io
from fieldmark.utils.errors import InputError


def check_space(part: Path, total: int | None, have: int) -> None:
    """Raise InputError if the rest of a file does not fit on the disk."""
    free = shutil.disk_usage(part.parent).free
    if total is not None and total - have > free:
        raise InputError(
            f"{part.parent} has {free:,} bytes free, and {total - have:,} more are needed: free some "
            "space or name another folder with --out."
        )


def info_path(part: Path) -> Path:
    """Return the path of the version of a partial download."""
    return part.with_name(f"{part.name}.json")


def write_info(part: Path, version: str, total: int | None) -> None:
    """Record the version of a file, and how many bytes it has."""
    io.write_json(info_path(part), {"version": version, "bytes": total})


def read_info(part: Path) -> tuple[str, int | None]:
    """Return the version of the file in `part`, or "", and how many bytes it has."""
    with suppress(InputError, AttributeError):
        read_info = io.read_json(info_path(part))
        return str(read_info.get("version", "")), read_info.get("bytes")
    return "", None


def discard(part: Path) -> None:
    """Delete a partial download and its version."""
    for path in (part, info_path(part)):
        path.unlink(missing_ok=True)


def size(path: Path) -> int:
    """Return the size of a file, 0 if it does not exist."""
    return path.stat().st_size if path.exists() else 0
