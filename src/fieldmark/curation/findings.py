"""The table of findings, one row per photo."""

from __future__ import annotations

import numpy as np
import polars as pl

from fieldmark.curation.config import CheckConfig
from fieldmark.curation.label_issues import label_columns
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
    """Return the findings, with the columns of docs/check.md.

    Args:
        rows: The kept rows of a photo table.
        split: The split whose parts are searched for leaks; None: the source's own parts.
        stats, features: Of the same photos in the same order.
        rotated_N: Log-odds that each photo is rotated, in nats.
        config: The thresholds.
    """
    found = find_near_duplicates(rows["sha256"].to_list(), stats, features)
    together_N = _together(rows["group"], found.cluster_N)
    findings = pl.DataFrame(
        {
            "id": rows["id"],
            "taxon_id": rows["taxon_id"],
            "part": _parts(rows, split),
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
        labels_differ=pl.col("taxon_id").drop_nulls().n_unique().over("twins").gt(1) & is_in("twins"),
        leak=_leaks("twins") | _leaks("together"),
        dark=pl.col("brightness") < config.dark,
        tiny=pl.col("short_side") < config.tiny,
        rotated=pl.col("sideways") >= config.rotated,
    )
    return findings.with_columns(blurred=(pl.col("blur") >= config.blurred) & ~pl.col("tiny"))


def is_in(cluster: str) -> pl.Expr:
    """Select the photos that are in a cluster of the column."""
    return pl.col(cluster).is_not_null()


def _together(group: pl.Series, cluster_N: IntArray) -> IntArray:
    """Return the first photo of all that must stay in one part: near-duplicates and groups."""
    frame = pl.DataFrame({"group": group}).with_row_index("row")
    first = frame.filter(pl.col("group").is_not_null()).with_columns(
        first=pl.col("row").first().over("group")
    )
    pairs = first.select("first", "row").to_numpy().astype(np.int64)
    own = np.stack([cluster_N, np.arange(len(cluster_N))], 1)
    return components(len(cluster_N), np.concatenate([pairs, own]))


def _cluster(ids: pl.Series, root_N: IntArray) -> pl.Series:
    """Return the id of each cluster's first photo; null for a photo without a cluster."""
    alone = np.bincount(root_N, minlength=len(root_N))[root_N] == 1
    return pl.select(pl.when(~pl.Series(alone)).then(ids.gather(root_N))).to_series()


def _parts(rows: pl.DataFrame, split: Split | None) -> pl.Series:
    if split is None:
        return rows["split"]
    return rows.select("id").join(split.frame, on="id", how="left", maintain_order="left")["part"]


def _leaks(cluster: str) -> pl.Expr:
    """Select the photos of a cluster that is in more than one part."""
    return is_in(cluster) & (pl.col("part").drop_nulls().n_unique().over(cluster) > 1)
