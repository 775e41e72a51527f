"""Measure the limits of the machine and the share that each stage reaches: shares, not speed-ups.

Here the peer of a stage is the machine itself: the rate of a matrix product in float32 for the
networks and the heads, of libjpeg-turbo's decoding alone for photos to crops, and of copying memory for
reading cached features. A ratio of 0.8 means that the stage runs at 80 % of that limit. A network cannot
always reach the limit of a matrix product (grouped and depthwise convolutions move more bytes per
multiplication), and an engine can exceed it where it needs fewer multiplications than the definition
counts (Winograd).

`more` of the first row has the constants of the cost model in docs/performance.md.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import common
from benchmarks.common import Row, alternate, compare
from fieldmark.utils import io

NETWORKS = (
    *("shufflenet_v2_x0_5", "squeezenet1_1", "tf_efficientnet_lite0"),
    *("alexnet", "densenet121", "resnext50_32x4d"),
)
PHOTO = (800, 600)
"""Width and height of a photo like those of the iNaturalist challenges."""


def run(quick: bool = False, networks: tuple[str, ...] = NETWORKS) -> list[Row]:
    """Return a row per stage, each against the machine's limit measured in the same round."""
    count = common.rounds(quick)
    rows = [_network(name, count, quick) for name in networks]
    rows += [_head(count, quick), _decoding(count, quick), _reading(count, quick)]
    io.cache_dir().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=io.cache_dir()) as folder:  # the disk that features use
        disk = alternate(_disk(Path(folder), 32 if quick else 256), count)
    constants = {
        "disk_write_gb_per_second": float(np.median(disk["write"])),
        "disk_read_gb_per_second": float(np.median(disk["read"])),
    }
    rows[0].more.update(constants)
    return rows


# --- the limits ------------------------------------------------------------------------------------


def matrix_product(side: int) -> Callable[[], float]:
    """Measure a square matrix product on all cores, in GFLOP/s of float32.

    The better of PyTorch's and NumPy's: the faster library depends on the processor.
    """
    import torch

    a_SS = np.random.default_rng(0).random((side, side), np.float32)
    t_SS = torch.from_numpy(a_SS)

    def rate(product: Callable[[], object]) -> float:
        start = time.perf_counter()
        for _ in range(3):
            product()
        return 3 * 2 * side**3 / (time.perf_counter() - start) / 1e9

    return lambda: max(rate(lambda: a_SS @ a_SS), rate(lambda: t_SS @ t_SS))


def memory_copy(megabytes: int) -> Callable[[], float]:
    """Measure the rate of copying memory on all cores, in GB/s read (as many are written)."""
    import torch

    source = torch.zeros(megabytes * 2**20, dtype=torch.uint8)
    target = torch.empty_like(source)
    target.copy_(source)

    def way() -> float:
        start = time.perf_counter()
        target.copy_(source)
        return len(source) / (time.perf_counter() - start) / 1e9

    return way


def _disk(folder: Path, megabytes: int) -> dict[str, Callable[[], float]]:
    """Measure writing and syncing a file, and reading it back from the disk, in GB/s."""
    path = folder / "file"
    block = np.random.default_rng(0).integers(0, 256, 2**20, dtype=np.uint8).tobytes()

    def write() -> float:
        start = time.perf_counter()
        with path.open("wb") as handle:
            for _ in range(megabytes):
                handle.write(block)
            handle.flush()
            os.fsync(handle.fileno())
        return megabytes * len(block) / (time.perf_counter() - start) / 1e9

    def read() -> float:
        if not path.exists():
            write()
        with path.open("rb") as handle:
            if hasattr(os, "posix_fadvise"):  # otherwise it would be read from memory
                os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            start = time.perf_counter()
            while handle.read(2**20):
                pass
            return megabytes * len(block) / (time.perf_counter() - start) / 1e9

    return {"write": write, "read": read}


# --- the stages ------------------------------------------------------------------------------------


