"""Every exception that fieldmark raises on purpose.

    FieldmarkError
    ├── InputError              what the user gave cannot be used: says what, where, how to mend it
    │   ├── ImageRejected       a file is not a picture that can be used; `reason` is from a closed set
    │   ├── WeightsUnavailable  a network's weights are not on this machine and cannot be fetched
    │   └── ClassifierError     a folder or file is not a classifier, or a damaged or hostile one
    └── StoreError              a file that fieldmark itself keeps is damaged or held by another process

The command line prints the message of a `FieldmarkError` as one sentence and leaves with code 2.
Anything else that is raised is a defect of fieldmark.
"""

from __future__ import annotations

from enum import StrEnum


class FieldmarkError(Exception):
    """The root: everything that fieldmark raises on purpose."""


class InputError(FieldmarkError):
    """What the user gave cannot be used.

    The message is one sentence in plain words that names the file, the field and the fix.
    """


class RejectReason(StrEnum):
    """Why a file is not used as a photo: a closed set.

    The first eight are what the bytes of a file can be guilty of (`ImageRejected.reason`), the others
    what a source finds in its own lists and folders.
    """

    MISSING = "missing"  # no file at this path
    UNREADABLE = "unreadable"  # the operating system refused to give its bytes
    EMPTY = "empty"  # no bytes in it
    NOT_AN_IMAGE = "not-an-image"  # the bytes are of no picture format
    UNSUPPORTED = "unsupported-format"  # a picture format that is not read here
    TOO_LARGE = "too-large"  # more pixels or bytes than the limit, seen in the header
    TRUNCATED = "truncated"  # the picture ends before its end
    CORRUPT = "corrupt"  # the decoder found contradictory data
    CHANGED = "changed"  # other bytes than when it was indexed
    NO_LABEL = "no-label"  # unlabelled, in a source whose photos have labels
    UNKNOWN_CATEGORY = "unknown-category"  # its label is not in the source's list of categories
    AMBIGUOUS_LABEL = "ambiguous-label"  # the source gives it several labels
    UNCERTAIN_LABEL = "uncertain-label"  # the source itself calls its label uncertain
    MACHINE_LABEL = "machine-label"  # a machine named it, and nobody has verified that
    DUPLICATE_ID = "duplicate-id"  # the source has already used its id for another photo
    DUPLICATE = "duplicate"  # the same bytes as another photo; dropped when asked
    NEAR_DUPLICATE = "near-duplicate"  # the same picture as another photo; dropped when asked
    LEAK = "leak"  # belongs together with a photo to measure on; dropped when asked
    SUSPECT_LABEL = "suspect-label"  # its label is probably wrong; dropped when asked
    DARK = "dark"  # shows little but darkness; dropped when asked
    BLURRED = "blurred"  # shows nothing sharp; dropped when asked
    TINY = "tiny"  # has very few pixels; dropped when asked
    ROTATED = "rotated"  # lies on its side; dropped when asked
    NO_ANIMAL = "no-animal"  # the source says that it is empty; left out when asked
    SIDE_FILE = "side-file"  # a hidden file, or one that an operating system puts beside photos
    OUTSIDE = "outside"  # its path leads out of the source's folder
    REPEATED_FOLDER = "repeated-folder"  # a link to a folder that has already been read


class ImageRejected(InputError):
    """A file that cannot be used as a photo.

    Attributes:
        reason: which kind of defect, from the closed set `RejectReason`.
        detail: what the decoder said, for a person.
    """

    def __init__(self, reason: RejectReason, detail: str = "") -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(f"{reason.value}: {detail}" if detail else reason.value)

    def __reduce__(self) -> tuple[type[ImageRejected], tuple[RejectReason, str]]:
        """So that it goes from one process to another whole."""
        return type(self), (self.reason, self.detail)


class WeightsUnavailable(InputError):
    """A network's weights are not on this machine and cannot be fetched; the message says what to do."""


class ClassifierError(InputError):
    """A folder or file is not a fieldmark classifier, or a damaged, foreign or hostile one."""


class StoreError(FieldmarkError):
    """A file that fieldmark itself keeps is damaged, or another process holds it."""
