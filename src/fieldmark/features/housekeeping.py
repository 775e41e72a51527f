"""What is in the cache, whether the disk changed it, and what has not been used for long."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fieldmark.features.cache import FeatureCache
from fieldmark.utils import io
from fieldmark.utils.errors import InputError

KINDS = {
    "features": "features of photos",
    "graphs": "converted networks",
    "crops": "crops of boxes",
    "heads": "heads that `--quality best` tried",
    "tuned": "networks that it fine-tuned",
    "texts": "embeddings of names",
    "checkpoints": "checkpoints of fine-tuning",
}
"""The folders of the cache that can be computed again."""


@dataclass(frozen=True)
class Verified:
    """What was checked, and what the disk had changed, which is removed and computed again when needed."""

    vectors: int
    files: int
    damaged_vectors: int
    damaged_files: int


def sizes() -> dict[str, int]:
    """Return how many bytes each kind of the cache's content has on the disk."""
    return {kind: sum(map(_bytes, _files(io.cache_dir() / kind))) for kind in KINDS}


def verify() -> Verified:
    """Check all feature vectors, and all files that have a digest beside them.

    Raises:
        StoreError: another process is writing to a feature cache with damaged vectors.
    """
    vectors = damaged = files = damaged_files = 0
    for folder in sorted((io.cache_dir() / "features").glob("*/")):
        with suppress(InputError, KeyError, TypeError, ValueError):  # its description is damaged
            about = io.read_json(folder / "about.json")
            cache = FeatureCache(folder, int(about["dim"]), about["precision"])
            vectors, damaged = vectors + len(cache), damaged + cache.verify()
    for kind in KINDS:
        for seal in sorted((io.cache_dir() / kind).glob("*.sha256")):
            path, files = seal.with_suffix(""), files + 1
            if not io.is_sealed(path):
                damaged_files += 1
                path.unlink(missing_ok=True)
                seal.unlink(missing_ok=True)
    return Verified(vectors, files, damaged, damaged_files)


def prune(days: float) -> int:
    """Remove what was not used for so many days; returns how many bytes that were.

    A feature cache was used when it was last opened, another file when it was last written or, where the file
    system notes it, read.

    Raises:
        StoreError: another process is writing to such a feature cache.
    """
    before, removed = time.time() - 86_400 * days, 0
    for kind in KINDS:
        folder = io.cache_dir() / kind
        for path in sorted(folder.glob("*/") if kind == "features" else _files(folder)):
            used = path / "about.json" if path.is_dir() else path
            if used.exists() and max(used.stat().st_mtime, used.stat().st_atime) > before:
                continue
            removed += sum(map(_bytes, _files(path)))
            if path.is_dir():
                with io.lock(path / "lock"):
                    used.unlink(missing_ok=True)  # first: without it nothing counts
                    shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
    return removed


def _files(place: Path) -> Iterator[Path]:
    if place.is_file():
        yield place
    for folder, _, names in os.walk(place):
        yield from (Path(folder, name) for name in names)


def _bytes(path: Path) -> int:
    with suppress(OSError):  # it has gone
        return path.stat().st_size
    return 0
