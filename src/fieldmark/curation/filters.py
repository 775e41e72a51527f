"""What `--drop` rejects, and how many photos that would be."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from fieldmark.curation.config import DROPS
from fieldmark.curation.findings import is_in
from fieldmark.data.photos import PhotoTable


def grouped(table: PhotoTable, findings: pl.DataFrame) -> PhotoTable:
    """The table in which twins have one group, so that a split keeps them together."""
    together = findings.select("id", "together")
    frame = table.frame.join(together, on="id", how="left", maintain_order="left")
    return table.with_frame(frame.with_columns(group=pl.coalesce("together", "group")))


def dropping(findings: pl.DataFrame, name: str) -> list[str]:
    """The ids of the photos that `--drop NAME` rejects.

    Of twins one stays: one of the test part before one of val and of train, a labelled one before one
    without a label, the larger picture before the smaller. Of a leak the photos of the last part stay,
    so that what is measured stays as it was.
    """
    place = pl.col("part").replace_strict({"test": 0, "val": 1, "train": 2}, default=3)
    best = findings.with_columns(place=place, unlabelled=pl.col("taxon_id").is_null()).sort(
        "place", "unlabelled", -pl.col("short_side"), "id"
    )
    if name in ("duplicates", "near-duplicates"):
        cluster = "same_bytes" if name == "duplicates" else "twins"
        rows = best.filter(is_in(cluster)).filter(~pl.col(cluster).is_first_distinct())
    elif name == "leaks":
        kept = pl.col("place").min().over("together")
        rows = best.filter(pl.col("leak") & (pl.col("place") > kept) & (pl.col("place") < 3))
    elif name == "labels":
        rows = best.filter(pl.col("suspect").is_not_null())
    else:
        rows = best.filter(pl.col(name))
    return rows["id"].to_list()


def dropped(table: PhotoTable, findings: pl.DataFrame, names: Sequence[str]) -> PhotoTable:
    """The table with what was named rejected; a photo's first reason in the order of `DROPS` stays."""
    for name, reason in DROPS.items():
        if name in names:
            table = table.reject(dropping(findings, name), reason.value)
    return table


def summary(findings: pl.DataFrame) -> dict[str, int]:
    """How many photos each finding has."""
    return {
        "photos": findings.height,
        "labelled": findings["taxon_id"].count(),
        **{name: len(dropping(findings, name)) for name in DROPS},
        "twins_with_other_labels": int(findings["labels_differ"].fill_null(False).sum()),
        "leaking": int(findings["leak"].sum()),
    }
