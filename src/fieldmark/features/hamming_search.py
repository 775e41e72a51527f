"""Search of all pairs of hashes within a Hamming distance, and connected components of pairs.

Multi-index hashing (M. Norouzi, A. Punjani and D. Fleet, "Fast exact search in Hamming space with
multi-index hashing", 2014): cut 64 bits into four bands of 16. If two hashes differ in at most 11 bits,
at least one band differs in at most 11 // 4 = 2 bits. So it suffices to compare hashes that have a band
in common up to two bits.
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
_CHUNK = 1 << 21  # pairs that are compared at a time: limits the memory
_PER_HASH = 8  # photos of one hash that are compared with each other, or with those of another hash


def pairs_within(hash_N: Hashes, radius: int) -> IntArray:
    """Find all pairs of rows whose hashes differ in at most `radius` bits.

    Of more than 8 rows with the same hash, each is paired with the next 7 only, which connects them
    without a pair for every two, and only 8 of them are paired with rows of other hashes. The time grows
    quickly from a radius of 12 on. The result has shape (P, 2), the lower row first.
    """
    order = np.argsort(hash_N, kind="stable").astype(np.int64)
    unique_U, start_U, count_U = np.unique(hash_N[order], return_index=True, return_counts=True)
    found = [_equal(hash_N, order, apart) for apart in range(1, _PER_HASH)]
    for left, right in _unique_pairs(unique_U, radius):
        used_U = np.minimum(count_U, _PER_HASH)
        sizes = used_U[left] * used_U[right]
        place = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        width = np.repeat(used_U[right], sizes)
        a = order[np.repeat(start_U[left], sizes) + place // width]
        b = order[np.repeat(start_U[right], sizes) + place % width]
        found.append(np.stack([a, b], 1))
    pairs = np.concatenate(found)
    pairs.sort(axis=1)
    return np.unique(pairs, axis=0)


def _equal(hash_N: Hashes, order: IntArray, apart: int) -> IntArray:
    """Return pairs of rows with equal hashes that are `apart` places apart in the sorted order."""
    before, behind = order[:-apart], order[apart:]
    equal = hash_N[before] == hash_N[behind]
    return np.stack([before[equal], behind[equal]], 1)


def _unique_pairs(hash_U: Hashes, radius: int) -> Iterator[tuple[IntArray, IntArray]]:
    """Yield pairs of distinct hashes; a pair may occur more than once."""
    for band in range(_BANDS):
        value_U = (hash_U >> np.uint64(band * _BAND_BITS)).astype(np.uint16).astype(np.int64)
        order = np.argsort(value_U, kind="stable")
        sorted_U, value_U = hash_U[order], value_U[order]
        count_V = np.bincount(value_U, minlength=1 << _BAND_BITS)
        start_V = np.cumsum(count_V) - count_V
        rows = np.arange(len(hash_U))
        for mask in _masks(radius // _BANDS):
            other = value_U ^ mask
            # Each pair once: the other row is in a later bucket, or later in the same bucket.
            first = start_V[other] if mask else rows + 1
            last = start_V[other] + count_V[other]
            many = np.where((other > value_U) | (mask == 0), last - first, 0)
            for left, right in _expand(first, many):
                differ = np.bitwise_count(sorted_U[left] ^ sorted_U[right])
                hit = differ <= radius
                yield order[left[hit]], order[right[hit]]


def _masks(bits: int) -> list[int]:
    """Return all masks of a band with at most `bits` bits set."""
    places = [1 << place for place in range(_BAND_BITS)]
    return [sum(some) for size in range(bits + 1) for some in combinations(places, size)]


def _expand(first: IntArray, many: IntArray) -> Iterator[tuple[IntArray, IntArray]]:
    """Yield pairs of row r with the `many[r]` rows from `first[r]` on, in chunks."""
    ends = np.cumsum(many)
    start = 0
    while start < len(many):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + _CHUNK, side="right")))
        sizes = many[start:stop]
        total = int(sizes.sum())
        if total:
            left = np.repeat(np.arange(start, stop), sizes)
            offset = first[start:stop] - (np.cumsum(sizes) - sizes)
            yield left, np.arange(total) + np.repeat(offset, sizes)
        start = stop


def components(count: int, pairs_P2: IntArray) -> IntArray:
    """Return the lowest row of each row's connected component, shape (count,)."""
    root = np.arange(count)
    while len(pairs_P2):
        a, b = root[pairs_P2[:, 0]], root[pairs_P2[:, 1]]
        apart = a != b
        pairs_P2, a, b = pairs_P2[apart], a[apart], b[apart]
        np.minimum.at(root, np.maximum(a, b), np.minimum(a, b))
        while (root[root] != root).any():
            root = root[root]
    return root
