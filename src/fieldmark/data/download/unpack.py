"""Unpack downloaded archives safely and completely.

Files are unpacked to a hidden folder; when all are complete, each top entry is renamed. After a kill the
next run resumes with the missing files. Links, devices, and names that lead out of the folder are
errors: no published archive has any.
"""

from __future__ import annotations

import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple

from fieldmark.utils import io
from fieldmark.utils.errors import InputError

_RATIO = 100  # the largest ratio of the unpacked size to the archive; more is a bomb


class _Member(NamedTuple):
    name: str
    size: int
    open: Callable[[], IO[bytes] | None]


def unpack(archive: Path, folder: Path, advance: Callable[[int], None]) -> None:
    """Unpack a `.tar`, `.tar.gz` or `.zip` into a folder; `advance` is called with the size of each file.

    Lists (`.json`) go to the top of the folder, where `fieldmark index` expects them; other files keep
    their paths. An existing file is never overwritten.

    Raises:
        InputError: the archive is damaged, or holds a link, a device, a path that leads out of it, or
            the same file twice; or the disk is full. Nothing is in `folder` then.
    """
    staging = folder / f".unpacking-{archive.name}"
    limit = _RATIO * archive.stat().st_size + 2**20
    seen: set[str] = set()
    try:
        for member in _members(archive):
            target = _place(member.name)
            if target in seen:
                raise ValueError(f"it has {target!r} twice")
            seen.add(target)
            limit -= member.size
            if limit < 0:
                raise ValueError(f"it unpacks to more than {_RATIO} times its size")
            _take(member, staging / target)
            advance(member.size)
        if not seen:
            raise ValueError("it has no files")
        _settle(staging, folder)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, ValueError) as error:
        shutil.rmtree(staging, ignore_errors=True)
        raise InputError(f"{archive} cannot be used ({error}): download it again.") from error
    except OSError as error:
        raise InputError(
            f"{archive} could not be unpacked ({error.strerror or error}): free some space, then run "
            "the same command again; it resumes."
        ) from error


def _members(archive: Path) -> Iterator[_Member]:
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive) as pack:
            for info in pack.infolist():
                regular = stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG)
                if not info.is_dir():
                    _check(info.filename, regular=regular, encrypted=bool(info.flag_bits & 1))
                    yield _Member(info.filename, info.file_size, partial(pack.open, info))
        return
    with tarfile.open(archive, "r|*") as tape:
        for entry in tape:
            if not entry.isdir():
                _check(entry.name, regular=entry.isreg())
                yield _Member(entry.name, entry.size, partial(tape.extractfile, entry))
            tape.members.clear()  # type: ignore[attr-defined]  # or a list of millions grows


def _check(name: str, *, regular: bool, encrypted: bool = False) -> None:
    if not regular:
        raise ValueError(f"{name!r} in it is a link or a device")
    if encrypted:
        raise ValueError("it is encrypted")


def _place(name: str) -> str:
    """Return the path of a file of an archive below the folder; a ValueError if it leads out of it."""
    io.check_member(name)
    parts = [part for part in name.split("/") if part not in ("", ".")]
    return parts[-1] if name.endswith(".json") else "/".join(parts)


def _take(member: _Member, target: Path) -> None:
    if target.is_file() and target.stat().st_size == member.size:
        return  # unpacked by an earlier run
    target.parent.mkdir(parents=True, exist_ok=True)
    half = target.with_name(f"{target.name}.part")
    source = member.open()
    if source is None:
        raise ValueError(f"{member.name!r} in it cannot be read")
    with source, half.open("wb") as handle:
        shutil.copyfileobj(source, handle, 1 << 20)
    if half.stat().st_size != member.size:
        raise ValueError(f"{member.name!r} in it is truncated")
    half.replace(target)


def _settle(staging: Path, folder: Path) -> None:
    """Rename unpacked files to their final paths; several archives may fill one folder."""
    if hasattr(os, "sync"):  # not on Windows
        os.sync()  # once for all: one sync a photo would take hours
    for top in sorted(staging.iterdir()):
        place = folder / top.name
        if top.is_dir() and place.is_dir():
            for path in sorted(path for path in top.rglob("*") if path.is_file()):
                _rename(path, place / path.relative_to(top))
        else:
            _rename(top, place)
    shutil.rmtree(staging)
    io.sync(folder)


def _rename(path: Path, place: Path) -> None:
    if place.exists() and not (place.is_file() and place.read_bytes() == path.read_bytes()):
        raise ValueError(f"{place} exists with other content: move it away")
    place.parent.mkdir(parents=True, exist_ok=True)
    path.replace(place)
