"""FeatureStore: computed feature vectors on disk, by what they were computed from.

The features of a photo depend on its bytes, the preprocessing, the backbone's weights and the data type.
The last three select a cache, the photo's digest a row in it. A cache consists of three append-only files:

    vectors.bin   row after row of D numbers (float16, or float32 for comparisons to the last digit)
    index.bin     row after row of 32 bytes: the SHA-256 of the photo
    sums.bin      row after row of 8 bytes: a checksum of the key and the vector

A key never belongs to a wrong vector. After a kill this follows from the order of writes: a batch's
vectors are written before its keys, and a torn row is truncated when the cache is next opened for
writing. A power cut keeps no order, so rows are trusted only after a sync (every half a minute) or if
their checksums match. A disk can change what lies on it, so each process checks the rows that it looks up,
once; a damaged one counts as missing, is computed again, and its key is replaced by one that no photo has.
Caches of older versions have no checksums until they are next written to.
While a cache is open for writing there is a fourth file:

    unsynced.bin  8 bytes: how many rows are synced; after a kill it stays until rows are next written

One process writes to a cache. Several processes write to segments, caches of their own in the folder
`segments`, whose rows are then moved to the cache.
"""

from __future__ import annotations

import logging
import os
import secrets
import sys
import weakref
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from fieldmark.features.cache_files import (
    KEY_BYTES,
    SUM_BYTES,
    KeyLookup,
    checksum,
    checksums,
    consecutive,
    heads_of,
    pack,
    size_of,
    sync,
    write_all,
)
from fieldmark.features.cache_writer import Handles, Writer, refusing
from fieldmark.utils import io
from fieldmark.utils.errors import InputError, StoreError
from fieldmark.utils.typing import BoolArray, FloatArray, IntArray

logger = logging.getLogger(__name__)

FeatureDtype = Literal["float16", "float32"]

_BLOCK = 4096  # rows that are checked at once

_SEGMENTS = "segments"

