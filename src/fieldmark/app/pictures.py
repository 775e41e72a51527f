"""Pictures of photos for pages: thumbnails with a cache on disk, large ones, and similar training photos."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from fieldmark.app.store import Photo
from fieldmark.data import images
from fieldmark.data.storage import places
from fieldmark.data.storage.places import Box, Boxed
from fieldmark.inference import neighbours
from fieldmark.inference.classifier import Classifier
from fieldmark.inference.record import box_in
from fieldmark.utils import io
from fieldmark.utils.errors import FieldmarkError, ImageRejected
from fieldmark.utils.typing import ByteArray

THUMB, LARGE = 256, 1600
"""Pixels of the longer side."""
_LIGHT, _DARK = (255, 176, 32), (32, 24, 8)  # of a frame


@dataclass(frozen=True)
class Alike:
    """A training photo that is similar to a photo: its species, the cosine, and a small JPEG."""

    name: str
    similarity: float
    jpeg: bytes | None


def thumbnails_of(project: Path) -> Path:
    """Return the folder of the small pictures of a project in a folder."""
    return project / "thumbnails"


def thumbnail(folder: Path, place: Path | Boxed) -> bytes | None:
    """Return a small JPEG of a photo, or the crop of a box; None if it cannot be read.

    It is kept in the folder for as long as the file is the same.
    """
    if (stamp := places.stamp(place)) is None:
        return None
    name = io.digest([str(place), *stamp])
    kept = folder / name[:2] / f"{name}.jpg"
    if kept.exists():
        return kept.read_bytes()
    try:
        pixels_HW3 = images.decode(images.read_bytes(place), at_least=THUMB)
    except ImageRejected:
        return None
    data = neighbours.thumbnail(pixels_HW3, THUMB, quality=85)
    kept.parent.mkdir(parents=True, exist_ok=True)
    io.write_bytes(kept, data, durable=False)
    return data


def large(photo: Photo) -> bytes | None:
    """Return a whole photo as a large JPEG, with a frame around its box; None if it cannot be read."""
    try:
        data = images.read_bytes(photo.path)
        pixels_HW3 = images.decode(data, at_least=LARGE)
        found = photo.record.get("detection")
        if box := photo.box or (box_in(found) if found else None):
            pixels_HW3 = _framed(pixels_HW3, images.box_shown(box, data))
    except ImageRejected:
        return None
    return neighbours.thumbnail(pixels_HW3, LARGE, quality=85)


def _framed(pixels_HW3: ByteArray, box: Box) -> ByteArray:
    """Return a copy with a frame around a box: light with a dark border, so that it is seen on any ground."""
    height, width = pixels_HW3.shape[:2]
    line = max(2, max(height, width) // 400)
    left, right = (round(width * each) for each in (box.left, box.left + box.width))
    top, bottom = (round(height * each) for each in (box.top, box.top + box.height))
    framed = pixels_HW3.copy()
    for wide, colour in ((3 * line, _DARK), (2 * line, _LIGHT), (0, None)):
        rows = slice(max(0, top - wide), max(0, bottom + wide))
        columns = slice(max(0, left - wide), max(0, right + wide))
        framed[rows, columns] = pixels_HW3[rows, columns] if colour is None else colour
    return framed


def alike(classifier: Path, photo: Path | Boxed, count: int = 6) -> list[Alike]:
    """Return the training photos most similar to a photo; nothing where that cannot be told."""
    try:
        found = _loaded(classifier)
        index = neighbours.load_index(found)
        if index is None:
            return []
        near = neighbours.similar(found, found.crop(photo)[0], count)
    except FieldmarkError:
        return []
    shown = [(each, index.picture(each)) for each in near]
    return [
        Alike(
            each.taxon.name,
            each.similarity,
            None if pixels is None else neighbours.thumbnail(pixels, 160, quality=80),
        )
        for each, pixels in shown
    ]


@lru_cache(maxsize=1)
def _loaded(folder: Path) -> Classifier:
    return Classifier.load(folder)
