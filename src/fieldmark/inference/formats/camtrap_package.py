"""A whole Camtrap DP 1.0: `datapackage.json` with its tables deployments, media and observations.

https://camtrap-dp.tdwg.org. Observations are of photos and boxes, with events also of events. What only a
person knows (contributors, licences, the project's design) is kept from an earlier `datapackage.json`.
"""

from __future__ import annotations

import json
import logging
import mimetypes
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from fieldmark.data.events import seconds_of
from fieldmark.data.taxonomy import RANKS, Taxonomy
from fieldmark.inference.formats import camtrap
from fieldmark.inference.formats.base import FormatOptions, Writer, csv_line
from fieldmark.inference.formats.deployments import Deployments
from fieldmark.inference.record import Record, event_id
from fieldmark.utils import io
from fieldmark.utils.errors import InputError

logger = logging.getLogger(__name__)

_SCHEMAS = "https://raw.githubusercontent.com/tdwg/camtrap-dp/1.0.2"
_DEPLOYMENTS = (
    *("deploymentID", "locationID", "locationName", "latitude", "longitude", "coordinateUncertainty"),
    *("deploymentStart", "deploymentEnd", "setupBy", "cameraID", "cameraModel", "cameraDelay"),
    *("cameraHeight", "cameraDepth", "cameraTilt", "cameraHeading", "detectionDistance"),
    *("timestampIssues", "baitUse", "featureType", "habitat", "deploymentGroups", "deploymentTags"),
    "deploymentComments",
)
_MEDIA = (
    *("mediaID", "deploymentID", "captureMethod", "timestamp", "filePath", "filePublic", "fileName"),
    *("fileMediatype", "exifData", "favorite", "mediaComments"),
)
_TABLES = {"deployments": _DEPLOYMENTS, "media": _MEDIA, "observations": camtrap.FIELDS}
_FILES = tuple(f"{name}.csv" for name in _TABLES)
Row = Mapping[str, str]


def _write(path: Path, records: Iterable[Record], options: FormatOptions) -> None:
    records = list(records) if isinstance(records, Iterator) else records
    photos = options.photos if options.events else records
    deployments = Deployments.of(photos, options.deployments)
    media = _media(photos, deployments, path.parent)
    found = _observations(photos, records if options.events else (), options, deployments)
    tables: dict[str, Sequence[Row]] = {
        "deployments": _deployments(photos, media, deployments),
        "media": list(media.values()),
        "observations": found,
    }
    for name, columns in _TABLES.items():
        with io.replacing(path.with_name(f"{name}.csv")) as temporary, temporary.open("wb") as handle:
            handle.write(f"{csv_line(columns)}\r\n".encode())
            cells = ([row.get(column, "") for column in columns] for row in tables[name])
            handle.writelines(f"{csv_line(row)}\r\n".encode() for row in cells)
    io.write_json(path, _about(path, tables, options))
    _say_what_is_missing(tables)


def _media(photos: Iterable[Record], deployments: Deployments, folder: Path) -> dict[str, Row]:
    """Return the row of each photo, by its name."""
    names = {each["file_name"]: _absolute(each["file_name"], folder) for each in photos}
    here = Path(os.path.abspath(folder))  # noqa: PTH100  # links stay
    outside = [Path(name).parts for name in names.values() if "://" not in name and not _below(name, here)]
    front = len(os.path.commonprefix([parts[:-1] for parts in outside]))  # noqa: RUF071  # parts
    if outside:
        logger.info(
            f"{len(outside):,} photos are not below {folder}: their filePath is written from "
            f"{Path(*outside[0][:front])} on; put the package or a copy of the photos there."
        )
    found: dict[str, Row] = {}
    for record in photos:
        name = record["file_name"]
        file = names[name]
        if "://" not in file:
            parts = Path(file).relative_to(here).parts if _below(file, here) else Path(file).parts[front:]
            file = "/".join(parts)
        found[name] = {
            "mediaID": camtrap.media_id(record),
            "deploymentID": deployments.name(record),
            "timestamp": camtrap.timestamp(record.get("taken") or ""),
            "filePath": file,
            "filePublic": "false",
            "fileName": file.rpartition("/")[2],
            "fileMediatype": mimetypes.guess_type(file)[0] or "image/jpeg",
            "exifData": _exif(record),
            "mediaComments": record.get("rejected") or record.get("note") or "",
        }
    ids = Counter(row["mediaID"] for row in found.values())
    if twice := next((name for name, count in ids.items() if count > 1), None):
        raise InputError(f"Two photos have the id {twice!r}: predict their lists one after the other.")
    return found


