"""Pictures of photos for pages: thumbnails with a cache on disk, large ones, and similar training photos."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from fieldmark.app.store import Photo, Project
from fieldmark.data import images
from fieldmark.inference import neighbours
from fieldmark.inference.classifier import Classifier
from fieldmark.utils import io
from fieldmark.utils.errors import FieldmarkError, ImageRejected

THUMB, LARGE = 256, 1600
"""Pixels of the longer side."""


@dataclass(frozen=True)
class Alike:
    """A training photo that is similar to a photo: its species, the cosine, and a small JPEG."""

    name: str
    similarity: float
    jpeg: bytes | None


def thumbnail(project: Project, photo: Photo) -> bytes | None:
    """Return a small JPEG of a photo, from the cache if its file is the same; None if it cannot be read."""
    try:
        about = photo.path.stat()
    except OSError:
        return None
    name = io.digest([os.fspath(photo.path), about.st_mtime_ns, about.st_size])
    kept = project.folder / "thumbnails" / name[:2] / f"{name}.jpg"
    if kept.exists():
        return kept.read_bytes()
    data = picture(photo.path, THUMB)
    if data is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        io.write_bytes(kept, data, durable=False)
    return data


def picture(path: Path, side: int) -> bytes | None:
    """Return a photo of any format as a JPEG of at most this side; None if it cannot be read."""
    try:
        pixels_HW3 = images.decode(images.read_bytes(path), at_least=side)
    except ImageRejected:
        return None
    return neighbours.thumbnail(pixels_HW3, side, quality=85)


def alike(classifier: Path, photo: Path, count: int = 6) -> list[Alike]:
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
