"""Near-duplicates: photos of the same image, recompressed, resized or slightly cropped.

The perceptual hash proposes pairs, the network's features confirm them. For nearly equal hashes a low
cosine is enough: an image at half its size has other features, but the same hash. For less similar
hashes it must be high: photos of a bird in the middle of a blue sky often differ in only 11 of 64 bits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fieldmark.features.cache import Features
from fieldmark.features.hamming_search import components, pairs_within
from fieldmark.features.image_stats import ImageStats
from fieldmark.utils.typing import FloatArray, IntArray

RADIUS = 11  # largest Hamming distance of a proposed pair, of 64 bits
_EQUAL = 4  # largest Hamming distance of nearly equal hashes
_MIN_COSINES = np.array([0.6, 0.85], np.float32)  # for nearly equal hashes, for the others
_MIN_CONTRAST = 0.02  # below it, a hash depends on noise
_CHUNK = 4096


@dataclass(frozen=True)
class NearDuplicates:
    """Clusters of N photos."""

    same_bytes_N: IntArray  # the first photo with the same bytes, which may be the photo itself
    cluster_N: IntArray  # the first photo of its connected component of pairs, duplicates included
    similarity_N: FloatArray  # the highest cosine of its pairs; 1 for duplicates, 0 without a pair


def find_near_duplicates(
    digests: list[str], stats: ImageStats, features: Features, radius: int = RADIUS
) -> NearDuplicates:
    """Find duplicates and near-duplicates of photos, given their SHA-256, statistics and features.

    Pairs are proposed up to a Hamming distance of `radius`, at most 11.
    """
    _, first, same = np.unique(np.array(digests), return_index=True, return_inverse=True)
    same_N = first[same].astype(np.int64)
    is_first_N = same_N == np.arange(len(same_N))
    compared = np.flatnonzero(is_first_N & (stats.contrast_N >= _MIN_CONTRAST))
    pairs = compared[pairs_within(stats.hash_N[compared], radius)]
    distance = np.bitwise_count(stats.hash_N[pairs[:, 0]] ^ stats.hash_N[pairs[:, 1]])
    similarity = cosines(features, pairs)
    confirmed = similarity >= _MIN_COSINES[(distance > _EQUAL).astype(np.int64)]
    pairs, similarity = pairs[confirmed], similarity[confirmed]
    copies = np.flatnonzero(~is_first_N)
    similarity_N = np.zeros(len(same_N), np.float32)
    np.maximum.at(similarity_N, pairs.ravel(), np.repeat(similarity, 2))
    similarity_N[copies] = similarity_N[same_N[copies]] = 1.0
    edges = np.concatenate([pairs, np.stack([same_N[copies], copies], 1)])
    return NearDuplicates(same_N, components(len(same_N), edges), similarity_N)


def cosines(features: Features, pairs_P2: IntArray) -> FloatArray:
    """Compute the cosine of each pair's features, shape (P,), in chunks."""
    found = np.empty(len(pairs_P2), np.float32)
    for start in range(0, len(pairs_P2), _CHUNK):
        a_BD, b_BD = (features[pairs_P2[start : start + _CHUNK, side]] for side in (0, 1))
        lengths = np.linalg.norm(a_BD, axis=1) * np.linalg.norm(b_BD, axis=1)
        found[start : start + _CHUNK] = (a_BD * b_BD).sum(1) / np.maximum(lengths, 1e-12)
    return found
