"""Lists of byte strings as tensors, and their validation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fieldmark.utils.typing import IntArray


class PackedStrings:
    """Byte strings, concatenated, and the end of each."""

    def __init__(self, blob: npt.NDArray[Any], ends: npt.NDArray[Any], count: int) -> None:
        require(blob.dtype == np.uint8 and blob.ndim == 1, "a list is not of bytes")
        self._blob, self._starts = blob, starts(ends, count, len(blob))

    def __getitem__(self, number: int) -> bytes:
        return self._blob[self._starts[number] : self._starts[number + 1]].tobytes()

    def text(self, number: int) -> str:
        """Return one of them as text; invalid bytes are replaced."""
        return self[number].decode(errors="replace")

    @staticmethod
    def tensors(name: str, pieces: Sequence[bytes]) -> dict[str, npt.NDArray[Any]]:
        """Return the strings as tensors."""
        ends = np.cumsum([len(piece) for piece in pieces], dtype=np.int64)
        return {name: np.frombuffer(b"".join(pieces), np.uint8), f"{name}_ends": ends}


def starts(ends: npt.NDArray[Any], count: int, total: int) -> IntArray:
    """Compute where each of `count` strings of total length `total` starts, and the final end."""
    require(ends.dtype == np.int64 and ends.shape == (count,), "a list has another length")
    starts = np.concatenate([np.zeros(1, np.int64), ends])
    require(bool((np.diff(starts) >= 0).all()), "a list is out of order")
    require(int(starts[-1]) == total, "a list is cut off")
    return starts


def require(holds: bool, why: str) -> None:
    """Raise `ValueError` with `why` if a condition does not hold."""
    if not holds:
        raise ValueError(why)
