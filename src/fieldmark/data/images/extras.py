"""Decode HEIC, JPEG XL and the previews in camera raw files, by the packages of `fieldmark[formats]`.

Each package is imported where a file of its format is met. HEIC and JPEG XL say themselves how they are
turned, and their decoders do it, so that the orientation in their EXIF data does not count (ISO/IEC 23008-12,
18181-2). Of a raw file the largest picture that the camera put into it is taken: its colours are those of the
camera's own JPEGs.
"""

from __future__ import annotations

import io
import logging
from contextlib import suppress
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np

from fieldmark.data import image_containers
from fieldmark.data.image_containers import reject
from fieldmark.data.images import jpeg, pillow
from fieldmark.data.images.limits import check_pixels
from fieldmark.utils.errors import RejectReason
from fieldmark.utils.typing import ByteArray

logger = logging.getLogger(__name__)

PACKAGES = {"HEIC": "pillow_heif", "JXL": "pillow_jxl", "RAW": "rawpy"}
"""The package that decodes each format."""
_TURNS = {3: 3, 5: 8, 6: 6}  # LibRaw's `flip` as an orientation of EXIF
_NAMES = {"HEIC": "HEIC photos", "JXL": "JPEG XL photos", "RAW": "camera raw files"}


def package(kind: str) -> Any:
    """Import the package of a format; reject the photo where it is not installed, and say so once."""
    try:
        return import_module(PACKAGES[kind])
    except ImportError:
        sentence = f"{_NAMES[kind]} need an extra: pip install 'fieldmark[formats]'"
        _say(sentence)
        reject(RejectReason.UNSUPPORTED, sentence)


@cache
def _say(sentence: str) -> None:
    logger.warning(f"{sentence}.")


def header(kind: str, data: bytes, max_pixels: int) -> tuple[int, int, int]:
    """Return width and height of the image as stored, and its EXIF orientation, without decoding it."""
    if kind == "RAW":
        shown, orientation = preview(data)
        if not isinstance(shown, bytes):
            return shown.shape[1], shown.shape[0], orientation
        found = image_containers.jpeg(shown, whole=False)
        return found.width, found.height, orientation
    package(kind)
    if kind == "JXL":
        return image_containers.jpeg_xl(data)
    return *_heif(data, max_pixels).size, 1


def decode(kind: str, data: bytes, at_least: int | None, max_pixels: int) -> tuple[ByteArray, int]:
    """Return the image, RGB, uint8, shape (H, W, 3), and the EXIF orientation that it has to be turned by."""
    if kind == "RAW":
        shown, orientation = preview(data)
        if isinstance(shown, bytes):
            return jpeg.decode(shown, at_least, max_pixels)[0], orientation
        return shown, orientation
    if kind == "JXL":
        return _jpeg_xl(data, at_least, max_pixels)
    with pillow.ignore_warnings():
        return pillow.to_rgb(_heif(data, max_pixels).to_pillow(), kind), 1


def exif_block(kind: str, data: bytes) -> bytes:
    """Return the EXIF data of a photo, a TIFF structure; empty where there are none."""
    if kind == "HEIC":
        found: bytes = _heif(data, 2**62).info.get("exif") or b""
        return found
    if kind == "JXL":
        for name, start, end in image_containers.boxes(data):
            if name == b"Exif":
                block = data[start:end]
                # The standard has a number of bytes to pass over in front, which some writers leave out.
                skipped = 0 if block[:2] in (b"II", b"MM") else 4 + int.from_bytes(block[:4], "big")
                return block[skipped:]
        return b""
    return data if data[:4] in (b"II*\0", b"MM\0*") else b""


def jpeg_in(kind: str, data: bytes) -> bytes | None:
    """Return the JPEG that a file holds: a raw file's preview, or what was packed as JPEG XL; else None."""
    if kind == "RAW":
        found, _ = preview(data)
        return found if isinstance(found, bytes) else None
    if kind == "JXL" and any(name == b"jbrd" for name, *_ in image_containers.boxes(data)):
        return bytes(package("JXL").Decoder(num_threads=1)(data)[2])
    return None


def _heif(data: bytes, max_pixels: int) -> Any:
    """Open the first image of a HEIC file; nothing is decoded before it is asked for."""
    heif = package("HEIC")
    for _ in image_containers.boxes(data):  # to their ends
        pass
    found = heif.open_heif(io.BytesIO(data))
    width, height = found.size
    check_pixels(width, height, max_pixels)
    return found


def _jpeg_xl(data: bytes, at_least: int | None, max_pixels: int) -> tuple[ByteArray, int]:
    decoder = package("JXL").Decoder(num_threads=1)
    width, height, orientation = image_containers.jpeg_xl(data)  # before all of it is decoded
    check_pixels(width, height, max_pixels)
    is_jpeg, about, pixels, *_ = decoder(data)
    if is_jpeg:  # packed without loss: the file as it was
        return jpeg.decode(bytes(pixels), at_least, max_pixels)
    from PIL import Image

    mode = "F" if about.mode == "F;16" else about.mode
    image = Image.frombytes(mode, (about.width, about.height), bytes(pixels))
    if (about.width, about.height) != ((height, width) if orientation >= 5 else (width, height)):
        reject(RejectReason.CORRUPT, "its header gives another size than its pixels have")
    return pillow.to_rgb(image, "JXL"), 1


def preview(data: bytes) -> tuple[bytes | ByteArray, int]:
    """Return the preview in a raw file, as a JPEG or as pixels, and its EXIF orientation."""
    rawpy = package("RAW")
    try:
        with rawpy.imread(io.BytesIO(data)) as raw:
            flip, upright = raw.sizes.flip, raw.sizes.width >= raw.sizes.height
            found = raw.extract_thumb()
    except (rawpy.LibRawNoThumbnailError, rawpy.LibRawUnsupportedThumbnailError):
        reject(RejectReason.UNSUPPORTED, "a raw file without a preview; export it as JPEG")
    except rawpy.LibRawFileUnsupportedError:
        reject(RejectReason.UNSUPPORTED, "a raw file of an unknown camera; export it as JPEG")
    except rawpy.LibRawIOError:
        reject(RejectReason.TRUNCATED, "the file ends before the image does")
    except rawpy.LibRawError as error:
        reject(RejectReason.CORRUPT, str(error))
    orientation = _TURNS.get(flip, 1)
    if found.format != rawpy.ThumbFormat.JPEG:
        pixels = np.asarray(found.data)
        return pixels, orientation if (pixels.shape[1] >= pixels.shape[0]) == upright else 1
    with suppress(IndexError, ValueError):
        shape = image_containers.jpeg(found.data, whole=False)
        if (shape.width >= shape.height) != upright:  # the camera has turned it
            return found.data, 1
        # LibRaw writes the orientation of the raw file into a preview without one.
        orientation = shape.orientation if shape.orientation != 1 else orientation
    return found.data, orientation
