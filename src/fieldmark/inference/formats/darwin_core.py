"""Darwin Core, occurrences as CSV: a row a photo (https://dwc.tdwg.org/terms/).

Every row says who identified it (the classifier) and that nobody has verified it. What a person finds
later goes into a row, or an identification, of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from fieldmark.data.taxonomy import RANKS
from fieldmark.inference.formats.answer import answer_of
from fieldmark.inference.formats.base import FormatOptions, Writer, write_lines
from fieldmark.inference.formats.csv import csv_line
from fieldmark.inference.record import Record
from fieldmark.utils import io

TERMS = (
    *("occurrenceID", "basisOfRecord", "associatedMedia", "scientificName", "taxonRank"),
    *(*RANKS[:-1], "specificEpithet", "vernacularName", "identifiedBy", "dateIdentified"),
    *("identificationVerificationStatus", "identificationRemarks"),
)


def _rows(entries: Iterable[Record], form: FormatOptions) -> Iterator[str]:
    yield csv_line(TERMS)
    for value in entries:
        row = _row(value, form)
        yield csv_line([row.get(name, "") for name in TERMS])


def _row(value: Record, form: FormatOptions) -> dict[str, str]:
    found = answer_of(value, form.taxonomy)
    ranks = dict(found.ranks)
    genus, _, epithet = ranks.get("species", "").partition(" ")
    row = {
        "occurrenceID": io.digest([value["file_name"], form.by])[:32],
        "basisOfRecord": "MachineObservation",
        "associatedMedia": value["file_name"],
        "identificationRemarks": found.remark,
    }
    if found.kind == "unclassified":
        return row
    score = "" if found.score is None else f"probability {found.score:.6f}; "
    rank = "" if found.rank == "unranked" else found.rank
    return row | {
        "scientificName": found.name,
        "taxonRank": rank,
        **{name: ranks.get(name, "") for name in RANKS[:-1]},
        "specificEpithet": epithet if genus == ranks.get("genus", genus) else "",
        "vernacularName": found.common_name,
        "identifiedBy": form.by,
        "dateIdentified": form.when,
        "identificationVerificationStatus": "unverified",
        "identificationRemarks": f"{score}machine; {found.remark}",
    }


def _write(path: Path, entries: Iterable[Record], form: FormatOptions) -> None:
    write_lines(path, _rows(entries, form), "\r\n")


DARWIN_CORE = Writer("darwin-core", ".dwc.csv", wide=False, write=_write, lines=_rows)
