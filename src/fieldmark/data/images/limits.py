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
        raise ImageRejected(*_reason_and_sentence(error)) from error


_REASONS = {
    RejectReason.TOO_LARGE: ("too large",),
    RejectReason.TRUNCATED: ("truncat", "premature", "not enough", "end of file", "eof"),
    RejectReason.UNSUPPORTED: ("unsupported", "not supported", "not implemented", "unknown"),
}
"""Words in the messages of decoders; the first reason with one of them applies."""


def _reason_and_sentence(error: Exception) -> tuple[RejectReason, str]:
    if isinstance(error, (EOFError, IndexError, struct.error)):
        return RejectReason.TRUNCATED, "the file ends before the image does"
    message = str(error).lower()
    found = (reason for reason, words in _REASONS.items() if any(word in message for word in words))
    sentence = " ".join(str(error).split())[:200]
    if not sentence or not isinstance(error, (OSError, ValueError, SyntaxError)):
        sentence = f"the decoder failed with {type(error).__name__}: {sentence}"
    return next(found, RejectReason.CORRUPT), sentence


def check_pixels(width: int, height: int, max_pixels: int) -> None:
    """Reject an image without pixels, or with more than `max_pixels`."""
    if width <= 0 or height <= 0:
        reject(RejectReason.CORRUPT, f"an image of {width} x {height} pixels")
    if width * height > max_pixels:
        reject(RejectReason.TOO_LARGE, f"{width} x {height} pixels, above {max_pixels:,}")
