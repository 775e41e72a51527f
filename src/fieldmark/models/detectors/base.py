"""The interface of detectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from fieldmark.data.detections import Detection
from fieldmark.utils.errors import ImageRejected
from fieldmark.utils.typing import ByteArray

CONFIDENCE_DIGITS, BOX_DIGITS = 3, 4
"""Decimal places, as MegaDetector rounds."""


@dataclass(frozen=True)
class Facts:
    """What is known of a detector.

    Attributes:
        name: of its file, or its own.
        digest: of its file (SHA-256), or its name and version where it has none.
        version: "" where it is unknown.
        usual: the confidence from which on its authors count a box; None: unknown.
        licence: a sentence about it, for people who use it.
    """

    name: str
    digest: str
    version: str = ""
    usual: float | None = None
    licence: str = ""


class Detector(Protocol):
    """Finds animals, people and vehicles. `prepare` is called in threads, `detect` in one."""

    facts: Facts

    def prepare(self, pixels: ByteArray) -> Any:
        """Make what `detect` takes of a photo, uint8 (H, W, 3), RGB, in EXIF orientation."""
        ...

    def detect(self, prepared: Sequence[Any]) -> Sequence[tuple[Detection, ...] | ImageRejected]:
        """Return the boxes in each photo, most confident first, as shares of the photo as it is shown; or why
        it could not be run on it."""
        ...
