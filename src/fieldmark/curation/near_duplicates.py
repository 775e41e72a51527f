"""Photos of one and the same picture: the same bytes, or nearly the same to the eye.

The perceptual hash proposes pairs, the network's features confirm them. A hash that is nearly equal
needs little confirming: a picture at half its size has other features, but the same hash. One that is
only like it needs more: many photos of one bird at the middle of a blue sky share eleven bits of 64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fieldmark.curation.hamming_search import components, pairs_within
from fieldmark.curation.image_stats import Looks
from fieldmark.features.cache import Features
from fieldmark.utils.typing import FloatArray, IntArray

RADIUS = 11  # bits of 64 within which pairs are proposed
_EQUAL = 4  # bits up to which a hash is nearly the same
_ALIKE = np.array(
    [0.6, 0.85], np.float32
)  # cosines of features that confirm: nearly the same, like it
_FLAT = 0.02  # below this contrast a hash is of noise
_AT_ONCE = 4096


@dataclass(frozen=True)
class Twins:
    """Which of N photos are of one picture.

    Attributes:
        same_N: the lowest photo with the same bytes; a photo that is alone names itself.
        near_N: the lowest photo of those that hang together by pairs, the same bytes among them.
        alike_N: the highest cosine to one of its pairs; 1 for the same bytes, 0 for a photo alone.
    """

    same_N: IntArray
    near_N: IntArray
    alike_N: FloatArray


def twins(digests: list[str], looks: Looks, features: Features, radius: int = RADIUS) -> Twins:
    """Find them.

    Args:
        digests: SHA-256 of each of the N photos.
        looks: how they look.
        features: the network's, in the same order.
        radius: bits of the hash within which pairs are proposed, at most 11.
    """
    _, first, same = np.unique(np.array(digests), return_index=True, return_inverse=True)
    same_N = first[same].astype(np.int64)
    # One photo of each kind of bytes, with a hash that says something.
    compared = np.flatnonzero((same_N == np.arange(len(same_N))) & (looks.contrast_N >= _FLAT))
    pairs = compared[pairs_within(looks.hash_N[compared], radius)]
    differ = np.bitwise_count(looks.hash_N[pairs[:, 0]] ^ looks.hash_N[pairs[:, 1]])
    alike = cosines(features, pairs)
    sure = alike >= _ALIKE[(differ > _EQUAL).astype(np.int64)]
    pairs, alike = pairs[sure], alike[sure]
    copies = np.flatnonzero(same_N != np.arange(len(same_N)))
    alike_N = np.zeros(len(same_N), np.float32)
    np.maximum.at(alike_N, pairs.ravel(), np.repeat(alike, 2))
    alike_N[copies] = alike_N[same_N[copies]] = 1.0
    together = np.concatenate([pairs, np.stack([same_N[copies], copies], 1)])
    return Twins(same_N, components(len(same_N), together), alike_N)


def cosines(features: Features, pairs_P2: IntArray) -> FloatArray:
    """The cosine of each pair's features, shape (P,), read some pairs at a time."""
    found = np.empty(len(pairs_P2), np.float32)
    for start in range(0, len(pairs_P2), _AT_ONCE):
        a_BD, b_BD = (features[pairs_P2[start : start + _AT_ONCE, side]] for side in (0, 1))
        lengths = np.linalg.norm(a_BD, axis=1) * np.linalg.norm(b_BD, axis=1)
        found[start : start + _AT_ONCE] = (a_BD * b_BD).sum(1) / np.maximum(lengths, 1e-12)
    return found
