"""COCO Camera Traps: COCO format with sequences and locations, as published by LILA BC.

https://lila.science/coco-camera-traps. The path is the `.json` (or `.json.gz`), with photos below its
folder, or a folder with one such list at its top. `seq_id` is the group. The category `empty` is a label
like any other; a photo with several categories is ambiguous; one marked `corrupt` is rejected. Boxes are
read by `box_files`.
"""

from __future__ import annotations

from pathlib import Path

from fieldmark.data.photos import PhotoTable
from fieldmark.data.readers import coco
from fieldmark.data.readers.base import Reader
from fieldmark.data.readers.inat import annotation_files, part_of
from fieldmark.utils.errors import InputError
from fieldmark.utils.logging import progress_bar

_EXPECTS = "COCO Camera Traps (a .json with images, annotations, categories and seq_id or location)"


def _lists_in(folder: Path) -> list[Path]:
    return [each for each in sorted(folder.iterdir()) if coco.is_camera_traps(each)]


def _read(path: Path) -> PhotoTable:
    lists = _lists_in(path) if path.is_dir() else [path]
    if len(lists) != 1:
        several = ", ".join(each.name for each in lists)
        raise InputError(
            f"{path} holds several lists ({several}): name one of them."
            if several
            else f"{path} holds no list: expected is {_EXPECTS}."
        )
    with progress_bar("Reading annotations", unit="images") as bar:
        rows, categories = coco.read_listing(lists[0], None)
        bar.advance(rows.height)
    rows = coco.number_duplicates(rows)
    return coco.to_photo_table(rows, categories, {}, path, lists[0].parent, READER.name)


def _matches(path: Path) -> bool:
    if path.is_dir():
        return not annotation_files(path) and bool(_lists_in(path))
    return not part_of(path) and coco.is_camera_traps(path)


READER = Reader("coco-camera-traps", _EXPECTS, _matches, _read)
