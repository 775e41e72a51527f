"""Files of boxes: MegaDetector and SpeciesNet JSON, COCO, Camtrap DP, or a table.

MegaDetector's boxes are shares of the photo, or of a frame of a clip, as it is shown; those of COCO (also of
COCO Camera Traps and iNaturalist 2017 and 2018) are pixels of a photo of the stated size.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
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
from fieldmark.data.storage.places import Box
from fieldmark.data.taxonomy import NO_ANIMAL
from fieldmark.utils.errors import InputError

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
        detections = read_boxes(self.path)
        threshold = boxes.find_threshold(table, detections, self.threshold)
        found = boxes.cropped(table, detections, threshold.value)
        logger.info(threshold.summary)
        logger.info(f"{self.path.name}: {found.kept.height:,} boxes of animals in {len(table):,} photos.")
        return found


def read_boxes(path: Path) -> Detections:
    """Read a file of boxes in any of the formats.

    Raises:
        InputError: it cannot be read, is none of the formats, or has a box that is none.
    """
    if not path.exists():
        raise InputError(f"{path} not found: name a file of boxes, that is {_EXPECTS}.")
    if path.suffix.lower() in (".csv", ".tsv", ".xlsx", ".parquet"):
        return _of_table(path)
    if path.is_dir() or path.name == "datapackage.json":
        return _of_camtrap(path / "datapackage.json" if path.is_dir() else path)
    return of_document(coco.load(path), path)


def of_document(document: Any, path: Path) -> Detections:
    """Return the boxes of a JSON document that was read from a file; raises InputError as `read_boxes`."""
    for field, read in _JSON.items():
        if isinstance(document, dict) and field in document:
            return read(document, path)
    raise InputError(f"{path} has no boxes: expected is {_EXPECTS}.")


def _of_megadetector(document: Any, path: Path) -> Detections:
    categories = _categories(document.get("detection_categories"))
    about = _mapping(document.get("info"))
    typical = _mapping(about.get("detector_metadata")).get("typical_detection_threshold")
    found = {}
    for image in coco.entries_of(document, "images", path):
        name = _text(image, "file", path)
        if image.get("failure"):
            continue  # the detector could not read it, so that nothing is known of it
        entries = _list(image, "detections", path)
        seen = _seen(entries, lambda each: categories.get(str(each.get("category"))), path, name)
        found[name] = seen if image.get("frame_rate") is None else _in_frames(seen, image, path)
    threshold = float(typical) if isinstance(typical, int | float) and 0 <= typical <= 1 else None
    return Detections(found, "megadetector", threshold, str(about.get("detector") or ""))


def _in_frames(seen: tuple[Detection, ...], image: Mapping[str, Any], path: Path) -> tuple[Detection, ...]:
    """Return the boxes of a clip with the times of their frames; one without a frame is of none."""
    rate = image["frame_rate"]
    if isinstance(rate, bool) or not isinstance(rate, int | float):
        raise InputError(f"{path}: the frame_rate of {image['file']} is {rate!r}: it is a number.")
    framed = [(each, each.frame) for each in seen if each.frame is not None]
    if not rate > 0:
        return tuple(each for each, _ in framed)
    return tuple(replace(each, second=round(frame / rate, 3)) for each, frame in framed)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _categories(given: Any) -> Mapping[str, Category]:
    """Return what the numbers of a file stand for: 0 is empty in some, and animals are 1 in most."""
    if not isinstance(given, dict):
        return _NUMBERS
    named = {str(number): KNOWN_NAMES.get(str(name).strip().lower()) for number, name in given.items()}
    return {number: name for number, name in named.items() if name}


def _of_speciesnet(document: Any, path: Path) -> Detections:
    found = {}
    for each in coco.entries_of(document, "predictions", path):
        name = _text(each, "filepath", path)
        entries = _list(each, "detections", path)
        found[name] = _seen(entries, lambda box: KNOWN_NAMES.get(str(box.get("label")).lower()), path, name)
    return Detections(found, "speciesnet")


def _list(entry: Mapping[str, Any], field: str, path: Path) -> list[Any]:
    """Return a list in an entry; empty where it is missing or null, as for a photo that was not readable."""
    value = entry.get(field)
    if value is not None and not isinstance(value, list):
        raise InputError(f"{path}: {field} of an image is no list: expected is {_EXPECTS}.")
    return value or []


def _text(entry: Any, field: str, path: Path) -> str:
    value = entry.get(field) if isinstance(entry, dict) else None
    if not isinstance(value, str) or not value:
        raise InputError(f"{path}: an image has no {field}: add it, or remove the entry.")
    return value


def _seen(
    entries: list[Any], category: Callable[[Any], Category | None], path: Path, name: str
) -> tuple[Detection, ...]:
    found = []
    for each in entries:
        if not isinstance(each, dict):
            raise InputError(f"{path}: a detection of {name} is no object: expected is {_EXPECTS}.")
        if (sort := category(each)) is not None:
            box = _box(each.get("bbox"), path, name)
            frame = each.get("frame_number")
            number = frame if isinstance(frame, int) and frame >= 0 else None
            sure = _confidence(each.get("conf", 1.0), path, name)
            found.append(Detection(box, sort, sure, frame=number))
    return tuple(found)


def _confidence(value: Any, path: Path, name: str) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1.0001:
        return min(float(value), 1.0)
    raise InputError(f"{path}: a box of {name} has the confidence {value!r}: it is a number from 0 to 1.")


def _box(value: Any, path: Path, name: str, size: tuple[int, int] | None = None) -> Box:
    """Return a box of `[left, top, width, height]`: shares, or pixels of a photo of a size."""
    try:
        return box_of(value, size)
    except ValueError as why:
        raise InputError(f"{path}: a box of {name} is {value!r}: {why}.") from why


def _of_coco(document: Any, path: Path) -> Detections:
    names = {
        str(each.get("id")): str(each.get("name", ""))
        for each in coco.entries_of(document, "categories", path)
        if isinstance(each, dict)
    }
    drawn: dict[str, list[Detection]] = defaultdict(list)
    images = {}
    for each in coco.entries_of(document, "images", path):
        images[str(each.get("id"))] = (_text(each, "file_name", path), each.get("width"), each.get("height"))
    for each in coco.entries_of(document, "annotations", path):
        if not isinstance(each, dict) or "bbox" not in each or str(each.get("image_id")) not in images:
            continue
        name, wide, high = images[str(each["image_id"])]
        if not (isinstance(wide, int) and isinstance(high, int) and wide > 0 and high > 0):
            raise InputError(f"{path}: {name} has boxes in pixels but no width and height: add them.")
        label = names.get(str(each.get("category_id")), "")
        if NO_ANIMAL.get(label.lower()) != "blank":
            category: Category = KNOWN_NAMES.get(label.lower(), "animal")
            box = _box(each["bbox"], path, name, (wide, high))
            drawn[name].append(Detection(box, category, 1.0, label or None))
    if not drawn:
        raise InputError(f"{path} has no boxes: its annotations need a bbox; or name another file.")
    return Detections({name: tuple(drawn.get(name, ())) for name, *_ in images.values()}, "coco")


def _of_camtrap(about: Path) -> Detections:
    media, observations = camtrap.media_and_observations(about)
    paths = dict(media.select("mediaID", pl.col("filePath").fill_null("")).iter_rows())
    columns = ("bboxX", "bboxY", "bboxWidth", "bboxHeight")
    wanted = ("mediaID", "observationType", "scientificName", "classificationProbability", *columns)
    rows = tabular.with_missing(observations, wanted).select(wanted).drop_nulls(["mediaID", *columns])
    found: dict[str, list[Detection]] = {name: [] for name in paths.values()}
    for media_id, sort, label, probability, *box in rows.iter_rows():
        name = paths.get(media_id)
        if name is None or sort not in get_args(Category):
            continue
        numbers = [_number(each, about, name) for each in box]
        confidence = 1.0 if probability is None else _number(probability, about, name)
        found[name].append(Detection(_box(numbers, about, name), sort, confidence, label))
    if not any(found.values()):
        raise InputError(f"{about} has no boxes: no observation of a photo has a bboxX.")
    return Detections({name: tuple(each) for name, each in found.items()}, "camtrap-dp")


def _number(text: Any, path: Path, name: str) -> float:
    try:
        return float(str(text).replace(",", "."))
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: a box of {name} holds {text!r}: it must be a number.") from error


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
    found: dict[str, list[Detection]] = defaultdict(list)
    for name, *box, confidence, sort, label in rows.select(columns).iter_rows():
        drawn = found[name or ""]
        if not name or box[0] is None:
            continue  # a photo without a box
        category = KNOWN_NAMES.get((sort or "animal").lower()) or _NUMBERS.get(sort or "")
        if category is not None:
            numbers = [_number(each, path, name) for each in box]
            value = 1.0 if confidence is None else _number(confidence, path, name)
            drawn.append(
                Detection(_box(numbers, path, name), category, _confidence(value, path, name), label)
            )
    return Detections({name: tuple(each) for name, each in found.items() if name}, "table")


_JSON: dict[str, Callable[[Any, Path], Detections]] = {
    "detection_categories": _of_megadetector,
    "predictions": _of_speciesnet,
    "annotations": _of_coco,
}
"""The reader of a JSON file, by a field that it has."""
