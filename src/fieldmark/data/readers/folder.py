"""A folder for each class: `PHOTOS/<class>/...jpg`, or `PHOTOS/<train, val, test>/<class>/...jpg`.

The class is the first folder below `PHOTOS` (below the part, where there are parts); nested folders
belong to it. Every file is a row: what is not a photo is rejected with its reason. Photos directly in
`PHOTOS` are unlabelled where there are no class folders, and rejected otherwise. The same holds for a
part: only a test part may have photos without classes.
"""

from __future__ import annotations

import logging
import os
import unicodedata
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import polars as pl

from fieldmark.data.photos import PhotoTable, build_frame
from fieldmark.data.readers.base import Reader, binomial, may_be_image, no_photos, part_named
from fieldmark.data.taxonomy import Taxon, Taxonomy
from fieldmark.utils.errors import InputError, RejectReason

logger = logging.getLogger(__name__)

_SIDE_FILES = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"})
_HIDDEN_FOLDERS = frozenset({"__macosx", "@eadir", "$recycle.bin", "lost+found"})

_EXPECTS = "a folder for each class with its photos in it (PHOTOS/<class>/photo.jpg)"


class _Found(NamedTuple):
    """One file: its folder names and file name, and why it is not a photo (or None)."""

    parts: tuple[str, ...]
    reason: RejectReason | None

    @property
    def path(self) -> str:
        # A table cannot hold a name that is not valid Unicode: its invalid bytes are escaped.
        return "/".join(self.parts).encode("utf-8", "backslashreplace").decode()


def _read(path: Path) -> PhotoTable:
    if not path.is_dir():
        raise InputError(f"{path} is not a folder: expected is {_EXPECTS}.")
    found = list(_walk(path, (), set(), path.resolve()))
    outside = [file for file in found if file.reason is RejectReason.OUTSIDE]
    if outside:
        logger.info(
            f"{len(outside):,} links in {path} lead out of it and are not followed, {outside[0].path} for "
            "one: copy what they lead to, or name it as a source of its own (fieldmark merge)."
        )
    if not any(file.reason is None for file in found):
        raise no_photos(path, f"expected is {_EXPECTS}")
    has_parts = _has_parts(found)
    placed = [_place(file.parts[:-1], has_parts) for file in found]
    labelled = any(
        label is not None and not file.reason for file, (_, label) in zip(found, placed, strict=True)
    )
    rows = []
    for file, (part, label) in zip(found, placed, strict=True):
        unlabelled = labelled and label is None and part != "test"
        reason = file.reason or (RejectReason.NO_LABEL if unlabelled else None)
        rows.append((file.path, None if reason else label, part, reason and reason.value))
    columns = dict.fromkeys(("path", "taxon_id", "split", "reason"), pl.String)
    frame = build_frame(pl.DataFrame(rows, columns, orient="row").with_columns(id="path"))
    return PhotoTable(frame, _taxonomy(sorted(frame["taxon_id"].drop_nulls().unique())), path, READER.name)


def _walk(folder: Path, parts: tuple[str, ...], seen: set[tuple[int, int]], root: Path) -> Iterator[_Found]:
    """Yield every file below `folder`, sorted by name; a folder with several links is read once, and one
    outside of `root` never: whoever packed the photos could otherwise have any folder read."""
    try:
        about = folder.stat()
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        yield _Found(parts, RejectReason.UNREADABLE)
        return
    if (about.st_dev, about.st_ino) in seen:
        yield _Found(parts, RejectReason.REPEATED_FOLDER)
        return
    seen.add((about.st_dev, about.st_ino))
    # Links come last: a folder is read in its own place, and rejected as repeated behind a link.
    folders = sorted(filter(_is_folder, entries), key=lambda entry: entry.is_symlink())
    for entry in entries:
        if not _is_folder(entry):
            yield _Found((*parts, entry.name), _no_photo((*parts, entry.name), entry))
    for entry in folders:
        below = (*parts, entry.name)
        if entry.is_symlink() and not Path(entry.path).resolve().is_relative_to(root):
            yield _Found(below, RejectReason.OUTSIDE)
        else:
            yield from _walk(folder / entry.name, below, seen, root)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    with suppress(OSError):  # a link to itself
        return entry.is_dir()
    return False


def _exists(entry: os.DirEntry[str]) -> bool:
    with suppress(OSError):
        entry.stat()
        return True
    return False


def _no_photo(parts: tuple[str, ...], entry: os.DirEntry[str]) -> RejectReason | None:
    name = entry.name.lower()
    hidden = any(part.startswith(".") or part.lower() in _HIDDEN_FOLDERS for part in parts)
    if hidden or name in _SIDE_FILES:
        return RejectReason.SIDE_FILE
    try:
        "".join(parts).encode()
    except UnicodeEncodeError:
        return RejectReason.UNREADABLE
    # Reading a pipe or a device would block; a broken link is found when files are checked.
    broken = entry.is_symlink() and not _exists(entry)
    if not broken and not entry.is_file():
        return RejectReason.UNREADABLE
    return None if may_be_image(name) else RejectReason.NOT_AN_IMAGE


def _has_parts(found: list[_Found]) -> bool:
    """Return whether the first folders are parts: a `train` with folders in it, or only parts."""
    photos = [file.parts for file in found if file.reason is None and len(file.parts) > 1]
    tops = {parts[0] for parts in photos}
    with_classes = {part_named(parts[0]) for parts in photos if len(parts) > 2}
    return "train" in with_classes or (bool(tops) and all(part_named(top) for top in tops))


def _place(folders: tuple[str, ...], has_parts: bool) -> tuple[str | None, str | None]:
    """Return the part and the class of a photo by its folders, None where there is none."""
    part = part_named(folders[0]) if has_parts and folders else None
    if has_parts and part is None:
        return None, None
    below = folders[1:] if part else folders
    # macOS and Linux write an umlaut differently; it is the same class.
    return part, unicodedata.normalize("NFC", below[0]) if below else None


def _taxonomy(names: list[str]) -> Taxonomy:
    """Name the taxa after the folders, with genus and species where the names are scientific.

    `Black bear` looks like a scientific name too, so at least half of the folders must look like one.
    """
    scientific = {name: pair for name in names if (pair := binomial(name))}
    if 2 * len(scientific) < len(names):
        scientific = {}
    return Taxonomy(
        Taxon(
            id=name,
            name=scientific[name][1] if name in scientific else name.replace("_", " "),
            ranks=dict(zip(("genus", "species"), scientific.get(name, ()), strict=False)),
        )
        for name in names
    )


READER = Reader("folder", _EXPECTS, Path.is_dir, _read)
