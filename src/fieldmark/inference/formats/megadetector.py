"""MegaDetector's JSON, with classifications: what Timelapse and others read.

https://lila.science/megadetector-output-format, version 1.5. A photo that was classified as a whole has one
box, all of it. A photo without a box is blank.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from fieldmark.data.detections import NUMBERS, Detection
from fieldmark.inference.formats.base import FormatOptions, Writer
from fieldmark.inference.record import BoxRecord, Record, box_record, in_frames

NAMES = {"1": "animal", "2": "person", "3": "vehicle"}


def _lines(records: Iterable[Record], options: FormatOptions) -> Iterator[str]:
    number = {taxon.id: str(at) for at, taxon in enumerate(options.taxonomy)}
    photos: dict[str, list[Record]] = defaultdict(list)  # a run that was resumed has them in any order
    for record in records:
        photos[record["file_name"]].append(record)
    about = {
        "info": {
            **{"format_version": "1.5", "detector": "unknown", "classifier": options.by},
            **({"classification_completion_time": options.when} if options.when else {}),
        },
        "detection_categories": NAMES,
        "classification_categories": {number[taxon.id]: taxon.name for taxon in options.taxonomy},
    }
    yield json.dumps(about, ensure_ascii=False)[:-1] + ', "images": ['
    for at, (name, found) in enumerate(photos.items(), 1):
        entry = json.dumps(_image(name, found, number), ensure_ascii=False)
        yield entry + ("," if at < len(photos) else "")
    yield "]}"


def _image(name: str, records: list[Record], number: dict[str, str]) -> dict[str, Any]:
    if failed := next((each for each in records if "rejected" in each and "detection" not in each), None):
        return {"file": name, "detections": None, "failure": f"Failure image access: {failed['rejected']}"}
    taken = next((each["taken"] for each in records if each.get("taken")), None)
    parts = list(in_frames(records))
    boxes = [found for record in parts for found in _detections(record, number)]
    when: dict[str, Any] = {"datetime": taken} if taken else {}
    if rates := [each["clip"]["rate"] for each in records if "clip" in each]:
        processed = sorted({each["frame"] for each in parts if "frame" in each})
        when |= {"frame_rate": rates[0], "frames_processed": processed}
    return {"file": name, **when, "detections": sorted(boxes, key=lambda each: -each["conf"])}


def _detections(record: Record, number: dict[str, str]) -> Iterator[dict[str, Any]]:
    named = [[number[each["taxon_id"]], each["score"]] for each in record.get("labels", ())]
    classified: dict[str, Any] = {"classifications": named} if named else {}
    classified |= {"frame_number": record["frame"]} if "frame" in record else {}
    if (own := record.get("detection")) is not None:
        yield _entry(own) | classified
    elif named:
        yield {"category": "1", "conf": named[0][1], "bbox": [0, 0, 1, 1]} | classified
    yield from map(_entry, record.get("others", ()))


def _entry(found: BoxRecord) -> dict[str, Any]:
    return {"category": NUMBERS[found["category"]], "conf": found["confidence"], "bbox": found["box"]}


def entry_of(found: Detection) -> dict[str, Any]:
    """Return a box as an entry of `detections`."""
    return _entry(box_record(found))


MEGADETECTOR = Writer.of_lines("megadetector", ".megadetector.json", _lines)
