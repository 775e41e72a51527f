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
import math
import re
import struct
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fieldmark import containers, places
from fieldmark.containers import reject
from fieldmark.errors import ImageRejected, RejectReason
from fieldmark.places import Place

if TYPE_CHECKING:
    from PIL import Image, ImageFile

Pixels = npt.NDArray[np.uint8]

MAX_PIXELS = 100_000_000
"""A picture with more pixels is refused from its header: 300 MB once decoded."""

MAX_BYTES = places.MAX_BYTES

# A progressive JPEG is passed over once for each of its scans. Cameras write about 10; a file made
# to hold up a server has thousands. The product of pixels and scans is limited.
_MAX_PIXEL_SCANS = 20 * MAX_PIXELS

# libjpeg-turbo decodes at n/8 of the size. These n are quick: the others lack vector code and are
# slower than decoding in full.
_QUICK_EIGHTHS = (1, 2, 3, 4)

# What libjpeg-turbo warns of although every pixel is there.
_HARMLESS = ("extraneous bytes", "Adobe color", "JFIF revision", "SOS parameters", "ICC marker")
_ODD_SAMPLING = "Could not determine subsampling"


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
    with _only_rejections():
        kind = _kind(data)
        if kind == "JPEG":
            jpeg = containers.jpeg(data, whole=False)
            width, height, orientation = jpeg.width, jpeg.height, jpeg.orientation
        else:
            with _quiet():
                image, orientation = _open(kind, data, max_pixels, whole=False)
                width, height = image.size
        _limit(width, height, max_pixels)
        return _turned_header(width, height, orientation, kind)


def decode(data: bytes, *, at_least: int | None = None, max_pixels: int = MAX_PIXELS) -> Pixels:
    """The picture as RGB, uint8, shape (H, W, 3), C-contiguous, upright by its EXIF orientation.

    Args:
        data: a file's bytes.
        at_least: a JPEG may be decoded at a fraction of its size, with its shorter side never below
            this number of pixels. None: at its full size.
        max_pixels: a picture with more is refused from its header.

    Raises:
        ImageRejected: and nothing else, for any bytes.
    """
    with _only_rejections():
        kind = _kind(data)
        if kind == "JPEG":
            pixels, orientation = _decode_jpeg(data, at_least, max_pixels)
        else:
            pixels, orientation = _decode_other(kind, data, max_pixels)
        return np.ascontiguousarray(_upright(pixels, orientation))


