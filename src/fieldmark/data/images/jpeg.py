"""Decode JPEG with libjpeg-turbo."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from fieldmark.data import image_containers
from fieldmark.data.image_containers import reject
from fieldmark.data.images.limits import MAX_PIXELS, check_pixels
from fieldmark.data.images.pillow import ignore_warnings, plugin
from fieldmark.utils.errors import RejectReason
from fieldmark.utils.typing import ByteArray

# A progressive JPEG is decoded once a scan. Cameras write about 10; a hostile file has thousands. The
# product of pixels and scans is limited.
_MAX_PIXEL_SCANS = 20 * MAX_PIXELS

# libjpeg-turbo decodes at n/8 of the size. Other n have no vector code and are slower than full size.
_QUICK_EIGHTHS = (1, 2, 3, 4)

# Warnings of libjpeg-turbo about images with all pixels intact.
_HARMLESS = ("extraneous bytes", "Adobe color", "JFIF revision", "SOS parameters", "ICC marker")
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
