"""Answers as a table: its columns, and the rows of one photo."""

from __future__ import annotations

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
    """The columns of the table: of fixed names, or with `wide` one for each label as well."""
    if not wide:
        return COLUMNS
    names = [taxon.name for taxon in taxonomy]
    taken = {*WIDE, "rejected"}
    own = (
        f"{taxon.name} ({taxon.id})"
        if names.count(taxon.name) > 1 or taxon.name in taken
        else taxon.name
        for taxon in taxonomy
    )
    return (*WIDE, *own, "rejected")


def rows(value: Record, taxonomy: Taxonomy, *, wide: bool = False) -> list[list[Any]]:
    """The rows of one photo's `entry`, in the order of `columns`; None where there is nothing.

    The first row is the answer given; the labels follow as candidates, sorted by confidence. With
    `wide` there is one row.
    """
    if wide:
        answer = [value.get(name) for name in WIDE]
        scores = value.get("scores") or [None] * len(taxonomy)
        return [[*answer, *scores, value.get("rejected")]]
    if "rejected" in value:
        found = [{"rejected": value["rejected"]}]
    else:
        found = [] if value["sure"] else [_unsure(value)]
        for number, label in enumerate(value["labels"]):
            taxon = taxonomy[label["taxon_id"]]
            given = value["sure"] and number == 0
            source = "species" if given else "candidate"
            found.append({**_named(taxon), "score": label["score"], "source": source})
        for row in found:
            row |= {"among": value["among"], "unknown": value["unknown"]}
    return [
        [{**row, "file_name": value["file_name"]}.get(each) for each in COLUMNS] for row in found
    ]


def _unsure(value: Record) -> dict[str, Any]:
    """The row of an answer that is no label."""
    row = {**value["ranks"], "rank": value["rank"], "source": value["source"]}
    return row | ({"name": value["name"], "score": value["score"]} if value["name"] else {})


def _named(taxon: Taxon) -> dict[str, Any]:
    """The columns that say what a label is."""
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
