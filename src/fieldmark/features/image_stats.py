"""Statistics of a photo's pixels in eleven numbers: perceptual hash, brightness, contrast, blur.

The numbers are cached like features, by the digest of the photo: each photo is decoded once, and an
interrupted run is resumed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache as cached_once
from itertools import islice

import numpy as np

from fieldmark.data import loader
from fieldmark.data.photos import PhotoFile
from fieldmark.data.transforms import Preprocess
from fieldmark.features.cache import FeatureCache, FeatureStore
from fieldmark.features.hamming_search import Hashes
from fieldmark.utils.errors import ImageRejected
from fieldmark.utils.logging import progress_bar
from fieldmark.utils.typing import ByteArray, FloatArray

VIEW = Preprocess(size=256, resize=256, fit="squash", tier="fast")
"""The view that is measured: 256 x 256, whatever the size of the photo."""

_KIND = "looks-1"  # the key in the feature cache; increase it when the numbers change
_NUMBERS = 11
_BATCH = 256
_HASHED = 32  # side of the image that is hashed
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""What red, green and blue add to grey (ITU-R BT.601)."""


@dataclass(frozen=True)
class ImageStats:
    """Statistics of N photos."""

    hash_N: Hashes  # perceptual hashes
    brightness_N: FloatArray  # the 95th percentile of the grey levels, 0 to 1
    contrast_N: FloatArray  # the standard deviation of the grey levels, 0 to 1
    blur_N: FloatArray  # 0 sharp, 1 blurred; see `blur`
    rejected: dict[int, ImageRejected]  # why a photo could not be decoded, by its row; all else is zero


def compute(photos: Sequence[PhotoFile], store: FeatureStore | None = None) -> ImageStats:
    """Compute the statistics of all photos; those in the cache are not decoded again."""
    cache = cache_of(store or FeatureStore())
    failed = fill(cache, cache, photos)
    keys = [photo.sha256 for photo in photos]
    stats_NM = np.zeros((len(keys), _NUMBERS), np.float32)
    there = np.array([key not in failed for key in keys], np.bool_)
    stats_NM[there] = cache.get([key for key in keys if key not in failed])[slice(None)]
    packed = np.ascontiguousarray(stats_NM[:, :8].astype(np.uint8))
    return ImageStats(
        hash_N=packed.view("<u8").ravel(),
        brightness_N=stats_NM[:, 8],
        contrast_N=stats_NM[:, 9],
        blur_N=stats_NM[:, 10],
        rejected={at: failed[key] for at, key in enumerate(keys) if key in failed},
    )


def cache_of(store: FeatureStore) -> FeatureCache:
    """Return the cache of the statistics."""
    return store.cache(_KIND, VIEW.key(), _NUMBERS, "float32")


def fill(cache: FeatureCache, target: FeatureCache, photos: Sequence[PhotoFile]) -> dict[str, ImageRejected]:
    """Compute the statistics of photos that are not in the cache, and write them to it or a segment of it.

    Return why photos could not be decoded, by their digests.
    """
    keys = [photo.sha256 for photo in photos]
    cached = (cache.rows(keys) >= 0) | (target.rows(keys) >= 0)
    new = {keys[int(at)]: photos[int(at)] for at in np.flatnonzero(~cached)}
    failed: dict[str, ImageRejected] = {}
    if not new:
        return failed
    with target.writing() as writer, progress_bar("measuring photos", len(new)) as bar:
        crops = zip(new, loader.decoded(list(new.values()), VIEW), strict=True)
        while chunk := list(islice(crops, _BATCH)):
            failed |= {key: crop for key, crop in chunk if isinstance(crop, ImageRejected)}
            rows = {k: measure(c) for k, c in chunk if not isinstance(c, ImageRejected)}
            if rows:
                writer.append(list(rows), np.stack(list(rows.values())))
            bar.advance(len(chunk))
    return failed


def measure(crop_SS3: ByteArray) -> FloatArray:
    """Compute eight bytes of the hash, brightness, contrast and blur; shape (11,)."""
    grey_SS = crop_SS3 @ LUMA
    numbers = (np.percentile(grey_SS, 95) / 255, grey_SS.std() / 255, blur(grey_SS))
    return np.concatenate([perceptual_hash(grey_SS), np.array(numbers)]).astype(np.float32)


def perceptual_hash(grey_SS: FloatArray) -> ByteArray:
    """Compute 64 bits that hardly change when an image is resized or compressed; 8 bytes.

    Each of the lowest 8 x 8 frequencies of the image at 32 x 32 is compared with their median
    (C. Zauner, "Implementation and benchmarking of perceptual image hash functions",
    2010, section 3.2.1).
    """
    step = len(grey_SS) // _HASHED
    small = grey_SS.reshape(_HASHED, step, _HASHED, step).mean((1, 3))
    low_88 = _cosines() @ small @ _cosines().T
    return np.packbits(low_88 > np.median(low_88), bitorder="little")


@cached_once
def _cosines() -> FloatArray:
    """Return the eight lowest cosines of the discrete cosine transform (type II), shape (8, 32)."""
    place = np.arange(_HASHED) + 0.5
    return np.cos(np.pi / _HASHED * np.arange(8)[:, None] * place).astype(np.float32)


def blur(grey_SS: FloatArray, width: int = 9) -> float:
    """Compute how little of an image's variation is lost by blurring it again: 0 sharp, 1 blurred.

    F. Crété and others, "The blur effect: perception and estimation with a new no-reference perceptual
    blur metric", 2007. Unlike the variance of the Laplacian it does not depend on the contrast.
    """
    return max(_blur_down(grey_SS, width), _blur_down(grey_SS.T, width))


def _blur_down(grey_SS: FloatArray, width: int) -> float:
    padded = np.pad(grey_SS, ((width // 2 + 1, width // 2), (0, 0)), "edge")
    sums = np.cumsum(padded, axis=0, dtype=np.float64)
    blurred = (sums[width:] - sums[:-width]) / width
    before = np.abs(np.diff(grey_SS, axis=0))
    lost = np.maximum(0.0, before - np.abs(np.diff(blurred, axis=0)))
    total = float(before.sum())
    return 1.0 - float(lost.sum()) / total if total > 0 else 0.0