def _network(name: str, count: int, quick: bool) -> Row:
    from fieldmark import models
    from fieldmark.models import runtime

    backbone = models.load(name, weights="random")
    engine = runtime.engine(backbone, "torch" if quick else "auto")
    facts = backbone.architecture
    batch = 2 if quick else runtime.BATCH
    shape = (batch, facts.input_size, facts.input_size, 3)
    crops = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)

    def forward() -> float:
        start = time.perf_counter()
        engine(crops)
        return 2 * facts.giga_macs * batch / (time.perf_counter() - start)

    limit = "a matrix product of the machine"
    ways = {"ours": forward, limit: matrix_product(256 if quick else 1536)}
    values = alternate(ways, count, warm_up=True)
    rate = float(np.median(values["ours"])) / (2 * facts.giga_macs)
    more = {
        "network": name,
        "giga_macs": facts.giga_macs,
        "dim": facts.feature_dim,
        "engine": engine.name,
        "photos_per_second": rate,
    }
    note = f"{engine.name}, {common.figure(rate)} crops/s"
    return compare(name, values, "ours", limit, unit="GFLOP/s", more_is_better=True, note=note, more=more)


def _head(count: int, quick: bool) -> Row:
    """Measure one epoch of the last layer on cached features: 6 N D C operations, and the update."""
    from fieldmark.heads.softmax import Hyperparameters, Training, fit

    photos, dim, classes = (256, 32, 8) if quick else (4096, 2048, 1000)
    train, val = _labelled(photos, dim, classes), _labelled(64, dim, classes)

    def epoch() -> float:
        start = time.perf_counter()
        fit(train, val, classes, Training(epochs=1), Hyperparameters())
        return 6e-9 * photos * dim * classes / (time.perf_counter() - start)

    limit = "a matrix product of the machine"
    ways = {"ours": epoch, limit: matrix_product(256 if quick else 1536)}
    values = alternate(ways, count, warm_up=True)
    return compare(
        f"last layer, D={dim:,}, C={classes:,}",
        values,
        "ours",
        limit,
        unit="GFLOP/s",
        more_is_better=True,
        more={"photos": photos, "dim": dim, "classes": classes},
    )


def _labelled(count: int, dim: int, classes: int) -> Any:
    from fieldmark.features.cache import Features
    from fieldmark.features.labelled import LabelledFeatures

    random = np.random.default_rng(0)
    x_ND = random.standard_normal((count, dim), dtype=np.float32).astype(np.float16)
    labels = random.integers(0, classes, count)
    return LabelledFeatures(Features.of(x_ND), labels, tuple(map(str, range(count))))


def _decoding(count: int, quick: bool) -> Row:
    """Measure photos to crops on all cores against libjpeg-turbo's decoding alone, without resizing."""
    import simplejpeg

    from benchmarks.decode import photo
    from fieldmark.data.transforms import PAPER_CROP

    data = photo(*PHOTO)
    photos = 4 if quick else 128

    def rate(call: Callable[[bytes], object]) -> Callable[[], float]:
        def way() -> float:
            start = time.perf_counter()
            with ThreadPoolExecutor(common.cores()) as pool:
                for _ in pool.map(call, [data] * photos):
                    pass
            return photos / (time.perf_counter() - start)

        return way

    limit = "libjpeg-turbo's decoding alone"
    ways = {"ours": rate(PAPER_CROP.crop), limit: rate(simplejpeg.decode_jpeg)}
    return compare(
        f"decode + resize, {PHOTO[0]} x {PHOTO[1]}",
        alternate(ways, count, warm_up=True),
        "ours",
        limit,
        unit="photos/s",
        more_is_better=True,
        more={"bytes": len(data)},
    )


def _reading(count: int, quick: bool) -> Row:
    """Measure cached features, float16, to float32 in the order of an epoch, against copying memory."""
    from fieldmark.features.cache import Features

    photos, dim = (256, 64) if quick else (20_000, 2048)
    features = Features.of(np.zeros((photos, dim), np.float16))
    order = np.random.default_rng(0).permutation(photos)

    def read() -> float:
        start = time.perf_counter()
        for at in range(0, photos, 64):
            _ = features[order[at : at + 64]]
        return photos * dim * 2 / (time.perf_counter() - start) / 1e9

    limit = "copying memory"
    ways = {"ours": read, limit: memory_copy(8 if quick else 256)}
    return compare(
        "reading kept features in random order",
        alternate(ways, count, warm_up=True),
        "ours",
        limit,
        unit="GB/s",
        more_is_better=True,
    )
