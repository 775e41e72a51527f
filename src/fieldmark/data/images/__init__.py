"""Decode images: bytes to RGB uint8 (H, W, 3), or `ImageRejected(reason)` and nothing else.

A damaged photo must neither end the run nor be used as half an image. JPEG is decoded by libjpeg-turbo,
which is faster than Pillow with the same pixels, can decode at a fraction of the size, and rejects damaged
data; all else by Pillow's plugin for that format and no other.

What is not 8-bit RGB: alpha and transparent palettes are composed on white. Grey of 9 to 16 bits is scaled
to 0..255, never clipped. 32-bit integers and floats have no defined white: floats within 0..1 are scaled by
255, values within 0..255 stay, all else is scaled from its minimum to its maximum. Of an animation or a
document the first page is taken. Colour profiles are not applied: networks are trained on pixels as stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fieldmark.data import image_containers
from fieldmark.data.image_containers import reject
from fieldmark.data.images import boxes, extras, jpeg, pillow, publishing
from fieldmark.data.images.limits import MAX_PIXELS as MAX_PIXELS
from fieldmark.data.images.limits import as_rejections, check_pixels
from fieldmark.data.images.metadata import Exif as Exif
from fieldmark.data.images.metadata import exif as exif
from fieldmark.data.storage import places
from fieldmark.data.storage.places import Box, Place
from fieldmark.utils import io
from fieldmark.utils.cpu import cores
from fieldmark.utils.errors import ImageRejected, RejectReason
from fieldmark.utils.threads import RecentValues
from fieldmark.utils.typing import ByteArray, Pixels

if TYPE_CHECKING:
    from PIL import Image

MAX_BYTES = places.MAX_BYTES
_decoded: RecentValues[ByteArray] = RecentValues(cores())  # a photo for each thread that cuts boxes
_COLOURLESS = 12  # grey levels between the channels of all but a few pixels


class Header(NamedTuple):
    """The size of an image in pixels, after EXIF orientation, and its format (see `detect_format`)."""

    width: int
    height: int
    format: str
    orientation: int = 1  # of EXIF, 1 to 8


def read_bytes(place: Place) -> bytes:
    """Read the bytes of a photo; for a box of one, make and return those of its crop.

    Raises:
        ImageRejected: MISSING, UNREADABLE, EMPTY, OUTSIDE or TOO_LARGE (more than `MAX_BYTES`).
        InputError: the server of a remote photo does not answer, or refuses the credentials.
    """
    data = places.read(place, MAX_BYTES)
    if isinstance(place, places.Boxed):
        digest, box = io.sha256(data), place.box
        return boxes.kept(digest, box, lambda: boxes.encoded(_pixels_of(data, digest), box_shown(box, data)))
    return data


def _pixels_of(data: bytes, digest: str) -> ByteArray:
    """Decode a photo once for all of its boxes, which follow each other."""
    return _decoded.get(digest, lambda: decode(data))


def box_crops(data: bytes, found: Sequence[Box]) -> list[bytes]:
    """Return the crops of boxes of a photo, which is decoded once, as JPEGs.

    Raises:
        ImageRejected: the photo cannot be decoded, or a box lies outside of it.
    """
    pixels = decode(data)
    return [boxes.encoded(pixels, box_shown(box, data)) for box in found]


def read_cut(place: Place) -> ByteArray:
    """Read a photo, or a box of one, with `decode_cut`; raises as it and `read_bytes` do."""
    box = place.box if isinstance(place, places.Boxed) else None
    return decode_cut(places.read(place, MAX_BYTES), box)


def without_people(data: bytes, people: Sequence[Box]) -> bytes:
    """Return a copy of a photo as a JPEG: boxes blurred, and of its metadata the time and the camera alone.

    A JPEG without a box keeps its pixels as they are stored, others are encoded anew.

    Raises:
        ImageRejected: it cannot be decoded.
    """
    found, about = verify(data), exif(data)
    with as_rejections():
        if found.format == "JPEG" and not people:
            return publishing.with_time(data, about, found.orientation)
        shown = [box_shown(box, data) for box in people]
        return publishing.with_time(
            jpeg.encoded(publishing.blurred(decode(data), shown), publishing.QUALITY), about
        )


def header(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Header:
    """Read the size and format of an image from its header.

    Raises:
        ImageRejected: the bytes are not an image of a supported format, or it has too many pixels.
    """
    with as_rejections():
        kind = _kind(data)
        if kind == "JPEG":
            width, height, _, orientation, *_ = image_containers.jpeg(data, whole=False)
        elif kind in extras.PACKAGES:
            width, height, orientation = extras.header(kind, data, max_pixels)
        else:
            with pillow.ignore_warnings():
                image, orientation = pillow.open_checked(kind, data, max_pixels, whole=False)
                width, height = image.size
        check_pixels(width, height, max_pixels)
        return _oriented_header(width, height, orientation, kind)


def decode(data: bytes, *, at_least: int | None = None, max_pixels: int = MAX_PIXELS) -> ByteArray:
    """Decode an image to RGB, uint8, shape (H, W, 3), C-contiguous, in EXIF orientation.

    Args:
        data: a file's bytes.
        at_least: a JPEG may be decoded at a fraction of its size, with its shorter side at least so
            many pixels; None: at its full size.
        max_pixels: an image with more is rejected by its header.

    Raises:
        ImageRejected: and nothing else, for any bytes.
    """
    with as_rejections():
        kind = _kind(data)
        if kind == "JPEG":
            pixels, orientation = jpeg.decode(data, at_least, max_pixels)
        elif kind in extras.PACKAGES:
            pixels, orientation = extras.decode(kind, data, at_least, max_pixels)
        else:
            pixels, orientation = pillow.decode(kind, data, max_pixels)
        return np.ascontiguousarray(_oriented(pixels, orientation))


def decode_cut(data: bytes, box: Box | None = None, *, max_pixels: int = MAX_PIXELS) -> ByteArray:
    """Decode what is there of a JPEG that was cut off: RGB, uint8, shape (H, W, 3), in EXIF orientation.

    Args:
        data: a file's bytes.
        box: return the square around it, see `images.boxes`.
        max_pixels: an image with more is rejected by its header.

    Raises:
        ImageRejected: less than half of the photo, or of the square, is there; or it is no such JPEG.
    """
    with as_rejections():
        if _kind(data) != "JPEG":
            reject(RejectReason.TRUNCATED, "only of a JPEG a part can be used")
        pixels, rows, orientation = jpeg.decode_cut(data, max_pixels)
        there = np.zeros(pixels.shape[:2], np.bool_)
        there[:rows] = True
        whole, known = _oriented(pixels, orientation), _oriented(there, orientation)
        if box is not None and known.mean() >= 0.5:
            shown = box_shown(box, data)
            whole, known = boxes.pixels_in(whole, shown), boxes.pixels_in(known, shown)
        if known.mean() < 0.5:
            reject(RejectReason.TRUNCATED, f"{known.mean():.0%} of it is there")
        return np.ascontiguousarray(whole[known.any(axis=1)][:, known.any(axis=0)])


def from_pillow(image: Image.Image, *, max_pixels: int = MAX_PIXELS) -> ByteArray:
    """Return an image that Pillow has opened or made as `decode` gives it; of any mode.

    Raises:
        ImageRejected: it cannot be decoded, or has too many pixels.
    """
    with as_rejections(), pillow.ignore_warnings():
        check_pixels(*image.size, max_pixels)
        image.load()
        pixels = pillow.to_rgb(image, image.format or "TIFF")
        return np.ascontiguousarray(_oriented(pixels, pillow.orientation_of(image)))


def verify(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Header:
    """Reject what `decode` rejects, faster: a JPEG is decoded at an eighth of its size.

    Raises:
        ImageRejected: and nothing else, for any bytes.
    """
    with as_rejections():
        kind = _kind(data)
        if kind == "JPEG":
            found = jpeg.checked(data, max_pixels)
            jpeg.turbo(data, found, at_least=1)
            return _oriented_header(found.width, found.height, found.orientation, kind)
        if kind in extras.PACKAGES:
            pixels, orientation = extras.decode(kind, data, None, max_pixels)
        else:
            pixels, orientation = pillow.decode(kind, data, max_pixels)
        return _oriented_header(pixels.shape[1], pixels.shape[0], orientation, kind)


def is_grey(data: bytes) -> bool:
    """Return whether a photo has no colours, as those that a camera trap takes at night by infrared.

    It is decoded at a reduced size; a colour cast that all pixels have alike is none.

    Raises:
        ImageRejected: the bytes are not an image.
    """
    pixels = decode(data, at_least=48).astype(np.int16)
    spread = pixels.max(axis=2) - pixels.min(axis=2)
    return float(np.percentile(spread, 95) - np.median(spread)) < _COLOURLESS


def exif_of(place: Place) -> Exif:
    """Read the EXIF data of a photo, or of that a box is of; all is unknown where it cannot be read.

    Raises:
        InputError: the server of a remote photo does not answer, or refuses the credentials.
    """
    photo = places.photo_of(place)
    stamp = places.stamp(photo)
    return _read_exif(photo) if stamp is None else _kept_exif(photo, *stamp)


@lru_cache(maxsize=64)
def _kept_exif(photo: Place, _size: int, _modified: int) -> Exif:
    """Read a photo once for all of its boxes, and for its place and its record."""
    return _read_exif(photo)


def _read_exif(photo: Place) -> Exif:
    try:
        return exif(places.read(photo, MAX_BYTES))
    except ImageRejected:
        return Exif()


def box_shown(box: Box, data: bytes) -> Box:
    """Return a box in the photo as it is shown, see `boxes.turned`.

    Raises:
        ImageRejected: the bytes are not an image.
    """
    found = header(data)
    return boxes.turned(box, found.width, found.height, found.orientation)


@contextmanager
def naming_photo(photo: bytes | Place | str) -> Iterator[None]:
    """Add the name of the photo, where it has one, to a rejection in the block."""
    try:
        yield
    except ImageRejected as error:
        if isinstance(photo, bytes):
            raise
        raise ImageRejected(error.reason, f"{photo}: {error.detail}") from error


def _kind(data: bytes) -> str:
    if len(data) > MAX_BYTES:
        reject(RejectReason.TOO_LARGE, f"{len(data):,} bytes")
    return image_containers.detect_format(data)


def _oriented_header(width: int, height: int, orientation: int, kind: str) -> Header:
    shown = (height, width) if orientation >= 5 else (width, height)
    return Header(*shown, kind, orientation)


def _oriented(pixels: Pixels, orientation: int) -> Pixels:
    """Apply the EXIF orientation (EXIF 2.32, tag Orientation)."""
    if orientation >= 5:  # stored on its side: rows are columns
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels
