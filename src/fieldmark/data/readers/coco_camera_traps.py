"""COCO Camera Traps: COCO format with sequences and locations, as published by LILA BC.

https://lila.science/coco-camera-traps. The path is the `.json` (or `.json.gz`), with photos below its
folder, or a folder with one such list at its top. `seq_id` is the group. The category `empty` is a label
like any other; a photo with several categories is ambiguous; one marked `corrupt` is rejected. Boxes are
ignored.
"""

from __future__ import annotations

from pathlib import Path

from fieldmark.data.photos import PhotoTable
from fieldmark.data.readers import coco
from fieldmark.data.readers.base import Reader, no_photos
from fieldmark.data.readers.inat import annotation_files, part_of
from fieldmark.utils.errors import InputError
from fieldmark.utils.logging import progress_bar

_EXPECTS = "COCO Camera Traps (a .json with images, annotations, categories and seq_id or location)"


def list_in(path: Path) -> Path | None:
    """Return the only list at the top of a folder, or the path itself."""
    if not path.is_dir():
        return path if coco.is_camera_traps(path) else None
    found = lists_in(path)
    return found[0] if len(found) == 1 else None


def lists_in(folder: Path) -> list[Path]:
    """Return the lists at the top of a folder."""
    return [each for each in sorted(folder.iterdir()) if coco.is_camera_traps(each)]


def _read(path: Path) -> PhotoTable:
    found = path if path.is_file() else list_in(path)
    if found is None:
        several = ", ".join(each.name for each in lists_in(path))
        raise InputError(
            f"{path} holds several lists ({several}): name one of them."
            if several
            else f"{path} holds no list: expected is {_EXPECTS}."
        )
    with progress_bar("Reading annotations", unit="images") as bar:
        rows, categories = coco.read_listing(found, None)
        bar.advance(rows.height)
    if rows.is_empty():
        raise no_photos(path, "its list of images is empty")
    rows = coco.reject_invalid(coco.number_duplicates(rows), categories)
    taxonomy = coco.taxonomy_of(rows, categories, {})
    return PhotoTable(coco.frame_of(rows), taxonomy, found.parent, READER.name)


def _matches(path: Path) -> bool:
    if path.is_dir():
        return not annotation_files(path) and bool(lists_in(path))
    return not part_of(path) and list_in(path) is not None


READER = Reader("coco-camera-traps", _EXPECTS, _matches, _read)
