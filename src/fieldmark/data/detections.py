"""What a detector or a person saw in photos: boxes with a category, and which of them are of which photo."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from fieldmark.data.storage.places import Box
from fieldmark.utils.errors import InputError

logger = logging.getLogger(__name__)

Category = Literal["animal", "human", "vehicle"]
NUMBERS: dict[Category, str] = {"animal": "1", "human": "2", "vehicle": "3"}
"""What MegaDetector and SpeciesNet write for each category."""
KNOWN_NAMES: dict[str, Category] = {
    **dict.fromkeys(("animal", "animals", "wildlife"), "animal"),
    **dict.fromkeys(("person", "human", "people", "homo sapiens"), "human"),
    "vehicle": "vehicle",
    # COCO's classes, which general detectors have.
    **dict.fromkeys(("bird", "cat", "dog", "horse", "sheep", "cow"), "animal"),
    **dict.fromkeys(("elephant", "bear", "zebra", "giraffe"), "animal"),
    **dict.fromkeys(("bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat"), "vehicle"),
}
"""What the names of detectors' classes stand for, in lower case."""
USUAL_THRESHOLD = 0.2
"""What MegaDetector 5's authors recommend, where neither the file nor the labels say more."""
_VOTERS = 500  # photos whose paths are compared with those of the file


@dataclass(frozen=True, slots=True)
class Detection:
    """What is in one box.

    Attributes:
        box: where.
        category: `animal`, `human` or `vehicle`.
        confidence: of the detector, from 0 to 1; 1 where a person drew the box.
        label: the name of its species, where the file gives one to each box.
        frame: of a clip: the number of the frame that it is in, from 0.
        second: the time of that frame, where it is known.
    """

    box: Box
    category: Category = "animal"
    confidence: float = 1.0
    label: str | None = None
    frame: int | None = None
    second: float | None = None


@dataclass(frozen=True)
class Detections:
    """The boxes of many photos.

    Attributes:
        of_file: the boxes of each photo, also where there are none, by the photo's path in the file.
        source: the format of the file.
        threshold: from which confidence on a box counts, if the file says so.
        detector: the name of the detector; "" where it is unknown.
    """

    of_file: Mapping[str, tuple[Detection, ...]]
    source: str
    threshold: float | None = None
    detector: str = ""

    def matched(self, paths: Sequence[str]) -> dict[str, tuple[Detection, ...]]:
        """Return the boxes of those photos that the file lists, by their paths.

        Paths in such files often begin elsewhere. What has to be taken off the front of theirs, and of the
        photos', is the same for all of them, and it is what makes most of them equal: many cameras have
        an `IMG_0001.JPG`. Case counts only where two names differ in nothing else: cards change it.
        """
        fold = str.casefold if all(map(_differ_folded, (self.of_file, paths))) else str
        listed = {_parts(fold(path)): path for path in self.of_file}
        photos = {path: _parts(fold(path)) for path in paths}
        own, other = _fronts(list(photos.values()), list(listed))
        found = {}
        for path, parts in photos.items():
            if parts[: len(own)] == own and (there := listed.get(other + parts[len(own) :])) is not None:
                found[path] = self.of_file[there]
        return found


def check_threshold(boxes: object, threshold: float | None) -> None:
    """Raise InputError where a threshold is given without boxes (None)."""
    if boxes is None and threshold is not None:
        raise InputError("A threshold of boxes (--box-threshold) is given without boxes: name --boxes, too.")


def box_of(value: object, size: tuple[int, int] | None = None) -> Box:
    """Return the box of `[left, top, width, height]`: shares, or pixels of a photo of a size.

    Raises:
        ValueError: it is none; the message says why, and follows "a box is VALUE: ".
    """
    numbers = value if isinstance(value, list | tuple) and len(value) == 4 else None
    if numbers is None or not all(isinstance(each, int | float) and abs(each) < 1e9 for each in numbers):
        raise ValueError("it is [left, top, width, height]")
    left, top, width, height = map(float, numbers)
    if size is not None:
        left, width, top, height = left / size[0], width / size[0], top / size[1], height / size[1]
    elif max(left + width, top + height) > 1.5:
        raise ValueError("in this format they are shares of the photo, from 0 to 1")
    if width <= 0 or height <= 0:
        raise ValueError("its width and height must be more than 0")
    return Box(left, top, width, height, size)


def _differ_folded(paths: Collection[str]) -> bool:
    return len({path.casefold() for path in paths}) == len(set(paths))


def _parts(path: str) -> tuple[str, ...]:
    found = [each for each in path.replace("\\", "/").split("/") if each not in ("", ".")]
    return tuple(found) or ("",)


def _fronts(
    photos: Sequence[tuple[str, ...]], listed: Sequence[tuple[str, ...]]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what to take off the front of the photos' paths and of the listed ones: most votes."""
    by_name = defaultdict(list)
    for there in listed:
        by_name[there[-1]].append(there)
    votes: Counter[tuple[tuple[str, ...], tuple[str, ...]]] = Counter({((), ()): 0})
    for here in photos[:: max(1, len(photos) // _VOTERS)]:
        for there in by_name[here[-1]]:
            shared = _shared_end(here, there)
            votes[here[: len(here) - shared], there[: len(there) - shared]] += 1
    return votes.most_common(1)[0][0]


def _shared_end(one: Sequence[str], other: Sequence[str]) -> int:
    shared = 0
    for here, there in zip(reversed(one), reversed(other), strict=False):
        if here != there:
            break
        shared += 1
    return shared


def check_matched(listed: int, photos: int) -> None:
    """Say how many photos have no entry in a file of boxes; `InputError` where none has."""
    if photos and not listed:
        raise InputError(
            f"The boxes are of other photos: their file lists none of these {photos:,}. Names are compared "
            "from their end, such as site/IMG_1.jpg."
        )
    if listed < photos:
        logger.warning(f"{photos - listed:,} of {photos:,} photos are not in the file of boxes.")
