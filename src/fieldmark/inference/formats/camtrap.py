"""Camtrap DP 1.0, table `observations`: a row a photo, named by a machine or, in a row apart, a person.

https://camtrap-dp.tdwg.org/data/#observations. Media, deployments and times are those of the
photos' list; where it has none, the location or the folder is the deployment, and the time is read from
EXIF data.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping

from fieldmark.inference.formats.answer import answer_of
from fieldmark.inference.formats.base import FormatOptions, Writer
from fieldmark.inference.formats.deployments import Deployments
from fieldmark.inference.record import Record, event_id, key_of
from fieldmark.utils import io

_BOX = ("bboxX", "bboxY", "bboxWidth", "bboxHeight")

logger = logging.getLogger(__name__)

FIELDS = (
    *("observationID", "deploymentID", "mediaID", "eventID", "eventStart", "eventEnd"),
    *("observationLevel", "observationType", "cameraSetupType", "scientificName", "count"),
    *("lifeStage", "sex", "behavior", "individualID", "individualPositionRadius"),
    *("individualPositionAngle", "individualSpeed", "bboxX", "bboxY", "bboxWidth", "bboxHeight"),
    *("classificationMethod", "classifiedBy", "classificationTimestamp"),
    *("classificationProbability", "observationTags", "observationComments"),
)


def _rows(records: Iterable[Record], options: FormatOptions) -> Iterator[Mapping[str, str]]:
    logger.info(
        "Camera times without a time zone are taken as UTC; a photo's location or folder is its deployment "
        "where no list gives one."
    )
    records = list(records) if isinstance(records, Iterator) else records
    timeless = 0
    for row in observations(records, options, Deployments.of(records, options.deployments)):
        timeless += not row["eventStart"]
        yield row
    if timeless:
        logger.info(
            f"{timeless:,} photos have no time: their eventStart and eventEnd are empty, but Camtrap "
            "DP requires them; fill them in from your media table."
        )


def observations(
    records: Iterable[Record], options: FormatOptions, deployments: Deployments
) -> Iterator[dict[str, str]]:
    """Return the observation of each photo, box or event; those of people and vehicles in further boxes."""
    for record in records:
        yield _row(record, options, deployments)
        for other in record.get("others", ()):
            if other["category"] != "animal" and other["confidence"] >= (options.boxes or 0):
                shown = record.copy()
                shown["kind"], shown["detection"] = other["category"], other
                yield _row(shown, options, deployments)


def _event(record: Record) -> dict[str, str]:
    if (event := record.get("event")) is None:
        return {}
    name = event_id(record)
    end = timestamp(event["end"])
    count = str(event["count"] or "")
    return {"mediaID": "", "eventID": name, "observationLevel": "event", "eventEnd": end, "count": count}


def _tags(record: Record) -> str:
    """Return what an observation has no column for: further species of an event, temperature (°C), camera."""
    also = record["event"]["also"] if "event" in record else []
    tags = [f"also:{each['name']} ({each['count']})" for each in also]
    if "temperature" in record:
        tags.append(f"temperature:{record['temperature']:g}")
    said = {"camera": record.get("camera_model", ""), "serial": record.get("camera_serial", "")}
    tags += [f"{name}:{text.replace('|', '/')}" for name, text in said.items() if text]
    return " | ".join(tags)


def _box(record: Record) -> dict[str, str]:
    if (found := record.get("detection")) is None:
        return {}
    return dict(zip(_BOX, (f"{each:.6g}" for each in found["box"]), strict=True)) | {"count": "1"}


def media_id(record: Record) -> str:
    """Return the id of a photo: that of its list, else its name."""
    return str(record.get("id", record["file_name"]))


def _row(record: Record, options: FormatOptions, deployments: Deployments) -> dict[str, str]:
    answer = answer_of(record, options.taxonomy)
    unnamed = answer.kind == "unknown" and "detection" in record  # the detector saw an animal
    taken = timestamp(record.get("taken") or "")
    key = event_id(record) if "event" in record else key_of(record)
    row = {
        "observationID": io.digest([key, record.get("reviewer", options.by)])[:32],
        "deploymentID": deployments.name(record),
        "mediaID": media_id(record),
        "eventStart": taken,
        "eventEnd": taken,
        "observationLevel": "media",
        "observationType": "animal" if unnamed else answer.kind,
        "scientificName": answer.name,
        "observationTags": _tags(record),
        "observationComments": answer.remark,
        **_box(record),
        **_event(record),
    }
    if answer.kind == "unclassified":
        return row
    if "reviewer" in record:
        by = {"classifiedBy": record["reviewer"], "classificationTimestamp": record["reviewed"]}
        return row | {"classificationMethod": "human", **by}
    score = "" if answer.score is None else f"{answer.score:.6f}"
    return row | {
        "classificationMethod": "machine",
        "classifiedBy": options.by,
        "classificationTimestamp": options.when,
        "classificationProbability": score,
    }


def timestamp(text: str) -> str:
    """Return a time with a time zone, as Camtrap DP requires; "" where there is no time of day."""
    found = re.fullmatch(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:\.\d+)?(Z|[+-]\d\d:?\d\d)?", text)
    return f"{found[1]}T{found[2]}{found[3] or 'Z'}" if found else ""


CAMTRAP = Writer.of_rows("camtrap-dp", ".camtrap.csv", FIELDS, _rows, timed=True)
