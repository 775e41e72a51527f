"""Measure the findings of `fieldmark check`: blurred photos and changed copies.

    python -m benchmarks findings

Photos of ../shared/data/wild74 are damaged in a known way, and the findings are compared with those of
usual tools on the same input: the variance of the Laplacian at the threshold with as many false
alarms, imagehash's perceptual hash.

These are not timings: nothing varies from run to run, so there is one round.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagehash
import numpy as np
from PIL import Image, ImageFilter

from benchmarks import common
from benchmarks.common import Row
from fieldmark.data import cross_validation as cross
from fieldmark.data.split import split_photos
from fieldmark.data.storage import places
from fieldmark.data.subset import DataSplits, LabelledPhotos, read
from fieldmark.features import image_stats
from fieldmark.features.near_duplicates import RADIUS
from fieldmark.utils.random import generator
from fieldmark.utils.typing import BoolArray, FloatArray, IntArray

COPIES, SIDE = 200, 256
_SIGMA = 2.5  # of the blur, in pixels of SIDE
_FALSE = 0.02  # the share of false alarms


def run(quick: bool = False, data: Path | None = None) -> list[Row]:
    """Return the shares that are found, ours and the peer's."""
    data = data or common.shared("data", "wild74")
    table = read(data, limit=60 if quick else None, seed=0)
    parts = DataSplits.of(table, split_photos(table, val=0.1, test=0.0, seed=0))
    photos = cross.together(parts.train, parts.val)
    some = [_picture(photos, at) for at in _drawn(len(photos), COPIES)]
    return [_blurred(some), *_copies(some)]


def _drawn(count: int, most: int) -> IntArray:
    return generator(0, "findings").permutation(count)[:most]


def _picture(photos: LabelledPhotos, at: int) -> Image.Image:
    return Image.open(io.BytesIO(places.read(photos.files[at].path))).convert("RGB")


def _blurred(pictures: list[Image.Image]) -> Row:
    """Find blurred photos, at a threshold with one false alarm in fifty photos."""
    sharp = [_grey(each) for each in pictures]
    soft = [_grey(each, _SIGMA) for each in pictures]

    def found(measure: Callable[[FloatArray], float]) -> BoolArray:
        limit = np.quantile([measure(each) for each in sharp], 1 - _FALSE)
        return np.array([measure(each) > limit for each in soft])

    note = f"{len(pictures)} photos blurred by {_SIGMA} of {SIDE} pixels"
    name = "variance of the Laplacian, as many false alarms"
    return _row("blurred photos that are found", found(image_stats.blur), found(_flatness), name, note)


def _grey(picture: Image.Image, sigma: float = 0.0) -> FloatArray:
    small = picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    blurred = small.filter(ImageFilter.GaussianBlur(sigma)) if sigma else small
    return np.asarray(blurred.convert("L"), np.float32)


def _flatness(grey_SS: FloatArray) -> float:
    """Return the negative variance of the Laplacian: higher is more blurred."""
    inner = grey_SS[1:-1, 1:-1]
    around = grey_SS[:-2, 1:-1] + grey_SS[2:, 1:-1] + grey_SS[1:-1, :-2] + grey_SS[1:-1, 2:]
    return -float((around - 4 * inner).var())


def _copies(pictures: list[Image.Image]) -> list[Row]:
    """Find changed copies whose hash is within the number of bits at which `check` proposes pairs."""
    changes: dict[str, Callable[[Image.Image], Image.Image]] = {
        "recompressed copies": _recompressed,
        "halved copies": lambda each: each.resize((each.width // 2, each.height // 2)),
        "brighter copies": lambda each: each.point(lambda level: min(255, int(level * 1.3))),
        **{f"copies cropped by {share} %": _cropped(share / 100) for share in (3, 6, 10)},
    }
    found = []
    for what, change in changes.items():
        pairs = [(each, change(each)) for each in pictures]
        ours = np.array([_apart(a, b) <= RADIUS for a, b in pairs])
        theirs = np.array([imagehash.phash(a) - imagehash.phash(b) <= RADIUS for a, b in pairs])
        note = f"{len(pictures)} photos; within {RADIUS} of 64 bits"
        found.append(_row(f"{what} that are proposed", ours, theirs, "imagehash.phash", note))
    return found


def _apart(one: Image.Image, other: Image.Image) -> int:
    a, b = (image_stats.perceptual_hash(_grey(each)) for each in (one, other))
    return int(np.bitwise_count(a ^ b).sum())


def _recompressed(picture: Image.Image) -> Image.Image:
    kept = io.BytesIO()
    picture.save(kept, "JPEG", quality=50)
    return Image.open(kept)


def _cropped(share: float) -> Callable[[Image.Image], Image.Image]:
    """Cut a share of the width and the height, from one corner."""
    return lambda each: each.crop(
        (round(share * each.width), round(share * each.height), each.width, each.height)
    )


def _row(what: str, ours: BoolArray, theirs: BoolArray, peer: str, note: str) -> Row:
    a, b = (float(each.mean()) if len(each) else 0.0 for each in (ours, theirs))
    ratio = a / b if b else float(a == b) or 1.0
    exact: dict[str, Any] = {"low": ratio, "high": ratio, "rounds": common.EXACT}
    return Row(what=what, unit="", ours=a, peer=b, peer_name=peer, ratio=ratio, note=note, **exact)
