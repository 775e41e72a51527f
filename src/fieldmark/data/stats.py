"""Count the photos of classes, for the paper's Table 1 and Figure 1."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import polars as pl

from fieldmark.data.photos import PhotoTable
from fieldmark.utils.typing import IntArray

RARE = 100
"""A class with fewer photos than this is rare: the paper drops such classes."""

_BINS = 50  # bars of the histogram
_COLUMNS = {
    **{"photos": "photos", "max": "maximum", "min": "minimum", "median": "median", "mean": "mean"},
    **{"sd": "std. dev.", "classes_below_100": "rare (<100)", "photos_in_classes_below_100": "in those"},
}


def stats(table: PhotoTable) -> dict[str, Any]:
    """Count the photos that are kept and labelled.

    Returns:
        JSON values: `classes` (that have a photo), `photos`, `groups` (supercategory -> photos, the
        largest first), `parts` and `histogram`. `parts` holds, for `train` and `val` as the source has
        them and for `all`: `photos`, and of the photos of each class there `max`, `min`, `median`, `mean`,
        `sd` (divided by n), `classes_below_100` and `photos_in_classes_below_100`; null where there is no
        class. `histogram` has the `part` that is counted (train, or all without parts), B + 1 edges `bins`
        in photos a class, and B `counts` of classes; an edge's own number is in the bin above it.
    """
    rows = table.labelled
    parts = {part: rows.filter(pl.col("split") == part) for part in ("train", "val")} | {"all": rows}
    counts = {part: _photos_per_class(some) for part, some in parts.items()}
    shown = "train" if len(counts["train"]) else "all"
    return {
        "classes": len(counts["all"]),
        "photos": rows.height,
        "groups": _groups(rows, table),
        "parts": {part: _describe(count_C) for part, count_C in counts.items()},
        "histogram": {"part": shown, **_histogram(counts[shown])},
    }


def render(counted: dict[str, Any]) -> str:
    """Format the result of `stats` for the terminal, like the paper's Table 1."""
    groups = ", ".join(f"{name} {photos:,}" for name, photos in counted["groups"].items())
    head = f"{counted['classes']:,} classes, {counted['photos']:,} photos"
    if groups:
        head += f", {len(counted['groups']):,} groups ({groups})"
    rows = [["Part", *_COLUMNS.values()]]
    rows += [[part, *(_cell(numbers[key]) for key in _COLUMNS)] for part, numbers in counted["parts"].items()]
    lines = [f"{row[0]:<7}" + "".join(f"{cell:>12}" for cell in row[1:]) for row in rows]
    return "\n".join([head, "", "Photos per class:", *lines, "", PAPER_NOTE])


PAPER_NOTE = (
    "The paper's Table 1 (maximum 500, minimum 212, median 262, standard deviation 167) prints the\n"
    "median as its minimum and the mean as its median: the train part of iNaturalist 2019 has\n"
    "minimum 16, median 212 and mean 262.6."
)
"""How the paper's Table 1 differs from the data that it was counted on."""


def _cell(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.1f}" if isinstance(value, float) and value % 1 else f"{value:,.0f}"


def _photos_per_class(rows: pl.DataFrame) -> IntArray:
    return rows["taxon_id"].value_counts()["count"].to_numpy().astype(np.int64)


def _describe(count_C: IntArray) -> dict[str, float | int | None]:
    """Summarise the numbers of photos of C classes."""
    found: dict[str, float | int | None] = dict.fromkeys(_COLUMNS)
    if len(count_C):
        found |= {"max": int(count_C.max()), "min": int(count_C.min()), "median": float(np.median(count_C))}
        found |= {"mean": float(count_C.mean()), "sd": float(count_C.std())}
    rare = count_C[count_C < RARE]
    found |= {"classes_below_100": len(rare), "photos_in_classes_below_100": int(rare.sum())}
    return found | {"photos": int(count_C.sum())}


def _groups(rows: pl.DataFrame, table: PhotoTable) -> dict[str, int]:
    group_of = {taxon.id: taxon.supercategory for taxon in table.taxonomy}
    photos: Counter[str] = Counter()
    for taxon_id, count in rows["taxon_id"].value_counts().iter_rows():
        photos[group_of.get(taxon_id, "")] += count
    del photos[""]
    return dict(sorted(photos.items(), key=lambda item: (-item[1], item[0])))


def _histogram(count_C: IntArray) -> dict[str, list[int]]:
    """Count classes in at most about 50 bins of equal width, from 0 to beyond the largest class."""
    largest = int(count_C.max(initial=0))
    width = max(1, math.ceil(largest / _BINS))
    edges = list(range(0, largest + width + 1, width))
    counts = np.bincount(count_C // width, minlength=len(edges) - 1) if largest else [0]
    return {"bins": edges, "counts": [int(count) for count in counts[: len(edges) - 1]]}
