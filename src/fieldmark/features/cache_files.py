"""Keys, checksums and writes of the files of a feature cache."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fieldmark.utils.typing import IntArray

Checksums = npt.NDArray[np.uint64]
KEY_BYTES = 32
SUM_BYTES = 8


class KeyLookup(NamedTuple):
    """The keys of a cache, sorted.

    Attributes:
        heads: their first eight bytes, four times as fast to search; None where two keys share them.
        order: the row of each key.
        known: the keys.
    """

    heads: Checksums | None
    order: IntArray
    known: npt.NDArray[np.bytes_]

    @classmethod
    def of(cls, keys: npt.NDArray[np.bytes_]) -> KeyLookup:
        """Sort some keys."""
        heads = heads_of(keys)
        order = np.argsort(heads, kind="stable")
        heads = heads[order]
        if (heads[1:] == heads[:-1]).any():
            order = np.argsort(keys, kind="stable")
            return cls(None, order, keys[order])
        return cls(heads, order, keys[order])


def all_finite(rows: npt.NDArray[np.floating]) -> bool:
    """Return whether all values are finite."""
    if rows.dtype == np.float16:
        # By the bits of the exponent, which is much faster than NumPy's isfinite.
        positive, negative = rows.view(np.int16).max(initial=0), rows.view(np.uint16).max(initial=0)
        return bool(positive < 0x7C00 and negative < 0xFC00)
    return bool(np.isfinite(rows).all())


def pack(keys: Sequence[str]) -> npt.NDArray[np.bytes_]:
    """Pack hexadecimal SHA-256 digests; shape (N,)."""
    raw = bytes.fromhex("".join(keys))
    if len(raw) != KEY_BYTES * len(keys):
        raise ValueError("a feature's key is a SHA-256 digest in hexadecimal")
    return np.frombuffer(raw, f"S{KEY_BYTES}")


def heads_of(keys: npt.NDArray[np.bytes_]) -> Checksums:
    """Return the first eight bytes of each key as a number; shape (N,)."""
    return np.ascontiguousarray(keys.view(np.uint64).reshape(-1, KEY_BYTES // 8)[:, 0])


def consecutive(known: npt.NDArray[np.bytes_], wanted: npt.NDArray[np.bytes_]) -> int | None:
    """Return the first row of photos in consecutive rows, as a first run leaves them.

    This saves sorting and searching, a tenth of the time of reading the vectors. Not tried for a small
    part of the cache: many such requests are faster with sorted keys.
    """
    if 2 * len(wanted) < len(known):
        return None
    heads = heads_of(known) == heads_of(wanted[:1])
    start = int(heads.argmax()) if heads.size else 0
    found = known[start : start + len(wanted)]
    return start if np.array_equal(found.view(np.uint64), wanted.view(np.uint64)) else None


def checksums(keys: npt.NDArray[np.bytes_], rows: npt.NDArray[np.floating]) -> Checksums:
    """Return a checksum of each row's key and vector, modulo 2**64; shape (N,).

    Sums, at the speed of memory, detect a row that was never written to disk, and any flipped bit.
    """
    of_keys = keys.view(np.uint64).reshape(len(keys), -1).sum(1)
    sums: Checksums = of_keys + _words(rows).sum(1, dtype=np.uint64)
    return sums


def checksum(keys: npt.NDArray[np.bytes_], rows: npt.NDArray[np.floating]) -> np.uint64:
    """Return the sum of the checksums of some rows, at the speed of memory.

    One flipped bit changes it. Damage of two rows could cancel out; that of one row, in its own sum, as well.
    """
    with np.errstate(over="ignore"):
        total: np.uint64 = keys.view(np.uint64).sum() + _words(rows).sum(dtype=np.uint64)
    return total


def _words(rows: npt.NDArray[np.floating]) -> npt.NDArray[np.unsignedinteger]:
    """Return the bytes of each row as numbers, as wide as they fit in."""
    return rows.view(np.uint64 if rows.shape[1] * rows.itemsize % 8 == 0 else np.uint16)


def write_all(handle: int, data: npt.NDArray[Any], at: int | None = None) -> None:
    """Write an array's bytes at an offset, or at the current position."""
    view = memoryview(data.view(np.uint8).reshape(-1).data)
    if at is not None:
        os.lseek(handle, at, os.SEEK_SET)  # Windows has no call that does both
    while view:
        view = view[os.write(handle, view) :]


def sync(*handles: int) -> None:
    """Sync files to disk."""
    for handle in handles:
        os.fsync(handle)


def size_of(path: Path) -> int:
    """Return the bytes of a file; 0 where there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
