"""The table of findings, one row per photo; the photos that `--drop` rejects, and their numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from fieldmark.curation.confident_learning import expected_precision
from fieldmark.curation.config import DROP_REASONS, CheckConfig, CheckSummary
from fieldmark.curation.label_issues import label_columns
from fieldmark.data.photos import PhotoTable
from fieldmark.data.split import Split
from fieldmark.features.cache import Features
from fieldmark.features.hamming_search import components
from fieldmark.features.image_stats import ImageStats
from fieldmark.features.near_duplicates import find_near_duplicates
from fieldmark.utils.typing import FloatArray, IntArray


def findings_of(
    rows: pl.DataFrame,
    split: Split | None,
    stats: ImageStats,
    features: Features,
    rotated_N: FloatArray,
    config: CheckConfig,
) -> pl.DataFrame:
    """Return the findings of the kept rows of a photo table, with the columns of docs/check.md.

    Leaks are searched for across the parts of `split`; without one, across the source's own parts.
    """
    found = find_near_duplicates(rows["sha256"].to_list(), stats, features)
    together_N = _together(rows["group"], found.cluster_N)
    part = rows["split"]
    if split is not None:
        part = rows.select("id").join(split.frame, on="id", how="left", maintain_order="left")["part"]
    findings = pl.DataFrame(
        {
            "id": rows["id"],
            "taxon_id": rows["taxon_id"],
            "part": part,
            "same_bytes": _cluster(rows["id"], found.same_bytes_N),
            "twins": _cluster(rows["id"], found.cluster_N),
            "alike": found.similarity_N,
            "together": _cluster(rows["id"], together_N),
            **label_columns(features, rows, together_N, config),
            "brightness": stats.brightness_N,
            "blur": stats.blur_N,
            "short_side": pl.Series(rows.select(pl.min_horizontal("width", "height"))),
            "sideways": rotated_N,
        }
    ).with_columns(
        labels_differ=pl.col("taxon_id").drop_nulls().n_unique().over("twins").gt(1)
        & pl.col("twins").is_not_null(),
        leak=_leaks("twins") | _leaks("together"),
        dark=pl.col("brightness") < config.dark,
        tiny=pl.col("short_side") < config.tiny,
        rotated=pl.col("sideways") >= config.rotated,
    )
    return findings.with_columns(blurred=(pl.col("blur") >= config.blurred) & ~pl.col("tiny"))


def _together(group: pl.Series, cluster_N: IntArray) -> IntArray:
    """Return the first photo of all that must stay in one part: near-duplicates and groups."""
    frame = pl.DataFrame({"group": group}).with_row_index("row").drop_nulls()
    pairs = (
        frame.select(pl.col("row").first().over("group").alias("first"), "row").to_numpy().astype(np.int64)
    )
    own = np.stack([cluster_N, np.arange(len(cluster_N))], 1)
    return components(len(cluster_N), np.concatenate([pairs, own]))


def _cluster(ids: pl.Series, root_N: IntArray) -> pl.Series:
    """Return the id of each cluster's first photo; null for a photo without a cluster."""
    alone = np.bincount(root_N, minlength=len(root_N))[root_N] == 1
    return pl.select(pl.when(~pl.Series(alone)).then(ids.gather(root_N))).to_series()


def _leaks(cluster: str) -> pl.Expr:
    """Select the photos of a cluster that is in more than one part."""
    return pl.col(cluster).is_not_null() & (pl.col("part").drop_nulls().n_unique().over(cluster) > 1)


def group_near_duplicates(table: PhotoTable, findings: pl.DataFrame) -> PhotoTable:
    """Return the table with one group for near-duplicates, so that a split keeps them together."""
    frame = table.frame.join(findings.select("id", "together"), on="id", how="left", maintain_order="left")
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
        rows = best.filter(pl.col(cluster).is_not_null()).filter(~pl.col(cluster).is_first_distinct())
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
    suspect = findings.drop_nulls("suspect").sort("suspect")["label_wrong"].to_numpy()
    return CheckSummary(
        photos=findings.height,
        labelled=findings["taxon_id"].count(),
        drops={name: len(ids_to_drop(findings, name)) for name in DROP_REASONS},
        twins_with_other_labels=int(findings["labels_differ"].fill_null(False).sum()),
        to_review=findings["review"].count(),
        label_precision=float(expected_precision(suspect)[-1]) if len(suspect) else None,
        leaking=int(findings["leak"].sum()),
        clock=findings["clock"].count(),
    )
