"""What a photo looks like in eleven numbers: a perceptual hash, how bright, how blurred.

The numbers are kept on a shelf like features, by the photo's bytes: a photo is looked at once, and a
killed look goes on where it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from fieldmark.data import loader
from fieldmark.data.photos import PhotoFile
from fieldmark.data.transforms import Preprocess
from fieldmark.features.cache import FeatureCache, FeatureStore
from fieldmark.utils.errors import ImageRejected
from fieldmark.utils.logging import progress_bar
from fieldmark.utils.typing import ByteArray, FloatArray

Hashes = npt.NDArray[np.uint64]

LOOK = Preprocess(size=256, resize=256, fit="squash", tier="fast")
"""The picture that is measured: 256 x 256, so that the photo's own size does not matter."""

_KIND = "looks-1"  # goes up when the same picture gives other numbers
_NUMBERS = 11
_BATCH = 256
_HASHED = 32  # side of the picture that is hashed
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


@dataclass(frozen=True)
class Looks:
    """N photos, as they look.

    Attributes:
        hash_N: perceptual hashes, uint64.
        bright_N: the 95th percentile of the grey levels, 0 to 1.
        contrast_N: their standard deviation, 0 to 1.
        blur_N: 0 sharp, 1 blurred; see `blur`.
        rejected: why a photo could not be decoded, by its number; its numbers are zeros.
    """

    hash_N: Hashes
    bright_N: FloatArray
    contrast_N: FloatArray
    blur_N: FloatArray
    rejected: dict[int, ImageRejected]


def look(
    photos: Sequence[PhotoFile], store: FeatureStore | None = None, *, workers: int | None = None
) -> Looks:
    """Look at every photo that was not looked at before, and give what was seen of all of them."""
    feature_cache = shelf_of(store or FeatureStore())
    failed = fill(feature_cache, feature_cache, photos, workers=workers)
    keys = [photo.sha256 for photo in photos]
    seen_NM = np.zeros((len(keys), _NUMBERS), np.float32)
    there = np.array([key not in failed for key in keys], np.bool_)
    seen_NM[there] = feature_cache.get([key for key in keys if key not in failed])[slice(None)]
    packed = np.ascontiguousarray(seen_NM[:, :8].astype(np.uint8))
    return Looks(
        hash_N=packed.view("<u8").ravel(),
        bright_N=seen_NM[:, 8],
        contrast_N=seen_NM[:, 9],
        blur_N=seen_NM[:, 10],
        rejected={at: failed[key] for at, key in enumerate(keys) if key in failed},
    )


def shelf_of(store: FeatureStore) -> FeatureCache:
    """Where the numbers are kept."""
    return store.cache(_KIND, LOOK.key(), _NUMBERS, "float32")


def fill(
    feature_cache: FeatureCache,
    onto: FeatureCache,
    photos: Sequence[PhotoFile],
    *,
    workers: int | None = None,
) -> dict[str, ImageRejected]:
    """Look at the photos that are not on the shelf; gives why some could not be, by their digests.

    Args:
        shelf: what is kept already.
        onto: where to write: the shelf itself, or a segment of it.
        photos: what to look at.
        workers: threads that decode.
    """
    keys = [photo.sha256 for photo in photos]
    kept = (feature_cache.rows(keys) >= 0) | (onto.rows(keys) >= 0)
    new = {keys[int(at)]: photos[int(at)] for at in np.flatnonzero(~kept)}
    failed: dict[str, ImageRejected] = {}
    if new:
        with onto.writing() as writer, progress_bar("looking at pictures", len(new)) as stage:
            done: list[tuple[str, FloatArray]] = []
            found = loader.decoded(list(new.values()), LOOK, workers=workers)
            for key, crop in zip(new, found, strict=True):
                if isinstance(crop, ImageRejected):
                    failed[key] = crop
                else:
                    done.append((key, measure(crop)))
                if len(done) == _BATCH:
                    writer.append([name for name, _ in done], np.stack([row for _, row in done]))
                    done.clear()
                stage.advance()
            if done:
                writer.append([name for name, _ in done], np.stack([row for _, row in done]))
    return failed


def measure(crop_SS3: ByteArray) -> FloatArray:
    """Eight bytes of the hash, brightness, contrast, blur; shape (11,)."""
    grey_SS = crop_SS3 @ _LUMA
    numbers = (np.percentile(grey_SS, 95) / 255, grey_SS.std() / 255, blur(grey_SS))
    return np.concatenate([perceptual_hash(grey_SS), np.array(numbers)]).astype(np.float32)


def perceptual_hash(grey_SS: FloatArray) -> ByteArray:
    """64 bits that stay nearly the same when a picture is resized or compressed: 8 bytes.

    The lowest 8 x 8 frequencies of the picture at 32 x 32, each above or below their median
    (C. Zauner, "Implementation and benchmarking of perceptual image hash functions",
    2010, section 3.2.1).
    """
    step = len(grey_SS) // _HASHED
    small = grey_SS.reshape(_HASHED, step, _HASHED, step).mean((1, 3))
    low_88 = _cosines() @ small @ _cosines().T
    return np.packbits(low_88 > np.median(low_88), bitorder="little")


@cache
def _cosines() -> FloatArray:
    """The eight lowest cosines of the discrete cosine transform (type II), shape (8, 32)."""
    place = np.arange(_HASHED) + 0.5
    return np.cos(np.pi / _HASHED * np.arange(8)[:, None] * place).astype(np.float32)


def blur(grey_SS: FloatArray, width: int = 9) -> float:
    """How little of a picture's variation is lost when it is blurred once more: 0 sharp, 1 blurred.

    F. Crété and others, "The blur effect: perception and estimation with a new no-reference perceptual
    blur metric", 2007. Unlike the variance of the Laplacian it does not hang on the contrast.
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
