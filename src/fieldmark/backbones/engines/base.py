"""What an engine is, and what all engines share."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt

Crops = npt.NDArray[np.uint8]
Features = npt.NDArray[np.float32]

BATCH = 32  # crops run at once


class Engine(Protocol):
    """Runs a backbone's trunk. One engine is to be called from one thread at a time."""

    name: str

    def __call__(self, crops_NSS3: Crops) -> Features:
        """Crops, uint8 (N, S, S, 3), to features, float32 (N, D); any N."""
        ...


def cores() -> int:
    """How many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_batches(run: Callable[[Crops], Features], crops_NSS3: Crops, batch: int) -> Features:
    """Run at most `batch` crops at a time, so that memory does not grow with N."""
    if crops_NSS3.dtype != np.uint8 or crops_NSS3.ndim != 4:
        raise TypeError(f"crops are uint8 (N, S, S, 3), not {crops_NSS3.dtype} {crops_NSS3.shape}")
    starts = range(0, len(crops_NSS3), batch)
    parts = [run(np.ascontiguousarray(crops_NSS3[at : at + batch])) for at in starts]
    if len(parts) == 1:
        return parts[0]
    if parts:
        return np.concatenate(parts)
    side = crops_NSS3.shape[1]  # no crops: how long a vector is, only a run can say
    return run(np.zeros((1, side, side, 3), np.uint8))[:0]
