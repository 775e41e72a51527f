"""What an engine is, and what all engines share."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np

from fieldmark.utils.cpu import cores
from fieldmark.utils.typing import ByteArray, FloatArray

BATCH = 32  # crops run at once
_LARGE_WEIGHTS = 128 * 2**20  # bytes
PIECE = 4
"""ByteArray that a thread takes at once: their maps stay in its core's cache."""


class Engine(Protocol):
    """Runs a backbone's trunk. All but `cuda` may be called from several threads at a time."""

    name: str

    def __call__(self, crops_NSS3: ByteArray) -> FloatArray:
        """ByteArray, uint8 (N, S, S, 3), to features, float32 (N, D); any N."""
        ...


def check(crops_NSS3: ByteArray) -> None:
    """Raise TypeError for what no engine takes."""
    if crops_NSS3.dtype != np.uint8 or crops_NSS3.ndim != 4:
        raise TypeError(f"crops are uint8 (N, S, S, 3), not {crops_NSS3.dtype} {crops_NSS3.shape}")


def in_batches(
    run: Callable[[ByteArray], FloatArray], crops_NSS3: ByteArray, batch: int
) -> FloatArray:
    """Run at most `batch` crops at a time, so that memory does not grow with N."""
    check(crops_NSS3)
    starts = range(0, len(crops_NSS3), batch)
    return _joined(run, [run(part(crops_NSS3, at, batch)) for at in starts], crops_NSS3)


def piece_for(graph: Path) -> int:
    """How many crops at once suit a converted network, by the size of its weights.

    Large dense layers (AlexNet's are 220 MB) are read from memory once a piece, whatever it holds; for
    all other networks it is the maps that count. Measured: 4 instead of 16 crops at once cost AlexNet
    a fifth of its rate and bring ShuffleNet a fifth.
    """
    return 4 * PIECE if graph.stat().st_size > _LARGE_WEIGHTS else PIECE


def part(crops_NSS3: ByteArray, start: int, count: int) -> ByteArray:
    """Some of the crops, in one stretch of memory."""
    return np.ascontiguousarray(crops_NSS3[start : start + count])


def _joined(
    run: Callable[[ByteArray], FloatArray], parts: list[FloatArray], crops: ByteArray
) -> FloatArray:
    if len(parts) == 1:
        return parts[0]
    if parts:
        return np.concatenate(parts)
    side = crops.shape[1]  # no crops: how long a vector is, only a run can say
    return run(np.zeros((1, side, side, 3), np.uint8))[:0]


class Streams:
    """Runs a network in several threads, each on crops of its own.

    Threads that share one crop wait for each other at the end of every layer, and wait longest when
    one of them has lent its core to a decoder. Threads with crops of their own wait once a call, and
    the few crops that each has at once stay in the cache: a sixth less work for a small network.

    Args:
        run: runs some crops in the thread that calls it; is called from several threads at a time.
        batch: the most crops that `run` is to get.
        threads: how many threads there are; None: one a core.
        piece: how many crops a thread takes at once.
    """

    def __init__(
        self,
        run: Callable[[ByteArray], FloatArray],
        batch: int,
        threads: int | None = None,
        piece: int = PIECE,
    ) -> None:
        self._run = run
        self._threads = threads or cores()
        self._piece = min(piece, batch)
        self._pool = ThreadPoolExecutor(
            self._threads, thread_name_prefix="engine"
        )  # idle: no thread

    def __call__(self, crops_NSS3: ByteArray) -> FloatArray:
        """ByteArray, uint8 (N, S, S, 3), to features, float32 (N, D)."""
        check(crops_NSS3)
        piece = max(1, min(self._piece, -(-len(crops_NSS3) // self._threads)))
        starts = range(0, len(crops_NSS3), piece)
        if len(starts) <= 1:
            return in_batches(self._run, crops_NSS3, piece)
        parts = self._pool.map(lambda at: self._run(part(crops_NSS3, at, piece)), starts)
        return np.concatenate(list(parts))
