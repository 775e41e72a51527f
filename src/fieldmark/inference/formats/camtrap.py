"""Camtrap DP 1.0, table `observations`: a row a photo, classified by a machine.

https://camtrap-dp.tdwg.org/data/#observations. What a person verified is a row of its own there, with
`classificationMethod` "human"; none is written here. Media, deployments and times are those of the list
that the photos are of; where that does not say, the folder is the deployment, and the time is read from
EXIF data.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from fieldmark.inference.formats.answer import answer_of
from fieldmark.inference.formats.base import FormatOptions, Writer, write_lines
from fieldmark.inference.formats.csv import csv_line
from fieldmark.inference.record import Record
from fieldmark.utils import io

logger = logging.getLogger(__name__)

FIELDS = (
    *("observationID", "deploymentID", "mediaID", "eventID", "eventStart", "eventEnd"),
    *("observationLevel", "observationType", "cameraSetupType", "scientificName", "count"),
    *("lifeStage", "sex", "behavior", "individualID", "individualPositionRadius"),
    *("individualPositionAngle", "individualSpeed", "bboxX", "bboxY", "bboxWidth", "bboxHeight"),
    *("classificationMethod", "classifiedBy", "classificationTimestamp"),
    *("classificationProbability", "observationTags", "observationComments"),
)


def _rows(entries: Iterable[Record], form: FormatOptions) -> Iterator[str]:
    logger.info(
        "Camera clocks without a time zone are taken to keep UTC, and folders to be deployments where "
        "no list says these."
    )
    yield csv_line(FIELDS)
    timeless = 0
    for value in entries:
        row = _row(value, form)
        timeless += not row["eventStart"]
        yield csv_line([row.get(name, "") for name in FIELDS])
    if timeless:
        logger.info(
            f"{timeless:,} photos say no time: their eventStart and eventEnd are empty, which Camtrap "
            "DP requires; fill them in from your media table."
        )


def _row(value: Record, form: FormatOptions) -> dict[str, str]:
    name = value["file_name"]
    found = answer_of(value, form.taxonomy)
    taken = _moment(value.get("taken") or "")
    row = {
        "observationID": io.digest([name, form.by])[:32],
        "deploymentID": value.get("deployment") or PurePosixPath(name).parent.name or "deployment",
        "mediaID": str(value.get("id", name)),
        "eventStart": taken,
        "eventEnd": taken,
        "observationLevel": "media",
        "observationType": found.kind,
        "scientificName": found.name,
        "observationComments": found.remark,
    }
    if found.kind == "unclassified":
        return row
    score = "" if found.score is None else f"{found.score:.6f}"
    return row | {
        "classificationMethod": "machine",
        "classifiedBy": form.by,
        "classificationTimestamp": form.when,
        "classificationProbability": score,
    }


def _moment(text: str) -> str:
    """A time as Camtrap DP wants it, with a zone; "" for what is none, such as a day alone."""
    found = re.fullmatch(
        r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:\.\d+)?(Z|[+-]\d\d:?\d\d)?", text
    )
    return f"{found[1]}T{found[2]}{found[3] or 'Z'}" if found else ""


def _write(path: Path, entries: Iterable[Record], form: FormatOptions) -> None:
    write_lines(path, _rows(entries, form), "\r\n")


CAMTRAP = Writer("camtrap-dp", ".camtrap.csv", wide=False, write=_write, lines=_rows, timed=True)