def verify(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Header:
    """Refuse all that `decode` refuses, and give the size of the rest, as cheaply as that can be done.

    A JPEG is decoded at an eighth of its size, which still reads all of its data.

    Raises:
        ImageRejected: and nothing else, for any bytes.
    """
    with _only_rejections():
        kind = _kind(data)
        if kind == "JPEG":
            jpeg = _checked_jpeg(data, max_pixels)
            _turbo(data, jpeg, at_least=1)
            return _turned_header(jpeg.width, jpeg.height, jpeg.orientation, kind)
        pixels, orientation = _decode_other(kind, data, max_pixels)
        return _turned_header(pixels.shape[1], pixels.shape[0], orientation, kind)


def taken(data: bytes) -> str:
    """When a picture was taken by its EXIF data, as ISO 8601; "" where it does not say.

    A camera that says no time zone is taken to keep UTC.

    Raises:
        ImageRejected: the bytes are no picture.
    """
    from PIL import ExifTags, Image

    with _only_rejections(), _quiet(), Image.open(io.BytesIO(data)) as picture:
        about = picture.getexif().get_ifd(ExifTags.IFD.Exif)
        when = str(about.get(ExifTags.Base.DateTimeOriginal, ""))
        zone = str(about.get(ExifTags.Base.OffsetTimeOriginal, "Z"))
    found = re.fullmatch(r"(\d{4}):(\d\d):(\d\d) (\d\d:\d\d:\d\d)", when)
    if found is None or not re.fullmatch(r"Z|[+-]\d\d:\d\d", zone):
        return ""
    return f"{found[1]}-{found[2]}-{found[3]}T{found[4]}{zone}"


# What may come out


@contextmanager
def named(photo: bytes | Path | str) -> Iterator[None]:
    """Within it a rejection says which photo it is of, where that has a name."""
    try:
        yield
    except ImageRejected as error:
        if isinstance(photo, bytes):
            raise
        raise ImageRejected(error.reason, f"{photo}: {error.detail}") from error


@contextmanager
def _only_rejections() -> Iterator[None]:
    """Turn whatever a decoder raises into `ImageRejected`."""
    try:
        yield
    except ImageRejected:
        raise
    except MemoryError as error:
        raise ImageRejected(RejectReason.TOO_LARGE, "not enough memory to decode it") from error
    except Exception as error:
        raise ImageRejected(_reason_of(error), _sentence(error)) from error


def _reason_of(error: BaseException) -> RejectReason:
    if isinstance(error, (EOFError, IndexError, struct.error)):
        return RejectReason.TRUNCATED
    words = str(error).lower()
    if "too large" in words:
        return RejectReason.TOO_LARGE
    if any(word in words for word in ("truncat", "premature", "not enough", "end of file", "eof")):
        return RejectReason.TRUNCATED
    if any(
        word in words for word in ("unsupported", "not supported", "not implemented", "unknown")
    ):
        return RejectReason.UNSUPPORTED
    return RejectReason.CORRUPT


def _sentence(error: BaseException) -> str:
    if isinstance(error, (EOFError, IndexError, struct.error)):
        return "the file ends before the picture does"
    words = " ".join(str(error).split())[:200]
    return (
        words
        if isinstance(error, (OSError, ValueError, SyntaxError)) and words
        else (f"the decoder failed with {type(error).__name__}: {words}")
    )


def _kind(data: bytes) -> str:
    if len(data) > MAX_BYTES:
        reject(RejectReason.TOO_LARGE, f"{len(data):,} bytes")
    return containers.sniff(data)


def _limit(width: int, height: int, max_pixels: int) -> None:
    if width <= 0 or height <= 0:
        reject(RejectReason.CORRUPT, f"a picture of {width} x {height} pixels")
    if width * height > max_pixels:
        reject(RejectReason.TOO_LARGE, f"{width} x {height} pixels, above {max_pixels:,}")


# Orientation


def _turned_header(width: int, height: int, orientation: int, kind: str) -> Header:
    return Header(height, width, kind) if orientation >= 5 else Header(width, height, kind)


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    """Undo how the camera was held (EXIF 2.32, tag Orientation)."""
    if orientation >= 5:  # stored on its side: rows are columns
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


# JPEG


def _checked_jpeg(data: bytes, max_pixels: int) -> containers.Jpeg:
    size = containers.jpeg(data, whole=False)
    _limit(size.width, size.height, max_pixels)
    jpeg = containers.jpeg(data, whole=True)
    if jpeg.scans * jpeg.width * jpeg.height > max(_MAX_PIXEL_SCANS, 20 * max_pixels):
        reject(RejectReason.TOO_LARGE, f"{jpeg.scans} scans of {jpeg.width} x {jpeg.height} pixels")
    return jpeg


def _decode_jpeg(data: bytes, at_least: int | None, max_pixels: int) -> tuple[Pixels, int]:
    jpeg = _checked_jpeg(data, max_pixels)
    pixels = _turbo(data, jpeg, at_least)
    return (pixels if jpeg.components != 4 else _from_cmyk(pixels, jpeg.adobe)), jpeg.orientation


def _turbo(data: bytes, jpeg: containers.Jpeg, at_least: int | None) -> Pixels:
    """Decode with libjpeg-turbo, shape (H, W, 3), or (H, W, 4) for CMYK; releases the GIL."""
    import simplejpeg

    options: dict[str, Any] = {"colorspace": "CMYK" if jpeg.components == 4 else "RGB"}
    if at_least is not None:
        eighths = _eighths(min(jpeg.width, jpeg.height), at_least)
        if eighths < 8:
            options["min_height"] = math.ceil(jpeg.height * eighths / 8)
            options["min_width"] = math.ceil(jpeg.width * eighths / 8)
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(data, strict=True, **options)
    except ValueError as error:
        if _ODD_SAMPLING in str(error):
            return _pillow_jpeg(data)
        if not any(words in str(error) for words in _HARMLESS):
            raise
        pixels = _turbo_cleaned(containers.jpeg_cleaned(data), options)
    return pixels


def _turbo_cleaned(data: bytes, options: dict[str, Any]) -> Pixels:
    """Once more, for a sound picture among odd metadata: first strictly, so that damage shows."""
    import simplejpeg

    try:
        pixels: Pixels = simplejpeg.decode_jpeg(data, strict=True, **options)
    except ValueError as error:
        if not any(words in str(error) for words in _HARMLESS):
            raise
        pixels = simplejpeg.decode_jpeg(data, strict=False, **options)
    return pixels


def _pillow_jpeg(data: bytes) -> Pixels:
    """Decode a JPEG whose samples are laid out in a way that the direct interface does not name."""
    with _quiet():
        image = _plugin("JPEG")(io.BytesIO(data))
        return np.array(image if image.mode == "CMYK" else image.convert("RGB"))


def _eighths(shorter: int, at_least: int) -> int:
    """At how many eighths of its size a JPEG is decoded so that no side falls below `at_least`."""
    return next((n for n in _QUICK_EIGHTHS if math.ceil(shorter * n / 8) >= at_least), 8)


def _from_cmyk(cmyk: Pixels, inverted: bool) -> Pixels:
    """CMYK of shape (H, W, 4) to RGB: paper white times what ink and black let through."""
    passes = cmyk if inverted else 255 - cmyk
    rgb = np.empty((*cmyk.shape[:2], 3), np.uint8)
    black = passes[..., 3].astype(np.uint16)
    for channel in range(3):
        rgb[..., channel] = (passes[..., channel] * black + 127) // 255
    return rgb


# All else, through Pillow


def _plugin(kind: str) -> Callable[[io.BytesIO], ImageFile.ImageFile]:
    """Pillow's reader for one format, called by name so that no other one sees the bytes."""
    from PIL import (
        BmpImagePlugin,
        GifImagePlugin,
        JpegImagePlugin,
        PngImagePlugin,
        PpmImagePlugin,
        TiffImagePlugin,
        WebPImagePlugin,
        features,
    )

    if kind == "AVIF":
        if not features.check("avif"):
            reject(RejectReason.UNSUPPORTED, "this Pillow was built without AVIF")
        from PIL import AvifImagePlugin

        return AvifImagePlugin.AvifImageFile
    plugins: dict[str, Callable[[io.BytesIO], ImageFile.ImageFile]] = {
        "BMP": BmpImagePlugin.BmpImageFile,
        "GIF": GifImagePlugin.GifImageFile,
        "JPEG": JpegImagePlugin.JpegImageFile,
        "PNG": PngImagePlugin.PngImageFile,
        "PNM": PpmImagePlugin.PpmImageFile,
        "TIFF": TiffImagePlugin.TiffImageFile,
        "WEBP": WebPImagePlugin.WebPImageFile,
    }
    return plugins[kind]


def _open(
    kind: str, data: bytes, max_pixels: int, *, whole: bool
) -> tuple[ImageFile.ImageFile, int]:
    """Open without decoding, with limits and ends checked; the image and its EXIF orientation."""
    orientation = 1
    if kind == "WEBP":
        webp = containers.webp(data)
        _limit(webp.width, webp.height, max_pixels)
        orientation = webp.orientation
    elif kind == "PNG":
        png = containers.png(data, whole=whole)
        orientation = png.orientation
    elif kind == "GIF" and whole:
        containers.gif_ends(data)
    elif kind == "BMP" and whole:
        containers.bmp_ends(data)
    image = _plugin(kind)(io.BytesIO(data))
    _limit(*image.size, max_pixels)
    if kind == "AVIF":
        orientation = _valid_orientation(image.getexif().get(0x0112))
    if kind == "TIFF" and whole:
        _tiff_ends(image, len(data))
    return image, orientation  # a TIFF is turned by Pillow itself when it is loaded


def _valid_orientation(value: object) -> int:
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _tiff_ends(image: Any, size: int) -> None:
    """Refuse a TIFF whose strips or tiles lie beyond its end."""
    for offsets, counts in ((273, 279), (324, 325)):
        starts, lengths = image.tag_v2.get(offsets, ()), image.tag_v2.get(counts, ())
        if any(start + length > size for start, length in zip(starts, lengths, strict=False)):
            reject(RejectReason.TRUNCATED, "the file ends before the picture does")


def _decode_other(kind: str, data: bytes, max_pixels: int) -> tuple[Pixels, int]:
    with _quiet():
        image, orientation = _open(kind, data, max_pixels, whole=True)
        image.load()
        _limit(*image.size, max_pixels)  # some formats say more once they are read
        return _to_rgb(image, kind), orientation


def _to_rgb(image: Image.Image, kind: str) -> Pixels:
    if image.mode.startswith(("I", "F")):
        return _from_deep_grey(image, kind)
    if image.mode in ("LA", "PA", "La", "RGBA", "RGBa") or "transparency" in image.info:
        return _on_white(image)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _on_white(image: Image.Image) -> Pixels:
    from PIL import Image

    clear = image.info.get("transparency")
    if isinstance(clear, tuple) and max(clear) > 255:  # 16-bit samples, which Pillow reads as 8-bit
        image.info["transparency"] = tuple(value >> 8 for value in clear)
    if image.mode == "La":  # grey already multiplied by its alpha, which has no way to RGBA
        image = image.convert("LA")
    rgba = image.convert("RGBA")
    page = Image.new("RGB", rgba.size, "white")
    page.paste(rgba, mask=rgba.getchannel("A"))
    return np.array(page)


def _from_deep_grey(image: Image.Image, kind: str) -> Pixels:
    """Grey of more than 8 bits, shape (H, W), to RGB."""
    values = np.asarray(image)
    tags: Any = getattr(image, "tag_v2", {})
    if image.mode.startswith("I;16") or kind != "TIFF":
        bits = tags.get(258, (16,))[0] if kind == "TIFF" else 16
        grey = values.astype(np.float32) * np.float32(255 / ((1 << bits) - 1))
    else:
        grey = _stretched(values)
    if tags.get(262) == 0:  # "white is zero": Pillow turns only 8-bit samples round
        grey = 255 - grey
    grey8 = np.rint(grey.clip(0, 255)).astype(np.uint8)
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        grey8 = np.where(values == clear, np.uint8(255), grey8)
    return np.repeat(grey8[..., None], 3, axis=2)


def _stretched(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Values without an agreed white, brought to 0..255; what is not a number is black."""
    wide = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(wide.min()), float(wide.max())
    if low >= 0 and high <= 1 and values.dtype.kind == "f":
        return (wide * 255).astype(np.float32)
    if low >= 0 and high <= 255:
        return wide.astype(np.float32)
    return ((wide - low) * (255 / max(high - low, 1e-12))).astype(np.float32)


_quiet_lock = threading.Lock()
_quiet_users = 0
_quiet_filters: warnings.catch_warnings[Any] | None = None


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Pillow's warnings from deciding about a picture, in any number of threads.

    They are of metadata that is not used here; where warnings are errors, they would make a good
    picture a bad one. `warnings.catch_warnings` alone is not safe in threads: the first one in
    sets the filter, the last one out takes it away.
    """
    global _quiet_users, _quiet_filters  # noqa: PLW0603
    with _quiet_lock:
        _quiet_users += 1
        if _quiet_users == 1:
            _quiet_filters = warnings.catch_warnings()
            _quiet_filters.__enter__()
            warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_users -= 1
            if _quiet_users == 0 and _quiet_filters is not None:
                _quiet_filters.__exit__(None, None, None)
                _quiet_filters = None