def _exif(record: Record) -> str:
    """Return what the tables have no other column for, under ExifTool's names."""
    names = {"temperature": "AmbientTemperature", "camera_model": "Model", "camera_serial": "SerialNumber"}
    values = cast("dict[str, object]", record)
    found = {name: values[each] for each, name in names.items() if each in values}
    return json.dumps({"EXIF": found}, ensure_ascii=False) if found else ""


def _absolute(name: str, folder: Path) -> str:
    """Return where a photo is: a list's names may be relative to the folder of the package."""
    if "://" in name:
        return name
    there = next((path for path in (Path(name), folder / name) if path.exists()), None)
    return os.path.abspath(there) if there else name.replace("\\", "/")  # noqa: PTH100  # links stay


def _below(name: str, folder: Path) -> bool:
    return Path(name).is_relative_to(folder)


def _observations(
    photos: Iterable[Record], events: Iterable[Record], options: FormatOptions, deployments: Deployments
) -> list[Row]:
    """Return the observations of photos with the event that they are of, then those of events."""
    of_events = list(camtrap.observations(events, options, deployments))
    names = ("eventID", "eventStart", "eventEnd")
    known = {row["eventID"]: {name: row[name] for name in names} for row in of_events}
    event_of = {name: known[event_id(each)] for each in events for name in each["event"]["photos"]}
    rows: list[Row] = []
    for record in photos:
        about = event_of.get(record["file_name"], {})
        rows += (row | about for row in camtrap.observations([record], options, deployments))
    return rows + of_events


def _deployments(photos: Iterable[Record], media: Mapping[str, Row], deployments: Deployments) -> list[Row]:
    """Return the rows of the table, filled up with the places and times of photos, then further ones."""
    given = {row["deploymentID"]: dict(row) for row in deployments.rows}
    found: dict[str, dict[str, str]] = {}
    cameras = defaultdict[tuple[str, str], set[str]](set)
    for record in photos:
        row = media[record["file_name"]]
        about = found.setdefault(row["deploymentID"], {})
        about.setdefault("locationID", record.get("location", ""))
        if "latitude" in record and "latitude" not in about:
            about |= {"latitude": str(record["latitude"]), "longitude": str(record["longitude"])}
        for column, key in (("cameraModel", "camera_model"), ("cameraID", "camera_serial")):
            cameras[row["deploymentID"], column].add(str(record.get(key, "")))
        if taken := row["timestamp"]:
            about["deploymentStart"] = min(about.get("deploymentStart", taken), taken, key=_second)
            about["deploymentEnd"] = max(about.get("deploymentEnd", taken), taken, key=_second)
    for (name, column), seen in cameras.items():
        if len(seen) == 1:  # the camera of all of its photos
            found[name][column] = min(seen)
    rows: list[Row] = []
    for name in [*found, *(name for name in given if name not in found)]:
        row = found.get(name, {}) | given.get(name, {}) | {"deploymentID": name}
        times = {each: row.get(each, "") for each in ("deploymentStart", "deploymentEnd")}
        rows.append(row | {each: camtrap.timestamp(text) or text for each, text in times.items()})
    return rows


def _second(time: str) -> float:
    return seconds_of(time) or 0.0


