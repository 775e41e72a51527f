"""Darwin Core, occurrences as CSV: a row a photo (https://dwc.tdwg.org/terms/).

A row of a classifier names it as identifier, with the status "unverified". The identification by a person is
a row apart. Time, place, temperature and camera are those of the photo's list, or of its EXIF data.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import cast

from fieldmark.data.taxonomy import RANKS
from fieldmark.inference.formats.answer import answer_of
from fieldmark.inference.formats.base import FormatOptions, Writer
from fieldmark.inference.record import Record, key_of
from fieldmark.utils import io

TERMS = (
    *("occurrenceID", "basisOfRecord", "associatedMedia", "scientificName", "taxonRank"),
    *(*RANKS[:-1], "specificEpithet", "vernacularName", "identifiedBy", "dateIdentified"),
    *("identificationVerificationStatus", "identificationRemarks"),
    *("eventDate", "decimalLatitude", "decimalLongitude", "dynamicProperties"),
)


def _row(record: Record, options: FormatOptions) -> dict[str, str]:
    answer = answer_of(record, options.taxonomy)
    ranks = dict(answer.ranks)
    genus, _, epithet = ranks.get("species", "").partition(" ")
    row = {
        "occurrenceID": io.digest([key_of(record), record.get("reviewer", options.by)])[:32],
        "basisOfRecord": "MachineObservation",
        "associatedMedia": record["file_name"],
        "identificationRemarks": answer.remark,
        "eventDate": record.get("taken", ""),
        **_surroundings(record),
    }
    if answer.kind == "unclassified":
        return row
    score = "" if answer.score is None else f"probability {answer.score:.6f}; "
    by = {"identifiedBy": options.by, "dateIdentified": options.when}
    by |= {"identificationVerificationStatus": "unverified"}
    by |= {"identificationRemarks": f"{score}machine; {answer.remark}"}
    if "reviewer" in record:
        by |= {"identifiedBy": record["reviewer"], "dateIdentified": record["reviewed"]}
        by |= {"identificationVerificationStatus": "verified by a person", "identificationRemarks": ""}
    return row | {
        "scientificName": answer.name,
        "taxonRank": "" if answer.rank == "unranked" else answer.rank,
        **{name: ranks.get(name, "") for name in RANKS[:-1]},
        "specificEpithet": epithet if genus == ranks.get("genus", genus) else "",
        "vernacularName": answer.common_name,
        **by,
    }


def _surroundings(record: Record) -> dict[str, str]:
    terms = {"decimalLatitude": "latitude", "decimalLongitude": "longitude"}
    values = cast("dict[str, object]", record)
    found = {term: str(values[name]) for term, name in terms.items() if name in values}
    terms = {
        "temperature": "temperatureInCelsius",
        "camera_model": "cameraModel",
        "camera_serial": "cameraSerial",
    }
    if properties := {term: values[name] for name, term in terms.items() if name in values}:
        found["dynamicProperties"] = json.dumps(properties, ensure_ascii=False)
    return found


def _rows(records: Iterable[Record], options: FormatOptions) -> Iterator[Mapping[str, str]]:
    return (_row(each, options) for each in records)


DARWIN_CORE = Writer.of_rows("darwin-core", ".dwc.csv", TERMS, _rows, timed="local")
