"""Bursts and near-duplicates form groups before photos are divided."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image, ImageOps

from fieldmark.data.photos import PhotoTable
from fieldmark.data.split import Split
from fieldmark.data.subset import LabelledPhotos, photos_of, read
from fieldmark.experiments import Run, StudyConfig, study
from fieldmark.experiments.model_ranking import RankConfig, rank
from fieldmark.features.cache import Features
from fieldmark.training.grouping import grouped

MODEL, TAKEN = 0x0110, 0x9003
"""The EXIF tags of the camera and of the time."""


def with_exif(data: bytes, camera: str | None, taken: str | None) -> bytes:
    image = Image.open(io.BytesIO(data))
    exif = image.getexif()
    if camera is not None:
        exif[MODEL] = camera
    if taken is not None:
        exif.get_ifd(0x8769)[TAKEN] = taken
    out = io.BytesIO()
    image.save(out, "JPEG", exif=exif)
    return out.getvalue()


def written(root: Path, photos: dict[str, bytes]) -> tuple[PhotoTable, LabelledPhotos]:
    """Write photos by "class/name", and read them."""
    for name, data in photos.items():
        path = root / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    table = read(root, limit=None, seed=0)
    ids = table.labelled["id"].to_list()
    split = Split(pl.DataFrame({"id": sorted(ids), "part": ["train"] * len(ids)}), 0, "stratified")
    return table, photos_of(table, split, "train")


def groups_of(table: PhotoTable) -> list[set[str]]:
    """The names of photos that share a group."""
    rows = table.kept.drop_nulls("group").group_by("group").agg("path")
    return sorted(({Path(each).stem for each in paths} for paths in rows["path"].to_list()), key=min)


def test_frames_of_one_camera_within_seconds_are_a_burst(tmp_path: Path, draw: Any) -> None:
    shots = {
        "a/one": ("A", "2024:05:01 10:00:00"),
        "a/two": ("A", "2024:05:01 10:00:04"),
        "a/three": ("A", "2024:05:01 10:00:13"),  # nine seconds after the one before
        "a/later": ("A", "2024:05:01 10:00:24"),  # eleven
        "a/other-camera": ("B", "2024:05:01 10:00:02"),
        "a/no-time": ("A", None),
        "a/nothing": (None, None),
        "b/other-class": ("A", "2024:05:01 10:00:01"),
        "b/also": ("A", "2024:05:01 10:00:02"),
    }
    photos = {
        name: with_exif(draw(number % 4, number), camera, taken)
        for number, (name, (camera, taken)) in enumerate(shots.items())
    }
    table, labelled = written(tmp_path / "p", photos)
    found = grouped(table, labelled, None)
    assert groups_of(found) == [{"also", "other-class"}, {"one", "two", "three"}]
    assert groups_of(table) == []  # the table itself stays


@pytest.mark.parametrize("change", ["mirrored", "recompressed"])
def test_near_duplicates_of_a_class_are_one_group(tmp_path: Path, draw: Any, change: str) -> None:
    original = draw(1, 0)
    image = Image.open(io.BytesIO(original))
    out = io.BytesIO()
    (ImageOps.mirror(image) if change == "mirrored" else image).save(out, "JPEG", quality=70)
    photos = {"a/one": original, "a/copy": out.getvalue(), "b/copy": with_exif(original, "X", None)}
    photos |= {f"a/other{number}": draw(number % 4, number) for number in range(2, 6)}
    table, labelled = written(tmp_path / "p", photos)
    rng = np.random.default_rng(0)
    x_ND = rng.normal(size=(len(labelled), 64)).astype(np.float32)
    names = [Path(str(each.path)) for each in labelled.files]
    same = [n for n, each in enumerate(names) if each.stem in ("one", "copy")]
    x_ND[same] = x_ND[same[0]]  # a network sees the same in them
    found = grouped(table, labelled, Features.of(x_ND))
    assert groups_of(found) == [{"copy", "one"}]


def test_similar_features_alone_are_no_group(tmp_path: Path, draw: Any) -> None:
    """Photos of one class that a network sees alike, but whose pixels differ."""
    table, labelled = written(tmp_path / "p", {f"a/{n}": draw(n % 4, n) for n in range(4)})
    rng = np.random.default_rng(0)
    x_ND = 1 + 0.3 * rng.normal(size=(4, 64)).astype(np.float32)  # cosines of about 0.92
    assert groups_of(grouped(table, labelled, Features.of(x_ND))) == []


def test_groups_of_the_source_stay_and_grow(tmp_path: Path, draw: Any) -> None:
    photos = {
        f"a/{number}": with_exif(draw(number % 4, number), "A", f"2024:05:01 10:0{number // 2}:0{number % 2}")
        for number in range(6)
    }
    table, labelled = written(tmp_path / "p", photos)
    ids = table.labelled["id"].to_list()
    sequence = {ids[0]: "sequence", ids[2]: "sequence"}
    frame = table.frame.with_columns(
        group=table.frame["id"].replace_strict(
            sequence, default=None, return_dtype=table.frame["group"].dtype
        )
    )
    named = table.with_frame(frame)
    groups = tuple(sequence.get(each) for each in labelled.ids)
    found = grouped(named, dataclasses.replace(labelled, groups=groups), None)
    # The bursts 0-1 and 2-3 are joined by the sequence; 4-5 is one of its own.
    assert groups_of(found) == [{"0", "1", "2", "3"}, {"4", "5"}]
    assert set(found.kept.drop_nulls("group")["group"].unique()) >= {"sequence"}


def test_studies_and_rankings_keep_bursts_together(tmp_path: Path, draw: Any) -> None:
    """Every photo has three more frames: none is learned from where another one is measured."""
    for label in range(3):
        for number in range(6):
            folder = tmp_path / "photos" / f"Genus kind{label}"
            folder.mkdir(parents=True, exist_ok=True)
            for frame in range(3):
                taken = f"2024:05:{number + 1:02} 10:00:0{frame}"
                data = with_exif(draw(label, number), f"Camera {label}", taken)
                (folder / f"{number}-{frame}.jpg").write_bytes(data)
    network = {"backbone": "shufflenet_v2_x0_5", "pruned": False}
    runs = [Run("t", "Head", mode="head", head="ridge", part="cross", **network)]
    config = StudyConfig(engine="torch", test=0.2)
    groups = {}
    for way in ("auto", "none"):
        done = study(tmp_path / "photos", runs, dataclasses.replace(config, groups=way))
        groups[way] = {each for each in done.evaluation(done.rows[0]).groups if each is not None}
    assert not groups["none"]
    assert 10 <= len(groups["auto"]) <= 18
    found = rank(tmp_path / "photos", RankConfig(("shufflenet_v2_x0_5",), engine="torch"))
    low, high = found.networks[0].ridge.interval
    alone = rank(tmp_path / "photos", RankConfig(("shufflenet_v2_x0_5",), engine="torch", groups="none"))
    low_alone, high_alone = alone.networks[0].ridge.interval
    assert high - low > high_alone - low_alone  # fewer independent photos say less
