"""Every exception that fieldmark raises on purpose.

    FieldmarkError
    ├── InputError              the user's input cannot be used; the message names the fix
    │   ├── ImageRejected       a file cannot be used as a photo; `reason` is from a closed set
    │   ├── WeightsUnavailable  a network's weights are not on this machine and cannot be downloaded
    │   ├── NotConvertible      a network cannot be converted into an ONNX graph
    │   └── ClassifierError     a folder or file is not a classifier, or a damaged or hostile one
    └── StoreError              a file of fieldmark's own is damaged or locked by another process

The command line prints the message of a `FieldmarkError` and exits with code 2. Any other
exception is a bug.
"""

from __future__ import annotations

from enum import StrEnum


class FieldmarkError(Exception):
    """The base class of all errors that fieldmark raises on purpose."""


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, or its type."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


class InputError(FieldmarkError):
    """The user's input cannot be used; the message names the file, the field and the fix."""


class RejectReason(StrEnum):
    """Why a file is not used as a photo: a closed set, the first eight for defects of a file's bytes."""

    MISSING = "missing"  # no file at this path
    UNREADABLE = "unreadable"  # the operating system refused to give its bytes
    EMPTY = "empty"  # no bytes in it
    NOT_AN_IMAGE = "not-an-image"  # the bytes are not of any image format
    UNSUPPORTED = "unsupported-format"  # an image format that is not supported
    TOO_LARGE = "too-large"  # more pixels or bytes than the limit, seen in the header
    TRUNCATED = "truncated"  # the file ends before the image does
    CORRUPT = "corrupt"  # the decoder found contradictory data
    CHANGED = "changed"  # other bytes than when it was indexed
    NO_LABEL = "no-label"  # unlabelled, in a source whose photos have labels
    UNKNOWN_CATEGORY = "unknown-category"  # its label is not in the source's list of categories
    AMBIGUOUS_LABEL = "ambiguous-label"  # it has several labels
    UNCERTAIN_LABEL = "uncertain-label"  # the source marks its label as uncertain
    MACHINE_LABEL = "machine-label"  # labelled by a model and not verified by a person
    DUPLICATE_ID = "duplicate-id"  # its id was already used for another photo
    DUPLICATE = "duplicate"  # the same bytes as another photo; rejected on request
    NEAR_DUPLICATE = "near-duplicate"  # nearly the same image as another photo; rejected on request
    LEAK = "leak"  # in a group with a test photo; rejected on request
    SUSPECT_LABEL = "suspect-label"  # its label is probably wrong; rejected on request
    DARK = "dark"  # underexposed; rejected on request
    BLURRED = "blurred"  # out of focus; rejected on request
    TINY = "tiny"  # has very few pixels; rejected on request
    ROTATED = "rotated"  # rotated by 90 degrees; rejected on request
    NO_ANIMAL = "no-animal"  # labelled as empty, rejected on request; or as human or vehicle, with boxes
    NO_BOX = "no-box"  # the file of boxes has no box of an animal for it
    SIDE_FILE = "side-file"  # a hidden file, or one that an operating system adds to folders
    OUTSIDE = "outside"  # its path leads out of the folder
    REPEATED_FOLDER = "repeated-folder"  # a link to a folder that has already been read


class ImageRejected(InputError):
    """A file that cannot be used as a photo: its `reason`, and as `detail` the decoder's message."""

    def __init__(self, reason: RejectReason, detail: str = "") -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(f"{reason.value}: {detail}" if detail else reason.value)

    def __reduce__(self) -> tuple[type[ImageRejected], tuple[RejectReason, str]]:
        """Keep both arguments when it is pickled."""
        return type(self), (self.reason, self.detail)


class WeightsUnavailable(InputError):
    """A network's weights are not on this machine and cannot be downloaded."""


class NotConvertible(InputError):
    """A network cannot be converted into an ONNX graph: PyTorch runs it."""


class ClassifierError(InputError):
    """A folder or file is not a fieldmark classifier, or is damaged or hostile."""


class StoreError(FieldmarkError):
    """A file of fieldmark's own is damaged, or locked by another process."""