def _about(path: Path, tables: Mapping[str, Sequence[Row]], options: FormatOptions) -> dict[str, Any]:
    """Return the content of `datapackage.json`."""
    before = io.read_json(path) if path.exists() else {}
    levels = sorted({row["observationLevel"] for row in tables["observations"]}) or ["media"]
    title = path.absolute().parent.name
    project = {
        **{"title": title, "samplingDesign": "opportunistic", "captureMethod": ["activityDetection"]},
        "individualAnimals": False,
    }
    if not before:
        logger.info(
            f"{path} says samplingDesign opportunistic, captureMethod activityDetection, and names no person "
            "and no licence: correct it before you publish; a later run keeps what you write."
        )
    resources = [
        {
            **{"name": name, "path": f"{name}.csv", "profile": "tabular-data-resource", "format": "csv"},
            **{"mediatype": "text/csv", "encoding": "utf-8"},
            "schema": f"{_SCHEMAS}/{name}-table-schema.json",
        }
        for name in tables
    ]
    about = {"title": title, "contributors": [{"title": options.by, "role": "contributor"}]} | before
    about |= {"resources": resources, "profile": f"{_SCHEMAS}/camtrap-dp-profile.json"}
    about["project"] = project | before.get("project", {}) | {"observationLevel": levels}
    names = {row["scientificName"] for row in tables["observations"]} - {""}
    return about | {
        **({"created": options.when} if options.when else {}),
        **_extent(tables["deployments"]),
        "taxonomic": [_taxon(name, options.taxonomy) for name in sorted(names)],
    }


def _extent(deployments: Sequence[Row]) -> dict[str, Any]:
    """Return the box around all places and the first and last day, where they are known."""
    places = [
        (float(row["longitude"]), float(row["latitude"]))
        for row in deployments
        if row.get("latitude") and row.get("longitude")
    ]
    found: dict[str, Any] = {}
    if places:
        west, south, east, north = (f(side) for f in (min, max) for side in zip(*places, strict=True))
        ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
        found["spatial"] = {"type": "Polygon", "coordinates": [ring]}
        if west == east and south == north:
            found["spatial"] = {"type": "Point", "coordinates": [west, south]}
    ends = [
        row[name][:10] for name in ("deploymentStart", "deploymentEnd") for row in deployments if row[name]
    ]
    return found | ({"temporal": {"start": min(ends), "end": max(ends)}} if ends else {})


def _taxon(name: str, taxonomy: Taxonomy) -> dict[str, Any]:
    """Return what is known of a scientific name: of a label, or of a higher taxon."""
    for taxon in taxonomy:
        ranks = taxon.lineage
        rank = taxon.rank if taxon.name == name else next((r for r in ranks if ranks[r] == name), None)
        if rank is None:
            continue
        higher = RANKS[: RANKS.index(rank)] if rank in RANKS else RANKS[:-1]
        found: dict[str, Any] = {"scientificName": name, **({"taxonRank": rank} if rank in RANKS else {})}
        found |= {each: ranks[each] for each in higher if each in ranks}
        if taxon.name == name and taxon.common_name:
            found["vernacularNames"] = {"eng": taxon.common_name}
        return found
    return {"scientificName": name}  # Homo sapiens, by a detector


def _say_what_is_missing(tables: Mapping[str, Sequence[Row]]) -> None:
    """Say which values that Camtrap DP requires are not known."""
    placeless = sum(not row.get("latitude") for row in tables["deployments"])
    timeless = sum(not row["timestamp"] for row in tables["media"])
    if placeless:
        logger.warning(
            f"{placeless:,} of {len(tables['deployments']):,} deployments have no latitude and longitude, "
            "which Camtrap DP requires: name a table of them with --deployments."
        )
    if timeless:
        logger.warning(
            f"{timeless:,} of {len(tables['media']):,} photos have no time, which Camtrap DP requires: name "
            "a list of the photos that has it."
        )


CAMTRAP_PACKAGE = Writer("camtrap-dp-package", "/datapackage.json", False, _write, timed=True, beside=_FILES)
