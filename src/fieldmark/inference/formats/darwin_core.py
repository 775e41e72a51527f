"""Darwin Core, occurrences as CSV: a row a photo (https://dwc.tdwg.org/terms/).

Every row names the classifier as identifier, with the status "unverified". A later human identification
belongs in a separate row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fieldmark.data.taxonomy import RANKS
from fieldmark.inference.formats.answer import answer_of
from fieldmark.inference.formats.base import FormatOptions, Writer
from fieldmark.inference.formats.csv import csv_line
from fieldmark.inference.record import Record
from fieldmark.utils import io

TERMS = (
    *("occurrenceID", "basisOfRecord", "associatedMedia", "scientificName", "taxonRank"),
    *(*RANKS[:-1], "specificEpithet", "vernacularName", "identifiedBy", "dateIdentified"),
    *("identificationVerificationStatus", "identificationRemarks"),
)


def _lines(records: Iterable[Record], options: FormatOptions) -> Iterator[str]:
    yield csv_line(TERMS)
    for record in records:
        row = _row(record, options)
        yield csv_line([row.get(name, "") for name in TERMS])


def _row(record: Record, options: FormatOptions) -> dict[str, str]:
    answer = answer_of(record, options.taxonomy)
    ranks = dict(answer.ranks)
    genus, _, epithet = ranks.get("species", "").partition(" ")
    row = {
        "occurrenceID": io.digest([record["file_name"], options.by])[:32],
        "basisOfRecord": "MachineObservation",
        "associatedMedia": record["file_name"],
        "identificationRemarks": answer.remark,
    }
    if answer.kind == "unclassified":
        return row
    score = "" if answer.score is None else f"probability {answer.score:.6f}; "
    rank = "" if answer.rank == "unranked" else answer.rank
    return row | {
        "scientificName": answer.name,
        "taxonRank": rank,
        **{name: ranks.get(name, "") for name in RANKS[:-1]},
        "specificEpithet": epithet if genus == ranks.get("genus", genus) else "",
        "vernacularName": answer.common_name,
        "identifiedBy": options.by,
        "dateIdentified": options.when,
        "identificationVerificationStatus": "unverified",
        "identificationRemarks": f"{score}machine; {answer.remark}",
    }


DARWIN_CORE = Writer.of_lines("darwin-core", ".dwc.csv", _lines, end="\r\n")
