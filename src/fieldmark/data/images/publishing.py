"""Copies of photos for publishing: people are made unrecognisable, and the place is left out.

Metadata are written anew, since a place and a small picture of the whole are in many of their fields: EXIF,
XMP, maker notes, thumbnails, a second picture behind the first.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fieldmark.data.image_containers import strip_jpeg_metadata
from fieldmark.data.images.metadata import Exif
from fieldmark.data.storage.places import Box
from fieldmark.utils.typing import ByteArray

if TYPE_CHECKING:
    from PIL import Image

_BLOCKS = 6  # along the longer side of a box, whatever its pixels
_MARGIN = 0.1  # on each side of a box, as a share of its sides
QUALITY = 92  # of the JPEG that a copy is encoded as
_MODEL, _ORIENTATION, _EXIF, _TAKEN, _ZONE = 0x0110, 0x0112, 0x8769, 0x9003, 0x9011


def blurred(photo: ByteArray, people: Sequence[Box]) -> ByteArray:
    """Return a copy of a photo, uint8 (H, W, 3), whose boxes are six smooth spots long.

    Each spot is the mean of its pixels, so that nothing finer can be computed from it.
    """
    from PIL import Image

    picture = Image.fromarray(photo)
    for box in people:
        _blur(picture, box)
    return np.asarray(picture)


def _blur(picture: Image.Image, box: Box) -> None:
    from PIL import Image

    sides = []
    for start, length, pixels in (
        (box.left, box.width, picture.width),
        (box.top, box.height, picture.height),
    ):
        low, high = start - _MARGIN * length, start + (1 + _MARGIN) * length
        sides.append((max(0, int(low * pixels)), min(pixels, int(high * pixels) + 1)))
    (left, right), (top, bottom) = sides
    if left >= right or top >= bottom:
        return  # outside of the photo
    part = picture.crop((left, top, right, bottom))
    share = min(1.0, _BLOCKS / max(part.size))
    few = part.resize([max(1, round(side * share)) for side in part.size], Image.Resampling.BOX)
    picture.paste(few.resize(part.size, Image.Resampling.BILINEAR), (left, top))


def with_time(jpeg: bytes, about: Exif, orientation: int = 1) -> bytes:
    """Return a JPEG whose metadata are the time and the camera, and nothing else; its pixels stay."""
    from PIL import Image

    exif = Image.Exif()
    exif[_ORIENTATION] = orientation
    if about.camera_model:
        exif[_MODEL] = about.camera_model
    if about.taken:
        day, time, zone = about.taken[:10], about.taken[11:19], about.taken[19:]
        inner = exif.get_ifd(_EXIF)
        inner[_TAKEN] = f"{day.replace('-', ':')} {time}"
        if zone != "Z":
            inner[_ZONE] = zone
    bare, data = strip_jpeg_metadata(jpeg), exif.tobytes()
    data = data if data.startswith(b"Exif\0\0") else b"Exif\0\0" + data
    return bare[:2] + b"\xff\xe1" + struct.pack(">H", len(data) + 2) + data + bare[2:]
