"""Random numbers as a function of (seed, epoch, photo id) instead of a stream.

Results do not depend on interruptions, the number of workers, or other photos. The function is BLAKE2b,
which is the same on every machine and in every version.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fieldmark.utils.typing import DoubleArray, IntArray

Hashes = npt.NDArray[np.uint64]


def hash64(key: str, *context: object) -> int:
    """Return a 64-bit hash of `key` and every part of `context`."""
    salt = "\x1f".join(map(str, context)).encode()
    hasher = hashlib.blake2b(key.encode(), digest_size=8, key=hashlib.sha256(salt).digest())
    return int.from_bytes(hasher.digest(), "little")


def hashes(keys: Sequence[str], *context: object) -> Hashes:
    """Return `hash64` of many keys: uint64, shape (N,)."""
    salt = "\x1f".join(map(str, context)).encode()
    start = hashlib.blake2b(digest_size=8, key=hashlib.sha256(salt).digest())
    raw = bytearray()
    for key in keys:
        hasher = start.copy()
        hasher.update(key.encode())
        raw += hasher.digest()
    return np.frombuffer(bytes(raw), dtype="<u8").astype(np.uint64)


def order(keys: Sequence[str], *context: object) -> IntArray:
    """Return a random permutation of `keys` as indexes, shape (N,).

    The sequence of keys depends on the set of keys and the context only.
    """
    names = np.asarray(keys, dtype=object)
    return np.lexsort((names, hashes(keys, *context))).astype(np.int64)


def epoch_order(base: Hashes, epoch: int) -> IntArray:
    """Return the order of the photos in one epoch of training, as indexes, shape (N,).

    `base` is `hashes(photo ids, "order", seed)`, computed once for all epochs. Each hash is mixed with the
    epoch by SplitMix64's finaliser (Steele, Lea and Flood, "Fast splittable pseudorandom number generators",
    2014), which is much cheaper than hashing the ids again.
    """
    return np.lexsort((base, _mixed(base, epoch + 1))).astype(np.int64)


def block_order(base: Hashes, epoch: int, block: int, shuffled: int) -> IntArray:
    """Return `epoch_order` for photos that are read sequentially, as indexes, shape (N,).

    Blocks of `block` consecutive photos come in random order; photos are shuffled within `shuffled` blocks.
    """
    place = np.empty(-(-len(base) // block), np.int64)
    place[epoch_order(base[::block], epoch)] = np.arange(len(place))
    group_N = place[np.arange(len(base)) // block] // shuffled
    return np.lexsort((base, _mixed(base, epoch + 1), group_N)).astype(np.int64)


def repeated_order(base: Hashes, epoch: int, times_N: DoubleArray) -> IntArray:
    """Return an epoch in which photo i occurs `times_N[i]` times on average, as indexes, shape (M,).

    The integer part of `times_N[i]` is certain, the fraction is a probability. Whether a photo is drawn
    depends on its hash and the epoch only, as in `epoch_order`.
    """
    chance_N = _mixed(base, epoch + 1) / 2.0**64
    index_M = np.repeat(np.arange(len(base)), np.floor(times_N + chance_N).astype(np.int64))
    # Copies of a photo get different positions: the number of the copy goes into the hash.
    first_M = np.searchsorted(index_M, index_M)
    copy_M = (np.arange(len(index_M)) - first_M).astype(np.uint64)
    place_M = _mixed(_mixed(base[index_M], epoch + 1), copy_M + np.uint64(1))
    return index_M[np.lexsort((base[index_M], place_M))].astype(np.int64)


def _mixed(base: Hashes, number: int | Hashes) -> Hashes:
    """Mix each hash with a number."""
    with np.errstate(over="ignore"):
        mixed: Hashes = base + np.asarray(number, np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
    return mixed


def generator(seed: int, *context: object) -> np.random.Generator:
    """Return a NumPy generator that depends on the seed and the context only."""
    return np.random.default_rng(hash64("generator", seed, *context))
