"""Pairs of hashes that are nearly equal, among a million, without comparing all with all; groups.

Multi-index hashing (M. Norouzi, A. Punjani and D. Fleet, "Fast exact search in Hamming space with
multi-index hashing", 2014): cut 64 bits into four bands of 16. Of two hashes that differ in at most
11 bits, some band differs in at most 11 // 4 = 2. So only hashes are compared that share a band but
for two bits; none is missed.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np
import numpy.typing as npt

from fieldmark.utils.typing import IntArray

Hashes = npt.NDArray[np.uint64]

_BANDS = 4
_BAND_BITS = 64 // _BANDS
_AT_ONCE = 1 << 21  # pairs that are compared at once: bounds the memory
_TWINS = 8  # photos of one hash that are compared with those of another, or among themselves


def pairs_within(hash_N: Hashes, radius: int) -> IntArray:
    """All pairs of rows whose hashes differ in at most `radius` bits, shape (P, 2), the lower row first.

    Of more than 8 rows with one and the same hash, each is paired with the next 7 alone, so that they
    hang together without a pair for every two; and 8 of them are paired with those of other hashes.

    Args:
        hash_N: the hashes.
        radius: in bits; the work grows quickly from 12 on.
    """
    order = np.argsort(hash_N, kind="stable").astype(np.int64)
    unique_U, start_U, count_U = np.unique(hash_N[order], return_index=True, return_counts=True)
    found = [_equal(hash_N, order, apart) for apart in range(1, _TWINS)]
    for left, right in _unique_pairs(unique_U, radius):
        kept = np.minimum(count_U, _TWINS)
        sizes = kept[left] * kept[right]
        place = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        width = np.repeat(kept[right], sizes)
        a = order[np.repeat(start_U[left], sizes) + place // width]
        b = order[np.repeat(start_U[right], sizes) + place % width]
        found.append(np.stack([a, b], 1))
    pairs = np.concatenate(found)
    pairs.sort(axis=1)
    return np.unique(pairs, axis=0)


def _equal(hash_N: Hashes, order: IntArray, apart: int) -> IntArray:
    """Pairs of rows that have one hash and are so many places apart in the order of the hashes."""
    before, behind = order[:-apart], order[apart:]
    equal = hash_N[before] == hash_N[behind]
    return np.stack([before[equal], behind[equal]], 1)


def _unique_pairs(hash_U: Hashes, radius: int) -> Iterator[tuple[IntArray, IntArray]]:
    """Pairs of distinct hashes, perhaps more than once."""
    for band in range(_BANDS):
        value_U = (hash_U >> np.uint64(band * _BAND_BITS)).astype(np.uint16).astype(np.int64)
        order = np.argsort(value_U, kind="stable")
        sorted_U, value_U = hash_U[order], value_U[order]
        count_V = np.bincount(value_U, minlength=1 << _BAND_BITS)
        start_V = np.cumsum(count_V) - count_V
        rows = np.arange(len(hash_U))
        for mask in _masks(radius // _BANDS):
            other = value_U ^ mask
            # Each pair once: the partner lies in a later bucket, or later in the same one.
            first = start_V[other] if mask else rows + 1
            last = start_V[other] + count_V[other]
            many = np.where((other > value_U) | (mask == 0), last - first, 0)
            for left, right in _stretches(first, many):
                differ = np.bitwise_count(sorted_U[left] ^ sorted_U[right])
                hit = differ <= radius
                yield order[left[hit]], order[right[hit]]


def _masks(bits: int) -> list[int]:
    """All ways to change at most so many bits of a band."""
    places = [1 << place for place in range(_BAND_BITS)]
    return [sum(some) for size in range(bits + 1) for some in combinations(places, size)]


def _stretches(first: IntArray, many: IntArray) -> Iterator[tuple[IntArray, IntArray]]:
    """Row r with `many[r]` rows from `first[r]` on, some rows at a time."""
    ends = np.cumsum(many)
    start = 0
    while start < len(many):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + _AT_ONCE, side="right")))
        sizes = many[start:stop]
        total = int(sizes.sum())
        if total:
            left = np.repeat(np.arange(start, stop), sizes)
            offset = first[start:stop] - (np.cumsum(sizes) - sizes)
            yield left, np.arange(total) + np.repeat(offset, sizes)
        start = stop


def components(count: int, pairs_P2: IntArray) -> IntArray:
    """The lowest row that each row hangs together with through pairs, shape (count,)."""
    root = np.arange(count)
    while len(pairs_P2):
        a, b = root[pairs_P2[:, 0]], root[pairs_P2[:, 1]]
        apart = a != b
        pairs_P2, a, b = pairs_P2[apart], a[apart], b[apart]
        np.minimum.at(root, np.maximum(a, b), np.minimum(a, b))
        while (root[root] != root).any():
            root = root[root]
    return root
