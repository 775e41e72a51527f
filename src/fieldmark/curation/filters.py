"""Photos that `--drop` rejects, and their numbers."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from fieldmark.curation.config import DROP_REASONS, CheckSummary
from fieldmark.curation.findings import is_in
from fieldmark.data.photos import PhotoTable


def group_near_duplicates(table: PhotoTable, findings: pl.DataFrame) -> PhotoTable:
    """Return the table with one group for near-duplicates, so that a split keeps them together."""
    together = findings.select("id", "together")
    frame = table.frame.join(together, on="id", how="left", maintain_order="left")
    return table.with_frame(frame.with_columns(group=pl.coalesce("together", "group")))


def ids_to_drop(findings: pl.DataFrame, name: str) -> list[str]:
    """Return the ids of the photos that `--drop NAME` rejects.

    One photo of each cluster of duplicates stays: test before val before train, labelled before
    unlabelled, larger before smaller. Of a leak, the photos of the last part stay, so that the photos
    that errors are measured on do not change.
    """
    place = pl.col("part").replace_strict({"test": 0, "val": 1, "train": 2}, default=3)
    best = findings.with_columns(place=place, unlabelled=pl.col("taxon_id").is_null()).sort(
        "place", "unlabelled", -pl.col("short_side"), "id"
    )
    if name in ("duplicates", "near-duplicates"):
        cluster = "same_bytes" if name == "duplicates" else "twins"
        rows = best.filter(is_in(cluster)).filter(~pl.col(cluster).is_first_distinct())
    elif name == "leaks":
        last = pl.col("place").min().over("together")
        rows = best.filter(pl.col("leak") & (pl.col("place") > last) & (pl.col("place") < 3))
    elif name == "labels":
        rows = best.filter(pl.col("suspect").is_not_null())
    else:
        rows = best.filter(pl.col(name))
    return rows["id"].to_list()


def drop(table: PhotoTable, findings: pl.DataFrame, names: Sequence[str]) -> PhotoTable:
    """Return the table with the named photos rejected, with the first reason of `DROP_REASONS`."""
    for name, reason in DROP_REASONS.items():
        if name in names:
            table = table.reject(ids_to_drop(findings, name), reason.value)
    return table


def summarize(findings: pl.DataFrame) -> CheckSummary:
    """Count the photos of each finding."""
    return CheckSummary(
        photos=findings.height,
        labelled=findings["taxon_id"].count(),
        drops={name: len(ids_to_drop(findings, name)) for name in DROP_REASONS},
        twins_with_other_labels=int(findings["labels_differ"].fill_null(False).sum()),
        leaking=int(findings["leak"].sum()),
    )
