"""Decode JPEG with libjpeg-turbo."""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np

from fieldmark.data import image_containers
from fieldmark.data.image_containers import reject
from fieldmark.data.images.limits import MAX_PIXELS, check_pixels
from fieldmark.data.images.pillow import ignore_warnings, plugin
from fieldmark.utils.errors import ImageRejected, RejectReason
from fieldmark.utils.typing import BoolArray, ByteArray

# A progressive JPEG is decoded once a scan. Cameras write about 10; a hostile file has thousands. The
# product of pixels and scans is limited.
_MAX_PIXEL_SCANS = 20 * MAX_PIXELS

# libjpeg-turbo decodes at n/8 of the size. Other n have no vector code and are slower than full size.
_QUICK_EIGHTHS = (1, 2, 3, 4)

# Warnings of libjpeg-turbo about images with all pixels intact.
_HARMLESS = ("extraneous bytes", "Adobe color", "JFIF revision", "SOS parameters", "ICC marker")
_END = b"\xff\xd9"
_WRONG = 4096  # bytes
_FILLED = 128  # in every channel
_ODD_SAMPLING = "Could not determine subsampling"


def checked(data: bytes, max_pixels: int) -> image_containers.Jpeg:
    """Read the structure of a complete JPEG within the limits of pixels and scans."""
    size = image_containers.jpeg(data, whole=False)
    check_pixels(size.width, size.height, max_pixels)
    jpeg = image_containers.jpeg(data, whole=True)
    if jpeg.scans * jpeg.width * jpeg.height > max(_MAX_PIXEL_SCANS, 20 * max_pixels):
        reject(RejectReason.TOO_LARGE, f"{jpeg.scans} scans of {jpeg.width} x {jpeg.height} pixels")
    return jpeg


def decode(data: bytes, at_least: int | None, max_pixels: int) -> tuple[ByteArray, int]:
    """Return the image as stored, RGB, uint8, shape (H, W, 3), and its EXIF orientation, 1 to 8."""
    jpeg = checked(data, max_pixels)
    pixels = turbo(data, jpeg, at_least)
    return (pixels if jpeg.components != 4 else _from_cmyk(pixels, jpeg.adobe)), jpeg.orientation


def decode_cut(data: bytes, max_pixels: int) -> tuple[ByteArray, int, int]:
    """Decode what is there of a JPEG whose end is missing, or was never written (zeros, or ones).

    A decoder fills up what is missing. So the data are continued in a way that cannot be right: the rows that
    come out the same do not depend on it, and are those of the photo. Only for JPEG with all its colours in
    one pass, as cameras write it: else no row is whole before the end.

    Returns:
        The image as stored, RGB uint8, shape (H, W, 3); how many of its rows there are; its EXIF orientation.

    Raises:
        ImageRejected, ValueError: its end is there, nothing can be decoded, or it has several passes.
    """
    import simplejpeg

    there = data.rstrip(b"\0\xff")
    jpeg = checked(there + _END, max_pixels)
    if there.endswith(_END) or _has_end(data) or not jpeg.one_pass:
        reject(RejectReason.TRUNCATED, "what is missing is not only its end")
    space = "CMYK" if jpeg.components == 4 else "RGB"
    # No 255, so no marker; ones, since at the end of the data a decoder goes on with zeros.
    wrong = b"\xfe" + np.random.default_rng(0).integers(0, 255, _WRONG, np.uint8).tobytes()
    decode: Callable[..., ByteArray] = partial(simplejpeg.decode_jpeg, colorspace=space, strict=False)
    pixels, other = (decode(there + more + _END) for more in (b"", wrong))
    rows = _first((pixels != other).any(axis=(1, 2)))
    # Behind a restart marker nothing is tried: there the decoder fills in grey, up to the right edge. The two
    # rows at the border of that share their colours.
    filled_H = (np.abs(pixels[:, -1].astype(int) - _FILLED) <= 1).all(axis=1)
    if filled := _first(~filled_H[::-1]):
        rows = min(rows, max(len(pixels) - filled - 2, 0))
    return (pixels if jpeg.components != 4 else _from_cmyk(pixels, jpeg.adobe)), rows, jpeg.orientation


def encoded(photo: ByteArray, quality: int) -> bytes:
    """Return pixels, RGB uint8 (H, W, 3), as a JPEG without metadata and without subsampled colours."""
    import simplejpeg

    pixels = np.ascontiguousarray(photo)
    found: bytes = simplejpeg.encode_jpeg(pixels, quality=quality, colorsubsampling="444")
    return found


def _has_end(data: bytes) -> bool:
    with suppress(ImageRejected, struct.error, IndexError):
        image_containers.jpeg(data, whole=True)
        return True
    return False


def _first(true_H: BoolArray) -> int:
    """Return the number of rows before the first that is true."""
    return int(true_H.argmax()) if true_H.any() else len(true_H)


def turbo(data: bytes, jpeg: image_containers.Jpeg, at_least: int | None) -> ByteArray:
    """Decode to shape (H, W, 3), or (H, W, 4) for CMYK; no side is below `at_least`; releases the GIL."""
    import simplejpeg

    options: dict[str, Any] = {"colorspace": "CMYK" if jpeg.components == 4 else "RGB"}
    if at_least is not None:
        shorter = min(jpeg.width, jpeg.height)
        if eighths := next((n for n in _QUICK_EIGHTHS if math.ceil(shorter * n / 8) >= at_least), None):
            options["min_height"] = math.ceil(jpeg.height * eighths / 8)
            options["min_width"] = math.ceil(jpeg.width * eighths / 8)
    decode: Callable[..., ByteArray] = partial(simplejpeg.decode_jpeg, **options)
    try:
        return decode(data, strict=True)
    except ValueError as error:
        if _ODD_SAMPLING in str(error):
            return _pillow_jpeg(data)
        if not _is_harmless(error):
            raise
    # Again without unusual metadata: first strictly, so that damage is found.
    stripped = image_containers.strip_jpeg_metadata(data)
    try:
        return decode(stripped, strict=True)
    except ValueError as error:
        if not _is_harmless(error):
            raise
    return decode(stripped, strict=False)


def _is_harmless(error: ValueError) -> bool:
    return any(words in str(error) for words in _HARMLESS)


def _pillow_jpeg(data: bytes) -> ByteArray:
    """Decode a JPEG with a chroma subsampling that simplejpeg does not support."""
    with ignore_warnings():
        image = plugin("JPEG")(io.BytesIO(data))
        return np.array(image if image.mode == "CMYK" else image.convert("RGB"))


def _from_cmyk(cmyk: ByteArray, inverted: bool) -> ByteArray:
    """Convert CMYK of shape (H, W, 4) to RGB."""
    passes = cmyk if inverted else 255 - cmyk
    rgb = np.empty((*cmyk.shape[:2], 3), np.uint8)
    black = passes[..., 3].astype(np.uint16)
    for channel in range(3):
        rgb[..., channel] = (passes[..., channel] * black + 127) // 255
    return rgb
