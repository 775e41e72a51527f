"""A row of findings for each photo."""

from __future__ import annotations

import numpy as np
import polars as pl

from fieldmark.curation.config import CheckConfig
from fieldmark.curation.hamming_search import components
from fieldmark.curation.image_stats import Looks
from fieldmark.curation.label_issues import judged
from fieldmark.curation.near_duplicates import twins
from fieldmark.data.split import Split
from fieldmark.features.cache import Features
from fieldmark.utils.typing import FloatArray, IntArray


def findings_of(
    rows: pl.DataFrame,
    split: Split | None,
    seen: Looks,
    features: Features,
    sideways_N: FloatArray,
    config: CheckConfig,
) -> pl.DataFrame:
    """What was found, with the columns that docs/check.md lists.

    Args:
        rows: the kept rows of a photo table.
        split: whose parts leaks are looked for across; None: the source's own.
        seen, features: of the same photos in the same order.
        sideways_N: how much likelier each lies on its side than not, in nats.
        config: the limits.
    """
    found = twins(rows["sha256"].to_list(), seen, features)
    together_N = _together(rows["group"], found.near_N)
    findings = pl.DataFrame(
        {
            "id": rows["id"],
            "taxon_id": rows["taxon_id"],
            "part": _parts(rows, split),
            "same_bytes": _cluster(rows["id"], found.same_N),
            "twins": _cluster(rows["id"], found.near_N),
            "alike": found.alike_N,
            "together": _cluster(rows["id"], together_N),
            **judged(features, rows, together_N, config),
            "brightness": seen.bright_N,
            "blur": seen.blur_N,
            "short_side": pl.Series(rows.select(pl.min_horizontal("width", "height"))),
            "sideways": sideways_N,
        }
    ).with_columns(
        labels_differ=pl.col("taxon_id").drop_nulls().n_unique().over("twins").gt(1)
        & is_in("twins"),
        leak=_leaks("twins") | _leaks("together"),
        dark=pl.col("brightness") < config.dark,
        tiny=pl.col("short_side") < config.tiny,
        rotated=pl.col("sideways") >= config.rotated,
    )
    return findings.with_columns(blurred=(pl.col("blur") >= config.blurred) & ~pl.col("tiny"))


def is_in(cluster: str) -> pl.Expr:
    """Whether a photo is in a cluster of the kind."""
    return pl.col(cluster).is_not_null()


def _together(group: pl.Series, near_N: IntArray) -> IntArray:
    """What must stay on one side of a split: twins, and photos of one group of the source."""
    frame = pl.DataFrame({"group": group}).with_row_index("row")
    first = frame.filter(pl.col("group").is_not_null()).with_columns(
        first=pl.col("row").first().over("group")
    )
    pairs = first.select("first", "row").to_numpy().astype(np.int64)
    own = np.stack([near_N, np.arange(len(near_N))], 1)
    return components(len(near_N), np.concatenate([pairs, own]))


def _cluster(ids: pl.Series, root_N: IntArray) -> pl.Series:
    """The id of each cluster's first photo; null for a photo that is alone."""
    alone = np.bincount(root_N, minlength=len(root_N))[root_N] == 1
    return pl.select(pl.when(~pl.Series(alone)).then(ids.gather(root_N))).to_series()


def _parts(rows: pl.DataFrame, split: Split | None) -> pl.Series:
    if split is None:
        return rows["split"]
    return rows.select("id").join(split.frame, on="id", how="left", maintain_order="left")["part"]


def _leaks(cluster: str) -> pl.Expr:
    """Whether photos that belong together are in more than one part."""
    return is_in(cluster) & (pl.col("part").drop_nulls().n_unique().over(cluster) > 1)
