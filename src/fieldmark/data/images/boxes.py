"""Cut a box out of a photo: a picture of its own, square, with a margin.

The crop is a JPEG of high quality without subsampled colours, and is kept in the cache by the photo's bytes
and the box, since a photo of 12 megapixels takes a tenth of a second to decode. Whatever reads a crop, for
training or for a prediction, reads these bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress

from fieldmark.data.image_containers import reject
from fieldmark.data.images import jpeg
from fieldmark.data.storage.places import Box
from fieldmark.utils import io
from fieldmark.utils.errors import InputError, RejectReason
from fieldmark.utils.typing import ByteArray, Pixels

MARGIN = 0.1
"""On each side of a box, as a share of its longer side: what is around an animal helps a little."""
_QUALITY = 95
_SMALLEST = 8  # pixels: less is no picture of anything
_DEFINITION = 1  # of how a crop is made; part of its name in the cache


def kept(digest: str, box: Box, make: Callable[[], bytes]) -> bytes:
    """Return the crop of a box as a JPEG: the one in the cache, or what `make` returns.

    Args:
        digest: the SHA-256 of the photo's bytes.
        box: in shares of the photo.
        make: decodes the photo and cuts the box out, see `encoded`.
    """
    name = io.digest([_DEFINITION, MARGIN, digest, str(box)])
    path = io.cache_dir() / "crops" / name[:2] / f"{name}.jpg"
    with suppress(OSError):
        return path.read_bytes()
    crop = make()
    with suppress(InputError):  # a cache that cannot be written to costs time, and nothing else
        io.write_bytes(path, crop, durable=False)
    return crop


def encoded(photo: ByteArray, box: Box) -> bytes:
    """Return the crop of a box as a JPEG, see `pixels_in`."""
    return jpeg.encoded(pixels_in(photo, box), _QUALITY)


def is_inside(box: Box) -> bool:
    """Return whether a part of a box is in the photo."""
    return box.left < 1 and box.top < 1 and box.left + box.width > 0 and box.top + box.height > 0


def pixels_in(photo: Pixels, box: Box) -> Pixels:
    """Return a view of the square around a box, (h, w, ...), of the pixels of a photo (H, W, ...).

    The square is moved into the photo, and cut off where it is larger than that.

    Raises:
        ImageRejected: the box lies outside of the photo.
    """
    height, width = photo.shape[:2]
    side = max(box.width * width, box.height * height) * (1 + 2 * MARGIN)
    side = max(side, _SMALLEST)
    if not is_inside(box):
        reject(RejectReason.OUTSIDE, f"the box {box} is not in the photo")
    left, right = _stretch((box.left + box.width / 2) * width, side, width)
    top, bottom = _stretch((box.top + box.height / 2) * height, side, height)
    return photo[top:bottom, left:right]


def _stretch(center: float, side: float, length: int) -> tuple[int, int]:
    """Return where a stretch of `side` pixels around a center begins and ends, inside 0 .. length."""
    if side >= length:
        return 0, length
    start = min(max(round(center - side / 2), 0), length - math.ceil(side))
    return start, min(start + math.ceil(side), length)


def turned(box: Box, width: int, height: int, orientation: int) -> Box:
    """Return a box that was drawn in the photo as it is stored as one in the photo as it is shown.

    Args:
        box: its size says which of the two it was drawn in.
        width, height: of the photo as it is shown, in pixels.
        orientation: of EXIF, 1 to 8.
    """
    if orientation < 5 or box.size is None or box.size[0] * width != box.size[1] * height:
        return box
    if width == height:
        return box
    top = 1 - box.left - box.width if orientation in (7, 8) else box.left
    left = 1 - box.top - box.height if orientation in (6, 7) else box.top
    return Box(left, top, box.height, box.width)
