"""Randomness as a function of (seed, epoch, photo id), never a stream.

A stream of random numbers gives another result after an interruption, with another number of
workers, or when one photo is added. A function of what is drawn for does not: a resumed run is the
same run. The function is BLAKE2b, which is the same on every machine and in every version.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fieldmark.utils.typing import DoubleArray, IntArray

Hashes = npt.NDArray[np.uint64]


def hash64(key: str, *context: object) -> int:
    """A 64-bit number that depends on `key` and on every part of `context`."""
    salt = "\x1f".join(map(str, context)).encode()
    hasher = hashlib.blake2b(key.encode(), digest_size=8, key=hashlib.sha256(salt).digest())
    return int.from_bytes(hasher.digest(), "little")


def hashes(keys: Sequence[str], *context: object) -> Hashes:
    """`hash64` of many keys at once: uint64, shape (N,)."""
    salt = "\x1f".join(map(str, context)).encode()
    start = hashlib.blake2b(digest_size=8, key=hashlib.sha256(salt).digest())
    raw = bytearray()
    for key in keys:
        hasher = start.copy()
        hasher.update(key.encode())
        raw += hasher.digest()
    return np.frombuffer(bytes(raw), dtype="<u8").astype(np.uint64)


def order(keys: Sequence[str], *context: object) -> IntArray:
    """A permutation of `keys` as indexes, shape (N,).

    It depends on the set of keys and the context alone: the same keys in another order give the same
    sequence of keys.
    """
    names = np.asarray(keys, dtype=object)
    return np.lexsort((names, hashes(keys, *context))).astype(np.int64)


def epoch_order(base: Hashes, epoch: int) -> IntArray:
    """The order in which one epoch of training sees its photos, as indexes, shape (N,).

    Args:
        base: `hashes(photo ids, "order", seed)`, computed once for all epochs.
        epoch: its number.

    Each hash is mixed with the epoch by SplitMix64's finaliser (Steele, Lea and Flood, "Fast splittable
    pseudorandom number generators", 2014), which costs nothing beside hashing the ids anew.
    """
    return np.lexsort((base, _mixed(base, epoch + 1))).astype(np.int64)


def block_order(base: Hashes, epoch: int, stretch: int, at_once: int) -> IntArray:
    """`epoch_order` for photos that are read one after the other, as indexes, shape (N,).

    Stretches of photos that lie beside each other come in an order of chance; the photos of so many
    stretches at once are mixed.

    Args:
        base, epoch: as for `epoch_order`.
        stretch: photos a stretch.
        at_once: stretches whose photos are mixed.
    """
    place = np.empty(-(-len(base) // stretch), np.int64)
    place[epoch_order(base[::stretch], epoch)] = np.arange(len(place))
    group_N = place[np.arange(len(base)) // stretch] // at_once
    return np.lexsort((base, _mixed(base, epoch + 1), group_N)).astype(np.int64)


def repeated_order(base: Hashes, epoch: int, times_N: DoubleArray) -> IntArray:
    """An epoch in which photo i is seen `times_N[i]` times on average, as indexes, shape (M,).

    The whole part of `times_N[i]` is certain and the rest is a chance, so M is near the sum of them.
    Whether a photo is drawn depends on it and the epoch alone, as in `epoch_order`.
    """
    chance_N = _mixed(base, epoch + 1) / 2.0**64
    index_M = np.repeat(np.arange(len(base)), np.floor(times_N + chance_N).astype(np.int64))
    # A photo's copies stand in different places: the number of the copy goes into its hash.
    first_M = np.searchsorted(index_M, index_M)
    copy_M = (np.arange(len(index_M)) - first_M).astype(np.uint64)
    place_M = _mixed(_mixed(base[index_M], epoch + 1), copy_M + np.uint64(1))
    return index_M[np.lexsort((base[index_M], place_M))].astype(np.int64)


def _mixed(base: Hashes, number: int | Hashes) -> Hashes:
    """Each hash mixed with a number."""
    with np.errstate(over="ignore"):
        mixed: Hashes = base + np.asarray(number, np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
    return mixed


def generator(seed: int, *context: object) -> np.random.Generator:
    """A NumPy generator whose numbers depend on the seed and the context alone."""
    return np.random.default_rng(hash64("generator", seed, *context))
