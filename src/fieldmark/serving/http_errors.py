"""Errors of requests and photos: HTTP status, code for programs, message for people."""

from __future__ import annotations

from collections.abc import Sequence

from fieldmark.utils.errors import ImageRejected, RejectReason
from fieldmark.utils.languages import to_say


class HttpError(Exception):
    """A request, or one of its photos, cannot be answered. The client gets it as JSON.

    Attributes:
        status: The HTTP status.
        code: One word for programs.
        message: One sentence for people.
        retry_after: Seconds after which to try again; None where that would not help.
        each_photo: If no photo of a request was answered: the name and the error of each.
    """

    def __init__(self, status: int, code: str, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.retry_after = retry_after
        self.each_photo: Sequence[tuple[str, HttpError]] = ()


_PHOTOS = {
    RejectReason.EMPTY: (422, to_say("The file is empty.")),
    RejectReason.NOT_AN_IMAGE: (
        415,
        to_say("This file is not a photo. Send JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF."),
    ),
    RejectReason.UNSUPPORTED: (
        415,
        to_say("This image format is not supported. Send JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF."),
    ),
    RejectReason.TRUNCATED: (422, to_say("The photo is cut off: a part of the file is missing.")),
    RejectReason.CORRUPT: (422, to_say("The photo is damaged and cannot be read.")),
    RejectReason.OUTSIDE: (422, "The box lies outside of the photo."),
    RejectReason.TOO_LARGE: (413, "The photo is too large: the limit is {:,.4g} million pixels."),
}


SENTENCES = (*(message for _, message in _PHOTOS.values()), to_say("The API key is missing or wrong."))
"""What the web page says in its own language; the API is in English."""


def photo_rejected(rejected: ImageRejected, max_pixels: int) -> HttpError:
    """Return the error for a photo that the decoder rejected."""
    status, message = _PHOTOS.get(rejected.reason, (422, "The photo cannot be read."))
    return HttpError(status, rejected.reason.value, message.format(max_pixels / 1e6))


def defect() -> HttpError:
    """Return the error for a defect of the server."""
    message = "Internal server error: search the server's log for this request id."
    return HttpError(500, "defect", message)


def busy(retry_after: int) -> HttpError:
    """Return the error for a full queue."""
    message = f"Server busy: queue full, retry later (in {retry_after} s)."
    return HttpError(503, "busy", message, retry_after)


def body_too_large(max_bytes: int) -> HttpError:
    """Return the error for a body with too many bytes."""
    size = f"{max_bytes / 2**20:,.3g} MiB" if max_bytes >= 2**20 else f"{max_bytes:,} bytes"
    return HttpError(413, "body-too-large", f"The file is too large: the limit is {size}.")


def bad_form(reason: str) -> HttpError:
    """Return the error for a form that cannot be read."""
    return HttpError(400, "bad-form", f"The form cannot be read: {reason.rstrip('.')}.")


def not_offered(what: str) -> HttpError:
    """Return the error for something that this classifier cannot do."""
    return HttpError(501, "not-offered", f"This classifier does not support {what}.")
