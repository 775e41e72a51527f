"""Measure the peak memory of one process that verifies photos, or extracts features, by their number.

Generated photos of 32 x 32 pixels in tars. The network is replaced (a vector is the mean of the crop):
only the pipeline is measured.
"""

from __future__ import annotations

import io
import json
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from benchmarks.common import EXACT, Row, elsewhere, jpeg, peak_gib
from fieldmark.data import readers
from fieldmark.features import sharded
from fieldmark.features.cache import FeatureStore
from fieldmark.features.extractor import FeatureExtractor
from fieldmark.models import load

NETWORK = "shufflenet_v2_x0_5"
VERBS = ("index", "extract")
PHOTOS = (10_000, 100_000, 1_000_000)
IN_TAR = 10_000


def run(quick: bool = False) -> list[Row]:
    """Measure the peak of each command for increasing numbers of photos, against that for the fewest."""
    few, *more = (100, 300) if quick else PHOTOS
    found = []
    with tempfile.TemporaryDirectory() as name:
        for count in (few, *more):
            _tars(Path(name) / str(count), count)
        for verb in VERBS:
            said = {count: _elsewhere(verb, Path(name) / str(count)) for count in (few, *more)}
            found += [_row(verb, few, count, said) for count in more]
    return found


def _row(verb: str, few: int, count: int, said: dict[int, dict[str, float]]) -> Row:
    mib, least = said[count]["mib"], said[few]["mib"]
    photo = 2**20 * (mib - least) / (count - few)
    return Row(
        f"peak memory of {verb}, {count:,} photos",
        "MiB",
        mib,
        least,
        f"{few:,} photos",
        *[least / mib] * 3,
        EXACT,
        note=f"{photo:,.0f} bytes a photo more; {said[count]['rate']:,.0f} photos/s",
    )


def _tars(folder: Path, count: int) -> None:
    folder.mkdir()
    data = [jpeg(number, (32, 32)) for number in range(64)]
    for start in range(0, count, IN_TAR):
        with tarfile.open(folder / f"{start:08}.tar", "w") as archive:
            for number in range(start, min(count, start + IN_TAR)):
                # Bytes after the end of a JPEG are allowed, and make each photo different.
                photo = data[number % 64] + number.to_bytes(8, "little")
                about = tarfile.TarInfo(f"{number:08}.jpg")
                about.size = len(photo)
                archive.addfile(about, io.BytesIO(photo))


def _elsewhere(verb: str, photos: Path) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as cache:
        # On two threads everywhere: each has its own buffers.
        return elsewhere("memory", verb, photos, FIELDMARK_CACHE=cache, OMP_NUM_THREADS="2")


def _one(verb: str, photos: Path) -> dict[str, float]:
    """Run one task in this process: photos per second, and its peak memory."""
    start = time.perf_counter()
    if verb == "index":
        count = len(readers.read(photos))
    else:
        network = load(NETWORK, weights="random")
        extractor = FeatureExtractor(engine="onnxruntime", store=FeatureStore())
        with _without(network.architecture.feature_dim):
            count = sharded.extract_shard(sharded.read(photos), {NETWORK: network}, extractor).photos
    return {"mib": 1024 * peak_gib(), "rate": count / (time.perf_counter() - start)}


def _without(dim: int) -> Any:
    """Replace the network within a `with` block: a vector is the mean of the crop."""

    def mean(crops: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return np.repeat(crops[:, ::32, ::32].mean((1, 2, 3))[:, None], dim, 1).astype(np.float32)

    return patch.object(sharded.runtime, "engine", lambda *_, **__: mean)


if __name__ == "__main__":
    print(json.dumps(_one(sys.argv[1], Path(sys.argv[2]))))
