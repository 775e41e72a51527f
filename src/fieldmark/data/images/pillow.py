"""Decode all formats but JPEG, each with Pillow's plugin for it and no other."""

from __future__ import annotations

import ctypes
import functools
import io
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fieldmark.data import image_containers
from fieldmark.data.image_containers import reject
from fieldmark.data.images.limits import check_pixels
from fieldmark.utils.errors import RejectReason
from fieldmark.utils.typing import ByteArray, FloatArray

if TYPE_CHECKING:
    from PIL import Image, ImageFile

_PLUGINS = {
    **{"AVIF": "Avif", "BMP": "Bmp", "GIF": "Gif", "JPEG": "Jpeg", "PNG": "Png", "PNM": "Ppm"},
    **{"TIFF": "Tiff", "WEBP": "WebP"},
}


def plugin(kind: str) -> Callable[[io.BytesIO], ImageFile.ImageFile]:
    """Return Pillow's plugin for one format, so that no other one is given the bytes."""
    from PIL import features

    if kind == "AVIF" and not features.check("avif"):
        reject(RejectReason.UNSUPPORTED, "this Pillow was built without AVIF")
    if kind == "TIFF":
        _quiet_libtiff()
    module = import_module(f"PIL.{_PLUGINS[kind]}ImagePlugin")
    found: Callable[[io.BytesIO], ImageFile.ImageFile] = getattr(module, f"{_PLUGINS[kind]}ImageFile")
    return found


@functools.cache
def _quiet_libtiff() -> None:
    """Stop libtiff from printing on standard error, where Linux tells its place: Pillow raises its errors."""
    from PIL import _imaging  # noqa: F401  # loads it

    with suppress(OSError, AttributeError, StopIteration):
        maps = Path("/proc/self/maps").read_text(errors="replace").splitlines()
        library = ctypes.CDLL(next(line[line.index("/") :] for line in maps if "libtiff" in line))
        library.TIFFSetErrorHandler(None)
        library.TIFFSetWarningHandler(None)


def open_checked(kind: str, data: bytes, max_pixels: int, *, whole: bool) -> tuple[ImageFile.ImageFile, int]:
    """Open an image without decoding it; check its limits and end; return it with its orientation."""
    orientation = 1
    if kind == "WEBP":
        width, height, orientation = image_containers.webp(data)
        check_pixels(width, height, max_pixels)
    elif kind == "PNG":
        orientation = image_containers.png(data, whole=whole).orientation
    elif kind == "GIF" and whole:
        image_containers.check_gif_end(data)
    elif kind == "BMP" and whole:
        image_containers.check_bmp_end(data)
    image = plugin(kind)(io.BytesIO(data))
    check_pixels(*image.size, max_pixels)
    if kind == "AVIF":
        orientation = orientation_of(image)
    if kind == "TIFF" and whole:
        _check_tiff_end(image, len(data))
    return image, orientation  # Pillow rotates a TIFF itself when it is loaded


def orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation that Pillow sees, 1 to 8; 1 where there is none."""
    value = image.getexif().get(0x0112)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _check_tiff_end(image: Any, size: int) -> None:
    """Reject a TIFF whose strips or tiles lie beyond its end."""
    for offsets, counts in ((273, 279), (324, 325)):
        starts, lengths = image.tag_v2.get(offsets, ()), image.tag_v2.get(counts, ())
        if any(start + length > size for start, length in zip(starts, lengths, strict=False)):
            reject(RejectReason.TRUNCATED, "the file ends before the image does")


def decode(kind: str, data: bytes, max_pixels: int) -> tuple[ByteArray, int]:
    """Return the image as stored, RGB, uint8, shape (H, W, 3), and its EXIF orientation, 1 to 8."""
    with ignore_warnings():
        image, orientation = open_checked(kind, data, max_pixels, whole=True)
        image.load()
        check_pixels(*image.size, max_pixels)  # some formats change their size when they are read
        return to_rgb(image, kind), orientation


def to_rgb(image: Image.Image, kind: str) -> ByteArray:
    """Return the pixels of a loaded image as stored, uint8 (H, W, 3)."""
    if image.mode.startswith(("I", "F")):
        return _from_deep_grey(image, kind)
    if image.mode in ("LA", "PA", "La", "RGBA", "RGBa") or "transparency" in image.info:
        return _on_white(image)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _on_white(image: Image.Image) -> ByteArray:
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


def _from_deep_grey(image: Image.Image, kind: str) -> ByteArray:
    """Convert grey of more than 8 bits, shape (H, W), to RGB."""
    values = np.asarray(image)
    tags: Any = getattr(image, "tag_v2", {})
    if image.mode.startswith("I;16") or kind != "TIFF":
        bits = tags.get(258, (16,))[0] if kind == "TIFF" else 16
        grey = values.astype(np.float32) * np.float32(255 / ((1 << bits) - 1))
    else:
        grey = _stretched(values)
    if tags.get(262) == 0:  # "white is zero": Pillow inverts only 8-bit samples
        grey = 255 - grey
    grey8 = np.rint(grey.clip(0, 255)).astype(np.uint8)
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        grey8 = np.where(values == clear, np.uint8(255), grey8)
    return np.repeat(grey8[..., None], 3, axis=2)


def _stretched(values: npt.NDArray[Any]) -> FloatArray:
    """Scale values without a defined white to 0..255; NaN becomes black."""
    wide = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(wide.min()), float(wide.max())
    if low >= 0 and high <= 1 and values.dtype.kind == "f":
        return (wide * 255).astype(np.float32)
    if low >= 0 and high <= 255:
        return wide.astype(np.float32)
    return ((wide - low) * (255 / max(high - low, 1e-12))).astype(np.float32)


_filter_lock = threading.Lock()
_filter_users = 0
_filters: warnings.catch_warnings[Any] | None = None


@contextmanager
def ignore_warnings() -> Iterator[None]:
    """Ignore Pillow's warnings, in any number of threads.

    They concern metadata; where warnings are errors, they would reject a good image.
    `warnings.catch_warnings` is not thread-safe: the first user sets the filter, the last removes it.
    """
    global _filter_users, _filters  # noqa: PLW0603
    with _filter_lock:
        _filter_users += 1
        if _filter_users == 1:
            _filters = warnings.catch_warnings()
            _filters.__enter__()
            warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        yield
    finally:
        with _filter_lock:
            _filter_users -= 1
            if _filter_users == 0 and _filters is not None:
                _filters.__exit__(None, None, None)
                _filters = None
