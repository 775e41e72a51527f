"""Predictions as a table: its columns, and the rows of one photo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fieldmark.data.taxonomy import RANKS, Taxon, Taxonomy
from fieldmark.inference.record import Record

COLUMNS = (
    *("file_name", "kingdom", "phylum", "class", "order", "family", "genus"),
    *("species_epithet", "species", "common_name", "score", "rank", "source"),
    *("name", "taxon_id", "unknown", "among", "rejected"),
)
WIDE = ("file_name", "score", "rank", "source", "name", "unknown", "among")


def columns(taxonomy: Taxonomy, *, wide: bool = False) -> tuple[str, ...]:
    """Return the columns: fixed ones, or with `wide` also one for each label."""
    if not wide:
        return COLUMNS
    names = [taxon.name for taxon in taxonomy]
    taken = {*WIDE, "rejected"}
    own = (
        f"{taxon.name} ({taxon.id})" if names.count(taxon.name) > 1 or taxon.name in taken else taxon.name
        for taxon in taxonomy
    )
    return (*WIDE, *own, "rejected")


def rows(record: Record, taxonomy: Taxonomy, *, wide: bool = False) -> list[list[Any]]:
    """Return the rows of one photo, in the order of `columns`; None for a missing value.

    The first row is the answer; the labels follow as candidates, sorted by confidence. With `wide`
    there is one row.
    """
    if wide:
        values: Mapping[str, object] = dict(record)
        scores: Sequence[float | None] = record.get("scores") or [None] * len(taxonomy)
        return [[*map(values.get, WIDE), *scores, record.get("rejected")]]
    found: list[dict[str, Any]]
    if "rejected" in record:
        found = [{"rejected": record["rejected"]}]
    else:
        found = [] if record["sure"] else [_answer_row(record)]
        for number, label in enumerate(record["labels"]):
            taxon = taxonomy[label["taxon_id"]]
            source = "species" if record["sure"] and number == 0 else "candidate"
            found.append({**_taxon_columns(taxon), "score": label["score"], "source": source})
        for row in found:
            row |= {"among": record["among"], "unknown": record["unknown"]}
    return [[{**row, "file_name": record["file_name"]}.get(each) for each in COLUMNS] for row in found]


def _answer_row(record: Record) -> dict[str, Any]:
    """Return the row of an answer that is not a label."""
    row = {**record["ranks"], "rank": record["rank"], "source": record["source"]}
    return row | ({"name": record["name"], "score": record["score"]} if record["name"] else {})


def _taxon_columns(taxon: Taxon) -> dict[str, Any]:
    """Return the columns that describe a label."""
    ranks = taxon.lineage
    species = ranks.get("species")
    genus, _, epithet = (species or "").partition(" ")
    return {
        **{rank: ranks.get(rank) for rank in RANKS},
        "species_epithet": epithet if genus == ranks.get("genus") else None,
        "common_name": taxon.common_name or None,
        "rank": taxon.rank,
        "name": taxon.name,
        "taxon_id": taxon.id,
    }
