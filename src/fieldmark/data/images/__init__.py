"""The only decoder: bytes in, RGB uint8 (H, W, 3) out, or `ImageRejected(reason)`.

Whatever the bytes are, nothing else is raised: a data set of a million photos has a few of every
kind of damage, and one of them must not end the run, nor be learnt from as half a picture.

JPEG goes through libjpeg-turbo directly, all else through Pillow's plugin for that format and no
other. The two give the same pixels for JPEG (both are libjpeg-turbo with its accurate settings);
the direct way is quicker, can decode at a fraction of the size, and refuses damaged data.

Conventions for what is not 8-bit RGB:

- alpha and transparent palettes are shown on white;
- 16-bit grey (and 9 to 15 bits) is scaled to 0..255, never clipped;
- 32-bit integers and floats have no agreed white: floats within 0..1 are scaled by 255, values
  within 0..255 are kept, and all else is stretched from its least to its greatest value;
- of an animation or of many pages the first is taken;
- colour profiles are not applied: networks are trained on pixels as stored.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fieldmark.data import image_containers
from fieldmark.data.image_containers import reject
from fieldmark.data.images import jpeg, pillow
from fieldmark.data.images.limits import MAX_PIXELS, limit, only_rejections
from fieldmark.data.storage import places
from fieldmark.data.storage.places import Place
from fieldmark.utils.errors import ImageRejected, RejectReason
from fieldmark.utils.typing import ByteArray

MAX_BYTES = places.MAX_BYTES

__all__ = [
    "MAX_BYTES",
    "MAX_PIXELS",
    "ByteArray",
    "Header",
    "decode",
    "header",
    "named",
    "read_bytes",
    "taken",
    "verify",
]


@dataclass(frozen=True)
class Header:
    """What is known of a picture before it is decoded.

    Attributes:
        width, height: pixels, after EXIF orientation.
        format: JPEG, PNG, GIF, WEBP, BMP, TIFF, PNM or AVIF.
    """

    width: int
    height: int
    format: str


def read_bytes(place: Place) -> bytes:
    """The bytes of a photo, wherever it lies.

    Raises:
        ImageRejected: MISSING, UNREADABLE, EMPTY, OUTSIDE or TOO_LARGE (more than `MAX_BYTES`).
        InputError: the photo lies behind a URL that does not answer, or refuses the credentials.
    """
    return places.read(place, MAX_BYTES)


def header(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Header:
    """The size and format of a picture, from its header alone.

    Raises:
        ImageRejected: the bytes are no picture that is read here, or it has too many pixels.
    """
    with only_rejections():
        kind = _kind(data)
        if kind == "JPEG":
            found = image_containers.jpeg(data, whole=False)
            width, height, orientation = found.width, found.height, found.orientation
        else:
            with pillow.quiet():
                image, orientation = pillow.open_(kind, data, max_pixels, whole=False)
                width, height = image.size
        limit(width, height, max_pixels)
        return _turned_header(width, height, orientation, kind)


def decode(data: bytes, *, at_least: int | None = None, max_pixels: int = MAX_PIXELS) -> ByteArray:
    """The picture as RGB, uint8, shape (H, W, 3), C-contiguous, upright by its EXIF orientation.

    Args:
        data: a file's bytes.
        at_least: a JPEG may be decoded at a fraction of its size, with its shorter side never below
            this number of pixels. None: at its full size.
        max_pixels: a picture with more is refused from its header.

    Raises:
        ImageRejected: and nothing else, for any bytes.
    """
    with only_rejections():
        kind = _kind(data)
        if kind == "JPEG":
            pixels, orientation = jpeg.decode(data, at_least, max_pixels)
        else:
            pixels, orientation = pillow.decode(kind, data, max_pixels)
        return np.ascontiguousarray(_upright(pixels, orientation))


def verify(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Header:
    """Refuse all that `decode` refuses, and give the size of the rest, as cheaply as that can be done.

    A JPEG is decoded at an eighth of its size, which still reads all of its data.

    Raises:
        ImageRejected: and nothing else, for any bytes.
    """
    with only_rejections():
        kind = _kind(data)
        if kind == "JPEG":
            found = jpeg.checked(data, max_pixels)
            jpeg.turbo(data, found, at_least=1)
            return _turned_header(found.width, found.height, found.orientation, kind)
        pixels, orientation = pillow.decode(kind, data, max_pixels)
        return _turned_header(pixels.shape[1], pixels.shape[0], orientation, kind)


def taken(data: bytes) -> str:
    """When a picture was taken by its EXIF data, as ISO 8601; "" where it does not say.

    A camera that says no time zone is taken to keep UTC.

    Raises:
        ImageRejected: the bytes are no picture.
    """
    from PIL import ExifTags, Image

    with only_rejections(), pillow.quiet(), Image.open(io.BytesIO(data)) as picture:
        about = picture.getexif().get_ifd(ExifTags.IFD.Exif)
        when = str(about.get(ExifTags.Base.DateTimeOriginal, ""))
        zone = str(about.get(ExifTags.Base.OffsetTimeOriginal, "Z"))
    found = re.fullmatch(r"(\d{4}):(\d\d):(\d\d) (\d\d:\d\d:\d\d)", when)
    if found is None or not re.fullmatch(r"Z|[+-]\d\d:\d\d", zone):
        return ""
    return f"{found[1]}-{found[2]}-{found[3]}T{found[4]}{zone}"


@contextmanager
def named(photo: bytes | Path | str) -> Iterator[None]:
    """Within it a rejection says which photo it is of, where that has a name."""
    try:
        yield
    except ImageRejected as error:
        if isinstance(photo, bytes):
            raise
        raise ImageRejected(error.reason, f"{photo}: {error.detail}") from error


def _kind(data: bytes) -> str:
    if len(data) > MAX_BYTES:
        reject(RejectReason.TOO_LARGE, f"{len(data):,} bytes")
    return image_containers.sniff(data)


def _turned_header(width: int, height: int, orientation: int, kind: str) -> Header:
    return Header(height, width, kind) if orientation >= 5 else Header(width, height, kind)


def _upright(pixels: ByteArray, orientation: int) -> ByteArray:
    """Undo how the camera was held (EXIF 2.32, tag Orientation)."""
    if orientation >= 5:  # stored on its side: rows are columns
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels
