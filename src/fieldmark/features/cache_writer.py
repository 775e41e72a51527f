"""Append rows to a feature cache; see `cache.py` for its files and the order of writes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fieldmark.features.cache_files import KEY_BYTES, SUM_BYTES, all_finite, checksums, pack, sync, write_all
from fieldmark.utils.errors import InputError

SYNCED_EVERY = 30.0
"""Seconds between syncs: the work that a power cut can cost; a kill costs one batch."""


class Handles(NamedTuple):
    """The open files of a cache."""

    vectors: int
    keys: int  # index.bin
    sums: int
    marks: int  # unsynced.bin


class Writer:
    """Appends batches to a cache that is open for writing."""

    def __init__(
        self, folder: Path, dim: int, dtype: np.dtype[np.floating], count: int, handles: Handles
    ) -> None:
        self._folder, self._dim, self._dtype, self._files = folder, dim, dtype, handles
        self._count, self._when = count, time.monotonic()

    def append(self, keys: Sequence[str], x_BD: npt.NDArray[np.floating]) -> None:
        """Append one batch; once this returns, it survives a kill.

        Raises:
            InputError: the disk is full; earlier rows stay valid.
            ValueError: the vectors do not have the cache's shape, or are not finite in its data type.
        """
        with np.errstate(over="ignore"):  # overflow of float16 becomes infinite and is refused
            rows = np.ascontiguousarray(x_BD, dtype=self._dtype)
        if rows.shape != (len(keys), self._dim):
            raise ValueError(f"{len(keys)} keys of dimension {self._dim}, got {rows.shape}")
        if not all_finite(rows):
            raise ValueError(f"a vector is not finite in {self._dtype}")
        packed = pack(keys)
        try:
            write_all(self._files.sums, checksums(packed, rows))
            write_all(self._files.vectors, rows)
            write_all(self._files.keys, packed)
        except OSError as error:
            os.ftruncate(self._files.keys, self._count * KEY_BYTES)
            os.ftruncate(self._files.vectors, self._count * self._dim * self._dtype.itemsize)
            os.ftruncate(self._files.sums, self._count * SUM_BYTES)
            raise _refused(self._folder, error) from error
        self._count += len(keys)
        if time.monotonic() - self._when > SYNCED_EVERY:
            self.sync()

    def sync(self) -> None:
        """Wait until all rows are on the disk: then they survive a power cut.

        Raises:
            InputError: the disk is full, or broken.
        """
        with refusing(self._folder):
            sync(self._files.vectors, self._files.keys, self._files.sums)
            write_all(self._files.marks, np.array([self._count], np.uint64), at=0)
        self._when = time.monotonic()


@contextmanager
def refusing(folder: Path) -> Iterator[None]:
    """Raise an InputError for what the disk refuses to a cache in this folder."""
    try:
        yield
    except OSError as error:
        raise _refused(folder, error) from error


def _refused(folder: Path, error: OSError) -> InputError:
    return InputError(
        f"features could not be written to {folder} ({error.strerror}): free some space or name another "
        "folder with --cache, then run the same command again; it resumes."
    )