_SOUND: dict[Path, BoolArray] = {}
"""Which rows of a cache this process has found sound, by its folder."""


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
        if len(rows) and _consecutive(rows):  # converted as it is read
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
        self._damaged: set[int] = set()
        self._map: weakref.ref[npt.NDArray[np.floating]] | None = None  # of the vectors, while it is used
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
    def _sums(self) -> Path:
        return self.folder / "sums.bin"

    @property
    def _beyond(self) -> Path:
        """Marks a cache whose network gave a value that float16 cannot hold; segments share the mark."""
        whole = self.folder.parents[1] if self.folder.parent.name == _SEGMENTS else self.folder
        return whole / "beyond_float16"

    @property
    def beyond_float16(self) -> bool:
        """Whether this network's features are too large for float16, and so kept in float32."""
        return self.dtype == np.float16 and self._beyond.exists()

    def mark_beyond_float16(self) -> None:
        """Note that float16 cannot hold this network's features."""
        self._beyond.touch()

    @property
    def _row_bytes(self) -> int:
        return self.dim * self.dtype.itemsize

    @property
    def _unsynced(self) -> Path:
        return self.folder / "unsynced.bin"

    def __len__(self) -> int:
        """Return how many rows are valid: a key and its vector."""
        whole = min(size_of(self._vectors) // self._row_bytes, size_of(self._index) // KEY_BYTES)
        try:
            synced = int.from_bytes(self._unsynced.read_bytes()[:8], sys.byteorder)
        except FileNotFoundError:  # no writer, and the last one finished
            return whole
        self._checked = max(self._checked, min(synced, whole))
        if whole > self._checked:
            new = np.arange(self._checked, whole)
            sound = self._sound(new, self._keys(whole)[new])
            self._checked = whole if sound.all() else self._checked + int(sound.argmin())
        return self._checked

    def _sound(self, rows: IntArray, keys: npt.NDArray[np.bytes_]) -> BoolArray:
        """Return which of some rows hold what was written with these keys, in ascending order."""
        if not len(rows):
            return np.ones(0, np.bool_)
        if not self._sums.exists():  # of an older version
            return (rows < self._checked) | (not self._unsynced.exists())
        count = int(rows[-1]) + 1
        sums, kept = np.zeros(count, np.uint64), np.fromfile(self._sums, np.uint64, count)
        sums[: len(kept)] = kept
        vectors, parts = self._mapped(count), list[BoolArray]()
        for start in range(0, len(rows), _BLOCK):
            some, of = rows[start : start + _BLOCK], keys[start : start + _BLOCK]
            block = vectors[some[0] : some[-1] + 1] if _consecutive(some) else vectors[some]
            whole = checksum(of, block) == sums[some].sum()  # of all rows at once, which is faster
            parts.append(np.full(len(some), True) if whole else checksums(of, block) == sums[some])
        return np.concatenate(parts)

    def _checked_rows(self, rows: IntArray, wanted: npt.NDArray[np.bytes_]) -> IntArray:
        """Return the rows found for some keys, with -1 for those that are damaged."""
        count = len(self)
        before = _SOUND.get(self.folder, np.zeros(0, np.bool_))
        sound = _SOUND[self.folder] = np.zeros(count, np.bool_)
        if len(before) <= count:  # else it was emptied, and other rows were written
            sound[: len(before)] = before
        there = np.flatnonzero(rows >= 0)
        new, first = np.unique(rows[there][~sound[rows[there]]], return_index=True)
        if not len(new):
            return rows
        good = self._sound(new, wanted[there][~sound[rows[there]]][first])
        sound[new[good]] = True
        if good.all():
            return rows
        bad = new[~good]
        if not self._damaged.issuperset(bad.tolist()):
            logger.warning(f"{self.folder} has {len(bad):,} vectors that the disk changed: computed again.")
        self._damaged |= set(bad.tolist())
        return np.where(np.isin(rows, bad), -1, rows)

    def verify(self) -> int:
        """Check all rows, and give the damaged ones keys that no photo has; returns how many they are.

        Raises:
            StoreError: another process is writing to it.
            InputError: the disk is full.
        """
        keys, rows = self._keys(len(self)), np.arange(len(self))
        damaged = rows[~self._sound(rows, keys)]
        self._damaged |= set(damaged.tolist())
        if len(damaged):
            with self.writing():
                pass
        return len(damaged)

    def rows(self, keys: Sequence[str]) -> IntArray:
        """Return the row of each photo, -1 where it is not in the cache; shape (N,).

        Args:
            keys: SHA-256 digests of photos in hexadecimal.
        """
        wanted = pack(keys)
        if self._sorted is None or len(self._sorted.known) != len(self):
            known = self._keys(len(self))
            if (start := consecutive(known, wanted)) is not None:
                return self._checked_rows(np.arange(start, start + len(wanted)), wanted)
            self._sorted = KeyLookup.of(known)
        heads, order, known = self._sorted
        if not len(known):
            return np.full(len(keys), -1, np.int64)
        if heads is None:
            place = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
        else:
            place = np.minimum(np.searchsorted(heads, heads_of(wanted)), len(known) - 1)
        return self._checked_rows(np.where(known[place] == wanted, order[place], -1), wanted)

    def _keys(self, count: int) -> npt.NDArray[np.bytes_]:
        """Read the keys of the first rows in their order; shape (count,)."""
        raw = np.fromfile(self._index, np.uint8, count * KEY_BYTES) if count else _NO_BYTES
        return raw.view(f"S{KEY_BYTES}")

    def get(self, keys: Sequence[str]) -> Features:
        """Return the vectors of some photos.

        Raises:
            StoreError: a photo is not in the cache.
        """
        vectors = self._mapped(count) if (count := len(self)) else np.empty((0, self.dim), self.dtype)
        rows = self.rows(keys)  # by the same map: its pages are mapped once
        if (rows < 0).any():
            missing = int((rows < 0).sum())
            raise StoreError(f"{missing} of {len(keys)} photos have no features in {self.folder}.")
        return Features(vectors, rows)

    def _mapped(self, count: int) -> npt.NDArray[np.floating]:
        """Map the vectors of the first rows, at least one, into memory; shape (count, D)."""
        known = self._map() if self._map else None
        if known is not None and len(known) >= count:
            return known[:count]
        new = np.memmap(self._vectors, self.dtype, mode="r", shape=(count, self.dim))
        self._map = weakref.ref(new)
        return new

    @contextmanager
    def writing(self) -> Iterator[Writer]:
        """Lock the cache for appending; truncate torn rows first, and sync at the end.

        Raises:
            StoreError: another process is writing to it.
            InputError: the disk is full.
        """
        with io.lock(self.folder / "lock"), ExitStack() as files:
            with refusing(self.folder):
                count = len(self)
                self._disown_damaged(count)
                paths = (self._vectors, self._index, self._sums)
                vectors, index, sums = (files.enter_context(path.open("ab")) for path in paths)
                vectors.truncate(count * self._row_bytes)
                index.truncate(count * KEY_BYTES)
                sums.truncate(count * SUM_BYTES)
                sync(vectors.fileno(), index.fileno(), sums.fileno())
                # It exists before the first row that is not synced, and is deleted after the last.
                io.write_bytes(self._unsynced, np.uint64(count).tobytes())
                marks = files.enter_context(self._unsynced.open("r+b"))
            handles = Handles(vectors.fileno(), index.fileno(), sums.fileno(), marks.fileno())
            writer = Writer(self.folder, self.dim, self.dtype, count, handles)
            try:
                yield writer
            finally:
                writer.sync()
            files.close()
            with refusing(self.folder):
                self._unsynced.unlink()

    def _disown_damaged(self, count: int) -> None:
        """Give damaged rows keys that no photo has; and all rows a checksum, in caches of older versions."""
        if not self._sums.exists():
            before, blocks = self._keys(count), range(0, count, _BLOCK)
            of = (checksums(before[at : at + _BLOCK], self._mapped(count)[at : at + _BLOCK]) for at in blocks)
            io.write_bytes(self._sums, b"".join(each.tobytes() for each in of))
        rows = sorted(row for row in self._damaged if row < count)
        self._damaged.clear()
        if not rows:
            return
        self._sorted = None
        keys = np.frombuffer(secrets.token_bytes(KEY_BYTES * len(rows)), f"S{KEY_BYTES}")
        sums = checksums(keys, self._mapped(count)[rows])
        with self._index.open("r+b") as index, self._sums.open("r+b") as of_sums:
            for number, row in enumerate(rows):
                write_all(index.fileno(), keys[number : number + 1], at=KEY_BYTES * row)
                write_all(of_sums.fileno(), sums[number : number + 1], at=SUM_BYTES * row)

    def segment(self, name: str) -> FeatureCache:
        """Return a segment of this cache for one of several processes; see `gather`."""
        return FeatureCache(self.folder / _SEGMENTS / name, self.dim, _dtype_name(self.dtype))

    def gather(self) -> None:
        """Move the rows of all segments without a writer to this cache.

        Raises:
            StoreError: another process is writing to this cache.
            InputError: the disk is full.
        """
        # Vectors are emptied last: those without a key are what a kill or a read-only disk left.
        full = [each for each in self._segments() if size_of(each._vectors)]
        if not full:
            return
        with self.writing() as writer:
            for segment in full:
                with suppress(StoreError), io.lock(segment.folder / "lock"), refusing(self.folder):
                    self._take(segment, writer)
                    writer.sync()  # safe here before they are deleted there
                    for path in (segment._index, segment._sums, segment._vectors):
                        os.truncate(path, 0)

    def _segments(self) -> list[FeatureCache]:
        folders = sorted((self.folder / _SEGMENTS).glob("*/"))
        return [FeatureCache(each, self.dim, _dtype_name(self.dtype)) for each in folders]

    def _take(self, segment: FeatureCache, writer: Writer) -> None:
        count = len(segment)
        if not count:
            return
        raw = np.fromfile(segment._index, np.uint8, count * KEY_BYTES).tobytes()
        keys = [raw[at : at + KEY_BYTES].hex() for at in range(0, len(raw), KEY_BYTES)]
        new = np.flatnonzero((self.rows(keys) < 0) & (segment.rows(keys) >= 0))
        for start in range(0, len(new), 4096):
            some = new[start : start + 4096]
            # Mapped again for each block, which frees its memory.
            writer.append([keys[row] for row in some], segment._mapped(count)[some])


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
        with suppress(OSError):  # it may be read-only
            os.utime(cache.folder / "about.json")  # when it was last used, for `fieldmark cache prune`
        with suppress(StoreError):  # another process writes to it: the next one gathers them
            cache.gather()
        return cache


def _consecutive(rows: IntArray) -> bool:
    return bool((np.diff(rows) == 1).all())


def _dtype_name(dtype: np.dtype[np.floating]) -> FeatureDtype:
    return "float16" if dtype == np.float16 else "float32"


_NO_BYTES = np.empty(0, np.uint8)
