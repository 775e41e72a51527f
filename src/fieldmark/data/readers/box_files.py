"""Files of boxes: MegaDetector and SpeciesNet JSON, COCO, Camtrap DP, or a table.

MegaDetector's boxes are shares of the photo, or of a frame of a clip, as it is shown; those of COCO (also of
COCO Camera Traps and iNaturalist 2017 and 2018) are pixels of a photo of the stated size.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import polars as pl

from fieldmark.data import boxes
from fieldmark.data.detections import (
    KNOWN_NAMES,
    NUMBERS,
    Category,
    Detection,
    Detections,
    box_of,
    check_threshold,
)
from fieldmark.data.photos import PhotoTable
from fieldmark.data.readers import camtrap, coco, tabular
from fieldmark.data.taxonomy import NO_ANIMAL
from fieldmark.utils.errors import InputError
from fieldmark.utils.printable import some_of

logger = logging.getLogger(__name__)

_EXPECTS = (
    "MegaDetector or SpeciesNet JSON, COCO with boxes, a Camtrap DP with bboxX, or a table with the columns "
    "file_name,left,top,width,height[,confidence][,category][,label]"
)
_NUMBERS: dict[str, Category] = {number: category for category, number in NUMBERS.items()}
_FILE_NAMES = ("file_name", "filepath", "file", "filename", "path")
_BOXES = (
    ("bbox1", "bbox2", "bbox3", "bbox4"),  # animl, beside the width and height of the photo
    ("bboxx", "bboxy", "bboxwidth", "bboxheight"),
    ("left", "top", "width", "height"),
    ("x", "y", "width", "height"),
)
"""The columns of a table; the first that it has are read."""


@dataclass(frozen=True)
class BoxFile:
    """A file of boxes, and from which confidence on a box counts; None: see `boxes.find_threshold`."""

    path: Path
    threshold: float | None = None

    @classmethod
    def of(cls, path: str | Path | None, threshold: float | None) -> BoxFile | None:
        """Return the file, if one is named.

        Raises:
            InputError: a threshold is given without a file.
        """
        check_threshold(path, threshold)
        return None if path is None else cls(Path(path), threshold)

    def cut(self, table: PhotoTable) -> PhotoTable:
        """Return a table with a row for each box of an animal, see `boxes.cropped`.

        Raises:
            InputError: the file cannot be read, or lists none of the photos.
        """
        detections = boxes.of_photos(table, read_boxes(self.path))
        threshold = boxes.find_threshold(table, detections, self.threshold)
        found = boxes.cropped(table, detections, threshold.value)
        logger.info(threshold.summary)
        logger.info(f"{self.path.name}: {found.kept.height:,} boxes of animals in {len(table):,} photos.")
        return found


def read_boxes(path: Path) -> Detections:
    """Read a file of boxes in any of the formats.

    Boxes that cannot be (without a width, say) are left out, with a warning of how many. A photo that has no
    other counts as not listed, since it is unknown what it shows.

    Raises:
        InputError: it cannot be read, is none of the formats, or none of its boxes can be.
    """
    if not path.exists():
        raise InputError(f"{path} not found: name a file of boxes, that is {_EXPECTS}.")
    if path.suffix.lower() in (".csv", ".tsv", ".xlsx", ".parquet"):
        return _of_table(path)
    if path.is_dir() or path.name == "datapackage.json":
        return _of_camtrap(path / "datapackage.json" if path.is_dir() else path)
    return of_document(coco.load(path), path)


def of_document(document: Any, path: Path, *, strict: bool = False) -> Detections:
    """Return the boxes of a JSON document that was read from a file; raises InputError as `read_boxes`, and
    if it is `strict` also where one box cannot be."""
    for name, read in _JSON.items():
        if isinstance(document, dict) and name in document:
            return read(document, _Gathered(path, strict))
    raise InputError(f"{path} has no boxes: expected is {_EXPECTS}.")


@dataclass
class _Gathered:
    """The boxes of a file while it is read: those that cannot be are left out and counted.

    Attributes:
        path: of the file.
        strict: whether one that cannot be is an error.
        of_file: the boxes of each photo.
        doubtful: the photos with a box that was left out.
        left_out: how many were.
        first: the first of them, and why.
        unknown: names of categories that are neither animal, person nor vehicle, with their boxes.
    """

    path: Path
    strict: bool = False
    of_file: dict[str, list[Detection]] = field(default_factory=dict)
    doubtful: set[str] = field(default_factory=set)
    left_out: int = 0
    first: str = ""
    unknown: Counter[str] = field(default_factory=Counter)

    def add(
        self,
        name: str,
        category: Category,
        sides: Any,
        confidence: Any = 1.0,
        *,
        size: tuple[int, int] | None = None,
        **more: Any,
    ) -> None:
        """Add a box of a photo: `[left, top, width, height]` as shares, or as pixels of a photo of a size."""
        try:
            found = Detection(box_of(sides, size), category, _confidence(confidence), **more)
        except ValueError as why:
            self.leave_out(name, sides, str(why))
        else:
            self.of_file.setdefault(name, []).append(found)

    def count_unknown(self, category: Category | None, name: str) -> None:
        """Count a box that is of none of the categories, except where it says that there is nothing."""
        if category is None and name.strip().lower() not in NO_ANIMAL:
            self.unknown[name] += 1

    def leave_out(self, name: str, sides: Any, why: str) -> None:
        """Count a box that cannot be; raises InputError in a strict reading."""
        said = f"of {name}, is {sides}: {why}"
        if self.strict:
            raise InputError(f"{self.path}: a box, {said}.")
        self.first = self.first or said
        self.left_out += 1
        self.doubtful.add(name)

    def done(self, source: str, threshold: float | None = None, detector: str = "") -> Detections:
        """Return the boxes, each once if this is not strict, and say how many were left out.

        Raises:
            InputError: all were left out, or no photo is listed.
        """
        if not self.of_file:
            raise InputError(f"{self.path} lists no photo of which boxes are known: name another file.")
        if self.unknown:
            names = some_of([*self.unknown], most=5)
            said = f"{self.path}: boxes of {names} are no animals, people or vehicles by that name"
            if not any(self.of_file.values()) and not self.left_out:
                raise InputError(f"{said}: name their categories animal, person and vehicle.")
            logger.warning(f"{said}, and are left out: {self.unknown.total():,}.")
        if self.left_out and not any(self.of_file.values()):
            raise InputError(
                f"{self.path}: none of its {self.left_out:,} boxes can be; the first, {self.first}."
            )
        if self.left_out:
            logger.warning(
                f"{self.path}: boxes that cannot be are left out, {self.left_out:,}; the first, {self.first}."
            )
        found = {
            name: tuple(each if self.strict else dict.fromkeys(each))
            for name, each in self.of_file.items()
            if name and (each or name not in self.doubtful)
        }
        return Detections(found, source, threshold, detector)


def _of_megadetector(document: Any, into: _Gathered) -> Detections:
    categories = _categories(document.get("detection_categories"))
    about = _mapping(document.get("info"))
    typical = _mapping(about.get("detector_metadata")).get("typical_detection_threshold")
    for image in coco.entries_of(document, "images", into.path):
        name = _text(image, "file", into.path)
        if image.get("failure"):
            continue  # the detector could not read it, so that nothing is known of it
        into.of_file.setdefault(name, [])
        rate = _rate(image, into.path)
        for each in _objects(image, name, into.path):
            number = str(each.get("category"))
            category, frame = categories.get(number), each.get("frame_number")
            into.count_unknown(category, str(_mapping(document["detection_categories"]).get(number, number)))
            frame = frame if isinstance(frame, int) and frame >= 0 else None
            if category is not None and (rate is None or frame is not None):
                second = round(frame / rate, 3) if rate and frame is not None else None
                sure = each.get("conf", 1.0)
                into.add(name, category, each.get("bbox"), sure, frame=frame, second=second)
    threshold = float(typical) if isinstance(typical, int | float) and 0 <= typical <= 1 else None
    return into.done("megadetector", threshold, str(about.get("detector") or ""))


def _rate(image: Mapping[str, Any], path: Path) -> float | None:
    """Return the frames a second of a clip; None for a photo. A box of a clip without a frame is of none."""
    rate = image.get("frame_rate")
    if rate is not None and (isinstance(rate, bool) or not isinstance(rate, int | float)):
        raise InputError(f"{path}: the frame_rate of {image['file']} is {rate!r}: it is a number.")
    return None if rate is None else max(float(rate), 0.0)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _categories(given: Any) -> Mapping[str, Category]:
    """Return what the numbers of a file stand for: 0 is empty in some, and animals are 1 in most."""
    if not isinstance(given, dict):
        return _NUMBERS
    named = {str(number): KNOWN_NAMES.get(str(name).strip().lower()) for number, name in given.items()}
    return {number: name for number, name in named.items() if name}


def _of_speciesnet(document: Any, into: _Gathered) -> Detections:
    for image in coco.entries_of(document, "predictions", into.path):
        name = _text(image, "filepath", into.path)
        into.of_file.setdefault(name, [])
        for each in _objects(image, name, into.path):
            category = KNOWN_NAMES.get(str(each.get("label")).lower())
            into.count_unknown(category, str(each.get("label")))
            if category is not None:
                into.add(name, category, each.get("bbox"), each.get("conf", 1.0))
    return into.done("speciesnet")


def _objects(image: Mapping[str, Any], name: str, path: Path) -> Iterator[Mapping[str, Any]]:
    """Return the detections of an image; none where they are null, as for a photo that was not readable."""
    value = image.get("detections")
    if value is not None and not isinstance(value, list):
        raise InputError(f"{path}: detections of an image is no list: expected is {_EXPECTS}.")
    for each in value or []:
        if not isinstance(each, dict):
            raise InputError(f"{path}: a detection of {name} is no object: expected is {_EXPECTS}.")
        yield each


def _text(entry: Any, name: str, path: Path) -> str:
    value = entry.get(name) if isinstance(entry, dict) else None
    if not isinstance(value, str) or not value:
        raise InputError(f"{path}: an image has no {name}: add it, or remove the entry.")
    return value


def _confidence(value: Any) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1.0001:
        return min(float(value), 1.0)
    raise ValueError(f"its confidence is {value!r}, which is no number from 0 to 1")


def _of_coco(document: Any, into: _Gathered) -> Detections:
    names = {
        str(each.get("id")): str(each.get("name", ""))
        for each in coco.entries_of(document, "categories", into.path)
        if isinstance(each, dict)
    }
    images = {}
    for each in coco.entries_of(document, "images", into.path):
        name = _text(each, "file_name", into.path)
        if each.get("id") is not None:
            images[str(each["id"])] = (name, each.get("width"), each.get("height"))
        into.of_file.setdefault(name, [])
    for each in coco.entries_of(document, "annotations", into.path):
        if not isinstance(each, dict) or "bbox" not in each or str(each.get("image_id")) not in images:
            continue
        name, wide, high = images[str(each.get("image_id"))]
        label = names.get(str(each.get("category_id")), "")
        if NO_ANIMAL.get(label.lower()) == "blank":
            continue
        if isinstance(wide, int) and isinstance(high, int) and wide > 0 and high > 0:
            category: Category = KNOWN_NAMES.get(label.lower(), "animal")
            into.add(name, category, each["bbox"], size=(wide, high), label=label or None)
        else:
            into.leave_out(name, each["bbox"], "it is in pixels, and the image has no width and height")
    if not any(into.of_file.values()) and not into.left_out:
        raise InputError(f"{into.path} has no boxes: its annotations need a bbox; or name another file.")
    return into.done("coco")


def _of_camtrap(about: Path) -> Detections:
    media, observations = camtrap.media_and_observations(about)
    paths = dict(media.select("mediaID", pl.col("filePath").fill_null("")).iter_rows())
    columns = ("bboxX", "bboxY", "bboxWidth", "bboxHeight")
    wanted = ("mediaID", "observationType", "scientificName", "classificationProbability", *columns)
    rows = tabular.with_missing(observations, wanted).select(wanted).drop_nulls(["mediaID", *columns])
    into = _Gathered(about, of_file={name: [] for name in paths.values()})
    for media_id, sort, label, probability, *box in rows.iter_rows():
        if (name := paths.get(media_id)) is not None and sort in get_args(Category):
            sure = 1.0 if probability is None else _number(probability)
            into.add(name, sort, [_number(each) for each in box], sure, label=label)
    if not any(into.of_file.values()) and not into.left_out:
        raise InputError(f"{about} has no boxes: no observation of a photo has a bboxX.")
    return into.done("camtrap-dp")


def _number(text: Any) -> Any:
    """Return the number in a cell of a table, also with a decimal comma; another text as it is."""
    try:
        return float(str(text).replace(",", "."))
    except ValueError:
        return text


def _of_table(path: Path) -> Detections:
    rows = (
        tabular.clean(pl.read_parquet(path))
        if path.suffix.lower() == ".parquet"
        else tabular.read_text_table(path)
    )
    rows = rows.rename({name: low for name in rows.columns if (low := name.lower()) not in rows.columns})
    file_name = next((name for name in _FILE_NAMES if name in rows.columns), None)
    sides = next((each for each in _BOXES if set(each) <= set(rows.columns)), None)
    if file_name is None or sides is None:
        raise InputError(f"{path} has no columns of boxes: expected is {_EXPECTS}.")
    sure = "conf" if "conf" in rows.columns else "confidence"
    rows = tabular.with_missing(rows, (sure, "category", "label"))
    columns = (file_name, *sides, sure, "category", "label")
    into = _Gathered(path)
    for name, *box, confidence, sort, label in rows.select(columns).iter_rows():
        into.of_file.setdefault(name or "", [])
        if not name or box[0] is None:
            continue  # a photo without a box
        category = KNOWN_NAMES.get((sort or "animal").lower()) or _NUMBERS.get(sort or "")
        into.count_unknown(category, sort or "animal")
        if category is not None:
            value = 1.0 if confidence is None else _number(confidence)
            into.add(name, category, [_number(each) for each in box], value, label=label)
    return into.done("table")


_JSON: dict[str, Callable[[Any, _Gathered], Detections]] = {
    "detection_categories": _of_megadetector,
    "predictions": _of_speciesnet,
    "annotations": _of_coco,
}
"""The reader of a JSON file, by a field that it has."""
