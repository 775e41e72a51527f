"""A file of which a part is there: its bytes in `NAME.part`, beside them what they are a part of."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from fieldmark.utils import io
from fieldmark.utils.errors import InputError


def check_space(part: Path, total: int | None, have: int) -> None:
    """See that the rest of a file fits on the disk.

    Raises:
        InputError: it does not.
    """
    free = shutil.disk_usage(part.parent).free
    if total is not None and total - have > free:
        raise InputError(
            f"{part.parent} has {free:,} bytes free, and {total - have:,} more are needed: free some "
            "space or name another folder with --out."
        )


def info_path(part: Path) -> Path:
    """Where it is said which version of a file the bytes are of."""
    return part.with_name(f"{part.name}.json")


def write_info(part: Path, version: str, total: int | None) -> None:
    """Say of which version of a file the bytes to come are, and how many it has in all."""
    io.write_json(info_path(part), {"version": version, "bytes": total})


def read_info(part: Path) -> tuple[str, int | None]:
    """Which version of a file the bytes in `part` are of, or "", and how many it has in all."""
    with suppress(InputError, AttributeError):
        read_info = io.read_json(info_path(part))
        return str(read_info.get("version", "")), read_info.get("bytes")
    return "", None


def discard(part: Path) -> None:
    """Throw away the bytes and what is said of them."""
    for path in (part, info_path(part)):
        path.unlink(missing_ok=True)


def size(path: Path) -> int:
    """How many bytes are there."""
    return path.stat().st_size if path.exists() else 0
