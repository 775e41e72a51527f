"""Counts of photos per class, against the paper's data set."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from fieldmark.data.photos import PhotoTable, build_frame
from fieldmark.data.readers import read
from fieldmark.data.stats import render, stats
from fieldmark.data.taxonomy import Taxon, Taxonomy


def test_the_paper_s_table_1(shared: Path) -> None:
    counted = stats(read(shared / "data/inat2019-annotations"))
    assert (counted["classes"], counted["photos"]) == (1010, 268_243)
    assert len(counted["groups"]) == 6
    assert sum(counted["groups"].values()) == 268_243
    train = counted["parts"]["train"]
    assert (train["photos"], train["max"], train["min"], train["median"]) == (265_213, 500, 16, 212)
    assert (round(train["mean"], 1), round(train["sd"], 1)) == (262.6, 167.5)
    assert (train["classes_below_100"], train["photos_in_classes_below_100"]) == (208, 14_621)
    assert counted["parts"]["val"]["photos"] == 3030
    assert counted["parts"]["all"]["max"] == 503
    histogram = counted["histogram"]
    assert histogram["part"] == "train"
    assert sum(histogram["counts"]) == 1010
    assert histogram["counts"][-1] >= 200  # the classes that were cut off at 500
    text = render(counted)
    assert "265,213         500          16         212       262.6       167.5" in text
    assert "median as its minimum and the mean as its median" in text


def table_of(rows: list[tuple[str | None, str | None]]) -> PhotoTable:
    names = [f"p{n}" for n in range(len(rows))]
    frame = build_frame(
        {
            "id": pl.Series(names, dtype=pl.String),
            "path": pl.Series(names, dtype=pl.String),
            "taxon_id": pl.Series([label for label, _ in rows], dtype=pl.String),
            "split": pl.Series([part for _, part in rows], dtype=pl.String),
        }
    )
    taxa = [Taxon("a", "a", supercategory="Birds"), Taxon("b", "b"), Taxon("never", "never")]
    return PhotoTable(frame, Taxonomy(taxa), Path("x"), "table")


def test_by_hand() -> None:
    rows = [("a", "train")] * 4 + [("b", "train"), ("b", "val"), (None, "test"), ("a", None)]
    counted = stats(table_of(rows).reject(["p0"], "truncated"))
    assert counted["groups"] == {"Birds": 4}
    assert (counted["classes"], counted["photos"]) == (2, 6)
    assert counted["parts"]["train"] == {
        "photos": 4,
        "max": 3,
        "min": 1,
        "median": 2.0,
        "mean": 2.0,
        "sd": 1.0,
        "classes_below_100": 2,
        "photos_in_classes_below_100": 4,
    }
    assert counted["parts"]["all"]["photos"] == 6
    assert counted["histogram"] == {"part": "train", "bins": [0, 1, 2, 3, 4], "counts": [0, 1, 0, 1]}


def test_nothing_to_count() -> None:
    counted = stats(table_of([(None, None)]))
    assert counted["photos"] == counted["classes"] == counted["parts"]["all"]["photos"] == 0
    assert counted["parts"]["train"]["max"] is None
    assert "0 classes, 0 photos" in render(counted)
    json.dumps(counted, allow_nan=False)


@pytest.mark.parametrize("count", [1, 49, 50, 51, 100, 101, 2500])
def test_every_class_is_in_a_bin(count: int) -> None:
    histogram = stats(table_of([("a", None)] * count + [("b", None)]))["histogram"]
    assert sum(histogram["counts"]) == 2
    assert len(histogram["bins"]) == len(histogram["counts"]) + 1 <= 53
    place = max(n for n, bar in enumerate(histogram["counts"]) if bar)
    assert histogram["bins"][place] <= count < histogram["bins"][place + 1]
