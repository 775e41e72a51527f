"""Every refusal, with its status, its code for a program and its sentence for a person."""

from __future__ import annotations

from fieldmark.utils.errors import ImageRejected, RejectReason


class Refused(Exception):
    """A request, or one of its photos, gets no answer. Never leaves the server but as JSON.

    Attributes:
        status: the HTTP status.
        code: one word for a program.
        message: one sentence for a person.
        retry_after: after how many seconds to try again; None where that would not help.
    """

    def __init__(
        self, status: int, code: str, message: str, retry_after: int | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.retry_after = retry_after


_KINDS = "JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF"
_PHOTOS = {
    RejectReason.EMPTY: (422, "The file is empty."),
    RejectReason.NOT_AN_IMAGE: (415, f"This file is not a photo. Send {_KINDS}."),
    RejectReason.UNSUPPORTED: (415, f"This kind of picture is not read here. Send {_KINDS}."),
    RejectReason.TRUNCATED: (422, "The photo is cut off: a part of the file is missing."),
    RejectReason.CORRUPT: (422, "The photo is damaged and cannot be read."),
}


def of_photo(rejected: ImageRejected, max_pixels: int) -> Refused:
    """The refusal of a photo that the decoder rejected."""
    if rejected.reason is RejectReason.TOO_LARGE:
        million = f"{max_pixels / 1e6:,.4g}"
        message = f"The photo is too large: at most {million} million pixels are read."
        return Refused(413, rejected.reason.value, message)
    status, message = _PHOTOS.get(rejected.reason, (422, "The photo cannot be read."))
    return Refused(status, rejected.reason.value, message)


def decoder_failed() -> Refused:
    """The refusal of a photo that crashed the process that decoded it, or held it up."""
    return Refused(422, "decoder-failed", "The photo cannot be decoded safely.")


def busy(retry_after: int) -> Refused:
    """All places are taken."""
    message = f"All places are taken. Try again in {retry_after} s."
    return Refused(503, "busy", message, retry_after)


def body_too_large(max_bytes: int) -> Refused:
    """More bytes than a request may bring."""
    size = f"{max_bytes / 2**20:,.3g} MiB" if max_bytes >= 2**20 else f"{max_bytes:,} bytes"
    return Refused(413, "body-too-large", f"The file is too large: at most {size} may be sent.")


def not_offered(what: str) -> Refused:
    """Something that this server or this classifier cannot do."""
    return Refused(501, "not-offered", f"This classifier offers no {what}.")
