"""Download, verify and unpack one of the iNaturalist challenges."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fieldmark.data.download.challenges import BASE, CHALLENGES, USUAL, Archive
from fieldmark.data.download.http import Downloads, RetryPolicy, WrongContent, forget
from fieldmark.data.download.unpack import unpack
from fieldmark.utils import io
from fieldmark.utils.errors import InputError
from fieldmark.utils.logging import progress_bar
from fieldmark.utils.publishing import Kind, claimed

logger = logging.getLogger(__name__)

RECORD = "fetched.json"
"""The record of a folder's downloads: each file's URL, bytes, digests, and expected digest."""

KIND = Kind("photos", RECORD, in_place=True)


@dataclass(frozen=True)
class Challenge:
    """Which challenge, and how much of it."""

    year: str  # one of `CHALLENGES`
    parts: tuple[str, ...] = ()  # of that year; empty: the default ones
    images: bool = True  # whether to download the photos; the lists are enough for counting
    keep_archives: bool = False  # whether archives are kept after unpacking
    base: str = BASE  # the base URL, for a mirror; files are at `/YEAR/NAME` below

    def archives(self) -> list[Archive]:
        """Return the files to download; an InputError where the year has no such part."""
        published = CHALLENGES[self.year]
        known = list(dict.fromkeys(archive.part for archive in published))
        wanted = self.parts or tuple(USUAL[self.year].split(","))
        if unknown := [part for part in wanted if part not in known]:
            raise InputError(
                f"The challenge of {self.year} has no part {unknown[0]!r}: choose of {', '.join(known)}."
            )
        return [a for a in published if a.part in wanted and (self.images or not a.images)]


def fetch_challenge(
    challenge: Challenge, out: Path, retry_policy: RetryPolicy | None = None
) -> list[dict[str, Any]]:
    """Download a challenge into a folder; files of an earlier run are not downloaded again.

    Returns the record of each file, in the order of the downloads.

    Raises:
        InputError: a file is not available, is not the published one, or cannot be unpacked; or the disk
            is full. What was done is kept.
        StoreError: another process fetches into the folder.
    """
    wanted = challenge.archives()
    path = out / RECORD
    record: dict[str, Any] = {"challenge": challenge.year, "files": {}}
    with claimed(out, KIND), Downloads(retry_policy or RetryPolicy()) as downloads:
        if path.exists():
            kept = io.read_json(path)
            if kept.get("challenge") != challenge.year:
                raise InputError(f"{out} holds another data set: name a new folder with --out.")
            record["files"] = kept["files"]
        write = partial(io.write_json, path, record)  # after every step, so that a kill loses only that
        write()
        for archive in wanted:
            _fetch_archive(archive, challenge, out, record["files"], write, downloads)
    return [record["files"][archive.name] for archive in wanted]


def _fetch_archive(
    archive: Archive,
    challenge: Challenge,
    out: Path,
    files: dict[str, dict[str, Any]],
    write: Callable[[], None],
    downloads: Downloads,
) -> None:
    path = out / "archives" / archive.name
    if path.exists():
        forget(path)
    if files.get(archive.name, {}).get("unpacked"):
        if not challenge.keep_archives:
            path.unlink(missing_ok=True)  # left by a run that was killed
        logger.info(f"{archive.name}: already complete")
        return
    url = f"{challenge.base.rstrip('/')}/{challenge.year}/{archive.name}"
    if path.exists():
        try:
            found = _checked(path, archive)
        except WrongContent as error:
            raise InputError(
                f"{path} has other content ({error}): delete it to download it again."
            ) from error
    else:
        with progress_bar(archive.name, int(archive.size) or None, "MB") as bar:
            found = downloads.save(url, path, lambda part: _checked(part, archive), bar.at)
    held_to = "its published MD5" if archive.md5 else "nothing: no checksum is published"
    files[archive.name] = {"url": url, **found, "held_to": held_to, "unpacked": False}
    write()
    with progress_bar(f"unpacking {archive.name}", unit="MB") as bar:
        unpack(path, out, bar.advance)
    files[archive.name]["unpacked"] = True
    write()
    if not challenge.keep_archives:
        path.unlink()


def _checked(path: Path, archive: Archive) -> dict[str, Any]:
    """Return the size of a file, its MD5 (as the organisers publish it) and SHA-256."""
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    size = path.stat().st_size
    name = path.name.removesuffix(".part")
    with progress_bar(f"checking {name}", size, "MB") as bar, path.open("rb") as handle:
        while block := handle.read(1 << 22):
            md5.update(block)
            sha256.update(block)
            bar.advance(len(block))
    if archive.md5 and md5.hexdigest() != archive.md5:
        raise WrongContent(f"their MD5 is {md5.hexdigest()}, and {archive.md5} is published")
    return {"bytes": size, "md5": md5.hexdigest(), "sha256": sha256.hexdigest()}


def sizes(archives: Sequence[Archive]) -> str:
    """Format the published size of the downloads: `195 GB`."""
    total = sum(archive.size for archive in archives)
    return f"{total / 1e9:,.0f} GB" if total >= 1e9 else f"{total / 1e6:,.0f} MB"
