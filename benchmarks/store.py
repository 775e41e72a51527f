"""Measure features to disk and back, against a plain NumPy memory map.

Ours appends batches under the SHA-256 of their photos, refuses numbers that are not finite, writes
vectors before keys and syncs in groups behind checksums: after a kill or a power failure the rest is
right. The memory map knows the number of rows beforehand, has no keys, and is flushed once, at its end.
Both are written in batches of 1,024 rows (as a GPU gives them) from float32, as an engine gives them,
to float16, and read back in blocks of 4,096 rows as float32. Needs 8 GB of disk.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.common import Row, alternate, compare, rounds
from fieldmark.features import cache
from fieldmark.features.cache import FeatureCache
from fieldmark.utils import io

ROWS, DIM, BATCH = 1_000_000, 2_048, 1_024
BLOCK = 4_096
AIM = 0.8
OURS, PEER = "feature store", "numpy.memmap, flushed once"
FIRST, AGAIN = "read for the first time, with checksums", "read again"


class _Store:
    """The same rows for both variants; each call starts from an empty file."""

    def __init__(self, folder: Path, rows: int) -> None:
        self.folder, self.rows = folder, rows
        self.keys = [io.sha256(str(number).encode()) for number in range(rows)]
        self.x_BD = np.random.default_rng(0).random((BATCH, DIM), np.float32)
        self.starts = range(0, rows, BATCH)

    def _rate(self, start: float) -> float:
        return self.rows * DIM * 2 / (time.perf_counter() - start) / 1e9

    def write_ours(self) -> float:
        for path in (self.folder / "ours").glob("*"):
            path.unlink()
        store = FeatureCache(self.folder / "ours", DIM, "float16")
        start = time.perf_counter()
        with store.writing() as writer:
            for at in self.starts:
                keys = self.keys[at : at + BATCH]
                writer.append(keys, self.x_BD[: len(keys)])
        return self._rate(start)

    def write_plain(self) -> float:
        path = self.folder / "plain.bin"
        path.unlink(missing_ok=True)
        start = time.perf_counter()
        rows = np.memmap(path, np.float16, mode="w+", shape=(self.rows, DIM))
        for at in self.starts:
            part = rows[at : at + BATCH]
            part[:] = self.x_BD[: len(part)]
        rows.flush()
        return self._rate(start)

    def read_ours(self) -> float:
        store = FeatureCache(self.folder / "ours", DIM, "float16")
        start = time.perf_counter()
        for _, x_BD in store.get(self.keys).blocks(BLOCK):
            assert x_BD.dtype == np.float32
        return self._rate(start)

    def read_first(self) -> float:
        """Read as a process that has not read these rows yet: it compares them with their checksums."""
        cache._SOUND.clear()
        return self.read_ours()

    def read_plain(self) -> float:
        start = time.perf_counter()
        path = self.folder / "plain.bin"
        rows = np.memmap(path, np.float16, mode="r", shape=(self.rows, DIM))
        for at in range(0, self.rows, BLOCK):
            rows[at : at + BLOCK].astype(np.float32)
        return self._rate(start)


def run(quick: bool = False) -> list[Row]:
    """Measure appending and reading back, in GB of features per second."""
    rows = 5_000 if quick else ROWS
    with tempfile.TemporaryDirectory(dir=_disk()) as folder:
        store = _Store(Path(folder), rows)
        written = alternate({OURS: store.write_ours, PEER: store.write_plain}, rounds(quick))
        ways = {OURS: store.read_ours, PEER: store.read_plain}  # what the last round has written
        read = alternate(ways, rounds(quick), warm_up=True)
        checked = alternate({FIRST: store.read_first, AGAIN: store.read_ours}, rounds(quick), warm_up=True)
    shape = f"{rows:,} x {DIM:,}"
    return [
        _row(f"write {shape}", written),
        _row(f"read {shape}", read),
        compare(f"checksums of {shape}", checked, FIRST, AGAIN, unit="GB/s", more_is_better=True, aim=0.95),
    ]


def _row(what: str, values: dict[str, list[float]]) -> Row:
    return compare(what, values, OURS, PEER, unit="GB/s", more_is_better=True, aim=AIM)


def _disk() -> Path:
    """Return a folder on the disk of the feature cache, not in memory."""
    folder = io.cache_dir()
    folder.mkdir(parents=True, exist_ok=True)
    return folder
