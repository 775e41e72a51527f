"""FeatureStore: computed feature vectors on disk, by what they were computed from.

The features of a photo depend on its bytes, the preprocessing, the backbone's weights and the data type.
The last three select a cache, the photo's digest a row in it. A cache consists of two append-only files:

    vectors.bin   row after row of D numbers (float16, or float32 for comparisons to the last digit)
    index.bin     row after row of 32 bytes: the SHA-256 of the photo

A key never belongs to a wrong vector. After a kill this follows from the order of writes: a batch's
vectors are written before its keys, and a torn row is truncated when the cache is next opened for
writing. A power cut keeps no order, so rows are trusted only after a sync (every half a minute) or if
their checksums match.
While a cache is open for writing there is a third file:

    unsynced.bin  8 bytes: how many rows are synced; then, for each later row, 8 bytes: a checksum

One process writes to a cache. Several processes write to segments, caches of their own in the folder
`segments`, whose rows are then moved to the cache.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from fieldmark.features.cache_files import (
    KEY_BYTES,
    KeyLookup,
    all_finite,
    checksums,
    consecutive,
    heads_of,
    pack,
    sync,
    write_all,
)
from fieldmark.utils import io
from fieldmark.utils.errors import InputError, StoreError
from fieldmark.utils.typing import FloatArray, IntArray

FeatureDtype = Literal["float16", "float32"]

SYNCED_EVERY = 30.0
"""Seconds between syncs: the work that a power cut can cost; a kill costs one batch."""


@dataclass(frozen=True)
class Features:
    """The vectors of some photos, x_ND, read from disk when they are needed.

    Attributes:
        vectors: all rows of the cache, shape (rows, D), as a memory map.
        rows: the row of each of the N photos, shape (N,).
    """

    vectors: npt.NDArray[np.floating]
    rows: IntArray

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def dim(self) -> int:
        """Return D, the length of a vector."""
        return int(self.vectors.shape[1])

    def __getitem__(self, index: IntArray | slice) -> FloatArray:
        """Read the vectors of some of the photos as float32, shape (len(index), D)."""
        rows = self.rows[index]
        if len(rows) and (np.diff(rows) == 1).all():  # consecutive: converted as it is read
            return np.array(self.vectors[rows[0] : rows[-1] + 1], dtype=np.float32)
        return np.asarray(self.vectors[rows], dtype=np.float32)

    def take(self, index: IntArray) -> Features:
        """Select some of the photos, in the order given, without reading a vector."""
        return Features(self.vectors, self.rows[index])

    def blocks(self, size: int = 4096) -> Iterator[tuple[int, FloatArray]]:
        """Yield all vectors in order, in blocks of at most `size`: (first photo's number, x_BD)."""
        for start in range(0, len(self), size):
            yield start, self[slice(start, start + size)]

    @classmethod
    def of(cls, x_ND: npt.NDArray[np.floating]) -> Features:
        """Wrap vectors in memory."""
        return cls(x_ND, np.arange(len(x_ND)))


class FeatureCache:
    """The vectors of one backbone and one preprocessing in one data type."""

    def __init__(self, folder: Path, dim: int, dtype: FeatureDtype) -> None:
        self.folder = folder
        self.dim = dim
        self.dtype: np.dtype[np.floating] = np.dtype(dtype)
        self._sorted: KeyLookup | None = None
        self._checked = 0  # rows known to be valid
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{folder} cannot be written to ({error.strerror}): name another folder with --cache."
            ) from error

    @property
    def _vectors(self) -> Path:
        return self.folder / "vectors.bin"

    @property
    def _index(self) -> Path:
        return self.folder / "index.bin"

    @property
    def _row_bytes(self) -> int:
        return self.dim * self.dtype.itemsize

    @property
    def _unsynced(self) -> Path:
        return self.folder / "unsynced.bin"

    def __len__(self) -> int:
        """Return how many rows are valid: a key and its vector."""
        whole = min(_size(self._vectors) // self._row_bytes, _size(self._index) // KEY_BYTES)
        try:
            marks = np.frombuffer(self._unsynced.read_bytes(), np.uint64)
        except FileNotFoundError:  # no writer, and the last one finished
            return whole
        except ValueError:  # a torn checksum: those before it are complete
            raw = self._unsynced.read_bytes()
            marks = np.frombuffer(raw[: len(raw) // 8 * 8], np.uint64)
        synced = int(marks[0]) if len(marks) else 0
        self._checked = max(self._checked, min(synced, whole))
        last = min(whole, synced + len(marks) - 1)
        if last > self._checked:
            self._checked += self._count_valid(self._checked, marks[1 + self._checked - synced :], last)
        return self._checked

    def _count_valid(self, first: int, marks: npt.NDArray[np.uint64], last: int) -> int:
        """Count the rows from `first` up to `last` before the first with a wrong checksum."""
        shape = (last, self.dim)
        vectors = np.memmap(self._vectors, self.dtype, mode="r", shape=shape)[first:]
        offset, count = first * KEY_BYTES, (last - first) * KEY_BYTES
        keys = np.fromfile(self._index, np.uint8, count, offset=offset).view(f"S{KEY_BYTES}")
        wrong = np.flatnonzero(checksums(keys, vectors) != marks[: len(vectors)])
        return int(wrong[0]) if len(wrong) else len(vectors)

    def rows(self, keys: Sequence[str]) -> IntArray:
        """Return the row of each photo, -1 where it is not in the cache; shape (N,).

        Args:
            keys: SHA-256 digests of photos in hexadecimal.
        """
        wanted = pack(keys)
        if self._sorted is None or len(self._sorted.known) != len(self):
            known = self._keys()
            if (start := consecutive(known, wanted)) is not None:
                return np.arange(start, start + len(wanted))
            self._sorted = KeyLookup.of(known)
        heads, order, known = self._sorted
        if not len(known):
            return np.full(len(keys), -1, np.int64)
        if heads is None:
            place = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
        else:
            place = np.minimum(np.searchsorted(heads, heads_of(wanted)), len(known) - 1)
        return np.where(known[place] == wanted, order[place], -1)

    def _keys(self) -> npt.NDArray[np.bytes_]:
        """Read the keys of all rows in their order; shape (rows,)."""
        count = len(self)
        raw = np.fromfile(self._index, np.uint8, count * KEY_BYTES) if count else _NO_BYTES
        return raw.view(f"S{KEY_BYTES}")

    def get(self, keys: Sequence[str]) -> Features:
        """Return the vectors of some photos.

        Raises:
            StoreError: a photo is not in the cache.
        """
        rows = self.rows(keys)
        if (rows < 0).any():
            missing = int((rows < 0).sum())
            raise StoreError(f"{missing} of {len(keys)} photos have no features in {self.folder}.")
        if not len(rows):
            return Features(np.empty((0, self.dim), self.dtype), rows)
        shape = (len(self), self.dim)
        return Features(np.memmap(self._vectors, self.dtype, mode="r", shape=shape), rows)

    @contextmanager
    def writing(self) -> Iterator[Writer]:
        """Lock the cache for appending; truncate torn rows first, and sync at the end.

        Raises:
            StoreError: another process is writing to it.
            InputError: the disk is full.
        """
        with io.lock(self.folder / "lock"):
            count = len(self)
            with self._vectors.open("ab") as vectors, self._index.open("ab") as index:
                vectors.truncate(count * self._row_bytes)
                index.truncate(count * KEY_BYTES)
                sync(vectors.fileno(), index.fileno())
                # It exists before the first row that is not synced, and is deleted after the last.
                io.write_bytes(self._unsynced, np.uint64(count).tobytes())
                with self._unsynced.open("r+b") as marks:
                    handles = (vectors.fileno(), index.fileno(), marks.fileno())
                    writer = Writer(self, count, *handles)
                    try:
                        yield writer
                    finally:
                        writer.sync()
            self._unsynced.unlink()

    def segment(self, name: str) -> FeatureCache:
        """Return a segment of this cache for one of several processes; see `gather`."""
        return FeatureCache(self.folder / "segments" / name, self.dim, _dtype_name(self.dtype))

    def gather(self) -> None:
        """Move the rows of all segments without a writer to this cache.

        Raises:
            StoreError: another process is writing to this cache.
            InputError: the disk is full.
        """
        full = [each for each in self._segments() if len(each)]
        if not full:
            return
        with self.writing() as writer:
            for segment in full:
                with suppress(StoreError), io.lock(segment.folder / "lock"):
                    self._take(segment, writer)
                    writer.sync()  # safe here before they are deleted there
                    for path in (segment._index, segment._vectors):
                        os.truncate(path, 0)

    def _segments(self) -> list[FeatureCache]:
        folders = sorted((self.folder / "segments").glob("*/"))
        return [FeatureCache(each, self.dim, _dtype_name(self.dtype)) for each in folders]

    def _take(self, segment: FeatureCache, writer: Writer) -> None:
        count = len(segment)
        if not count:
            return
        raw = np.fromfile(segment._index, np.uint8, count * KEY_BYTES).tobytes()
        keys = [raw[at : at + KEY_BYTES].hex() for at in range(0, len(raw), KEY_BYTES)]
        new = np.flatnonzero(self.rows(keys) < 0)
        for start in range(0, len(new), 4096):
            some = new[start : start + 4096]
            # Mapped again for each block, which frees its memory.
            vectors = np.memmap(segment._vectors, self.dtype, mode="r", shape=(count, self.dim))
            writer.append([keys[row] for row in some], vectors[some])


class Writer:
    """Appends batches to a cache that is open for writing."""

    def __init__(self, cache: FeatureCache, count: int, vectors: int, index: int, marks: int) -> None:
        self._cache, self._vectors, self._index, self._marks = cache, vectors, index, marks
        self._count = self._synced = count
        self._when = time.monotonic()

    def append(self, keys: Sequence[str], x_BD: npt.NDArray[np.floating]) -> None:
        """Append one batch; once this returns, it survives a kill.

        Raises:
            InputError: the disk is full; earlier rows stay valid.
            ValueError: the vectors do not have the cache's shape, or are not finite in its data type.
        """
        with np.errstate(over="ignore"):  # overflow of float16 becomes infinite and is refused
            rows = np.ascontiguousarray(x_BD, dtype=self._cache.dtype)
        if rows.shape != (len(keys), self._cache.dim):
            raise ValueError(f"{len(keys)} keys of dimension {self._cache.dim}, got {rows.shape}")
        if not all_finite(rows):
            raise ValueError(f"a vector is not finite in {self._cache.dtype}")
        packed = pack(keys)
        try:
            write_all(self._marks, checksums(packed, rows), at=8 * (1 + self._unsynced))
            write_all(self._vectors, rows)
            write_all(self._index, packed)
        except OSError as error:
            os.ftruncate(self._index, self._count * KEY_BYTES)
            os.ftruncate(self._vectors, self._count * self._cache._row_bytes)
            raise self._refused(error) from error
        self._count += len(keys)
        if time.monotonic() - self._when > SYNCED_EVERY:
            self.sync()

    @property
    def _unsynced(self) -> int:
        return self._count - self._synced

    def sync(self) -> None:
        """Wait until all rows are on the disk: then they survive a power cut.

        Raises:
            InputError: the disk is full, or broken.
        """
        try:
            sync(self._vectors, self._index)
            # In this order: after a kill in between, the next writer finds checksums of no rows.
            os.pwrite(self._marks, np.uint64(self._count).tobytes(), 0)
            os.ftruncate(self._marks, 8)
        except OSError as error:
            raise self._refused(error) from error
        self._synced, self._when = self._count, time.monotonic()

    def _refused(self, error: OSError) -> InputError:
        return InputError(
            f"features could not be written to {self._cache.folder} ({error.strerror}): free "
            "some space or name another folder with --cache, then run the same command again; "
            "it resumes."
        )


class FeatureStore:
    """All feature caches, in one folder (by default `features` in the user's cache)."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or io.cache_dir() / "features"

    def cache(
        self, backbone_key: str, preprocess_key: str, dim: int, dtype: FeatureDtype = "float16"
    ) -> FeatureCache:
        """Return the cache of these weights, this preprocessing and this data type."""
        about = {"backbone": backbone_key, "preprocess": preprocess_key, "precision": dtype}
        name = io.digest(about)[:32]
        cache = FeatureCache(self.folder / name, dim, dtype)
        if not (cache.folder / "about.json").exists():
            io.write_json(cache.folder / "about.json", {**about, "dim": dim})
        with suppress(StoreError):  # another process writes to it: the next one gathers them
            cache.gather()
        return cache


def _dtype_name(dtype: np.dtype[np.floating]) -> FeatureDtype:
    return "float16" if dtype == np.float16 else "float32"


_NO_BYTES = np.empty(0, np.uint8)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
