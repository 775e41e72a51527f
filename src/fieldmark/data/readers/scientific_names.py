"""The label of a record with Darwin Core's terms: a species, or a higher taxon."""

from __future__ import annotations

import polars as pl

from fieldmark.data.taxonomy import RANKS

TERMS = ("scientificName", "taxonRank", *RANKS, "specificEpithet")
"""The columns of a label; each may be null."""

# Two words, the first one capitalised; authors, years and names of subspecies may follow.
_BINOMIAL = r"^(\p{Lu}\p{Ll}+(?:-\p{Ll}+)?\s+(?:[×x]\s?)?\p{Ll}[\p{Ll}-]+)(?:$|[\s,(])"
# A hybrid named after both parents: the name is all of it, not that of the first parent.
_PARENTS = r"^\p{Lu}[\p{L}.-]+ [\p{Ll}-]+ [×x] (?:\p{Lu}[\p{L}.-]* )?[\p{Ll}-]+"
_BELOW = ("species", "subspecies", "variety", "form", "infraspecificname", "cultivar", "hybrid")


def label() -> pl.Expr:
    """Return the name of the species, also for lower ranks, else the name at the given rank.

    Authors and years are left out where the column of the rank has the name too.
    """
    rank = pl.col("taxonRank").str.to_lowercase()
    whole = pl.col("scientificName")
    as_species = pl.coalesce(
        whole.str.extract(f"({_PARENTS})"),
        "species",
        pl.concat_str("genus", pl.lit(" "), "specificEpithet"),
        whole.str.extract(_BINOMIAL),
        whole,
    )
    wide = pl.coalesce(
        *(pl.when(rank == each).then(each) for each in RANKS[:-1]),
        whole.str.extract(r"^(\p{Lu}\p{Ll}+)(?:\s+\p{Lu}|$)"),
        whole,
    )
    return pl.when(rank.is_null() | rank.is_in(_BELOW)).then(as_species).otherwise(wide)


def ranks() -> list[pl.Expr]:
    """Return the columns of `RANKS`; the species is that of the label, where it is one."""
    rank = pl.col("taxonRank").str.to_lowercase()
    known = rank.is_null() | rank.is_in(_BELOW)
    named = pl.col("label").str.contains(_BINOMIAL) | pl.col("label").str.contains(_PARENTS)
    species = pl.when(known & named).then("label")
    return [*map(pl.col, RANKS[:-1]), species.alias("species")]
