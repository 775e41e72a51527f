"""`fieldmark check` as a whole: planted copies are found, nothing is removed that was not asked for."""

from __future__ import annotations

import shutil
from pathlib import Path

import polars as pl
import pytest

from fieldmark.check import CheckConfig, check
from fieldmark.errors import InputError
from fieldmark.photos import PhotoTable

NETWORK = {"backbone": "shufflenet_v2_x0_5", "weights": "random", "engine": "torch"}


def test_a_planted_copy_is_found_grouped_and_dropped_only_when_asked(
    insects: Path, tmp_path: Path
) -> None:
    shutil.copytree(insects, tmp_path / "photos")
    copy = tmp_path / "photos" / "Danaus plexippus" / "copy.jpg"
    shutil.copy(insects / "Apis mellifera" / "03.jpg", copy)
    done = check(tmp_path / "photos", tmp_path / "out", CheckConfig(**NETWORK))
    rows = done.findings.filter(pl.col("same_bytes").is_not_null())
    assert set(rows["id"]) == {"Apis mellifera/03.jpg", "Danaus plexippus/copy.jpg"}
    assert rows["labels_differ"].all()
    assert done.summary["duplicates"] == 1
    assert done.table.kept.height == done.findings.height == 65
    table = PhotoTable.read(tmp_path / "out" / "checked.parquet")
    groups = table.frame.filter(pl.col("id").is_in(rows["id"].to_list()))["group"]
    assert groups.n_unique() == 1
    assert groups.null_count() == 0
    assert "labels differ" in (tmp_path / "out" / "report.html").read_text()
    again = check(
        tmp_path / "photos", tmp_path / "out", CheckConfig(drop=("duplicates",), **NETWORK)
    )
    assert again.table.reasons()["duplicate"] == 1
    assert again.table.kept.height == 64


def test_what_cannot_be_dropped_is_refused_before_any_work(insects: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="choose from duplicates"):
        check(insects, tmp_path / "out", CheckConfig(drop=("ugly",)))
    assert not (tmp_path / "out").exists()
