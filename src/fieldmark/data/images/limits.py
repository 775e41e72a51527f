"""Limits of decoders, and their errors as `ImageRejected`."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager

from fieldmark.data.image_containers import reject
from fieldmark.utils.errors import ImageRejected, RejectReason

MAX_PIXELS = 100_000_000
"""Pixels of the largest image that is decoded, 300 MB of RGB."""


@contextmanager
def as_rejections() -> Iterator[None]:
    """Raise any exception of a decoder as `ImageRejected`."""
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
    if any(word in words for word in ("unsupported", "not supported", "not implemented", "unknown")):
        return RejectReason.UNSUPPORTED
    return RejectReason.CORRUPT


def _sentence(error: BaseException) -> str:
    if isinstance(error, (EOFError, IndexError, struct.error)):
        return "the file ends before the image does"
    words = " ".join(str(error).split())[:200]
    return (
        words
        if isinstance(error, (OSError, ValueError, SyntaxError)) and words
        else (f"the decoder failed with {type(error).__name__}: {words}")
    )


def check_pixels(width: int, height: int, max_pixels: int) -> None:
    """Reject an image without pixels, or with more than `max_pixels`."""
    if width <= 0 or height <= 0:
        reject(RejectReason.CORRUPT, f"an image of {width} x {height} pixels")
    if width * height > max_pixels:
        reject(RejectReason.TOO_LARGE, f"{width} x {height} pixels, above {max_pixels:,}")
