"""New places beside known ones, and whole photos beside boxes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from fieldmark.data import images, readers
from fieldmark.experiments import Options, StudyConfig, study
from fieldmark.training import TrainConfig, train
from fieldmark.training.run import _coordinates
from fieldmark.utils.errors import InputError

NETWORK = "shufflenet_v2_x0_5"
HOW = TrainConfig(backbone=NETWORK, weights="random", engine="torch", groups="none")


def listed(insects: Path, folder: Path, places: int, **more: pl.Expr) -> Path:
    """A table of the photos: the n-th of each class at place n modulo `places`, eight seconds apart."""
    rows = [
        (str(path), path.parent.name, f"site {number % places}", number)
        for name in sorted(each.name for each in insects.iterdir())
        for number, path in enumerate(sorted((insects / name).glob("[0-9]*.jpg")))
    ]
    frame = pl.DataFrame(rows, schema=["file_name", "label", "location", "number"], orient="row")
    seconds = pl.col("number") // places * 8
    frame = frame.with_columns(
        taken=pl.format("2020-01-01 00:0{}:{}0", seconds // 60, seconds % 60 // 10), **more
    )
    frame.drop("number").write_csv(folder / "photos.csv")
    return folder / "photos.csv"


def test_the_error_at_new_places_stands_beside_that_at_known_ones(
    insects: Path, tmp_path: Path, cache: Path
) -> None:
    table = listed(insects, tmp_path, 6)
    trained = train(table, HOW, out=tmp_path / "model")
    found = trained.classifier.provenance["places"]
    assert [found["all"]["photos"], sum(row["photos"] for row in found["places"])] == [64, 64]
    assert found["all"]["known"] == pytest.approx(trained.summary.top1_error)
    apart = found["all"]["new"] - found["all"]["known"]
    assert found["difference"]["value"] == pytest.approx(apart)
    assert {row["name"] for row in found["places"]} == {f"site {n}" for n in range(6)}
    page = (tmp_path / "model" / "report.html").read_text()
    assert "New places" in page
    assert "known places</th>" in page
    apart = TrainConfig(**{**vars(HOW), "split": "location"})
    new = train(table, apart, out=tmp_path / "new").classifier.provenance["places"]
    assert new["difference"] is None
    assert new["all"]["known"] is None
    assert (
        "known places</th>" not in (tmp_path / "new" / "report.html").read_text()
    )  # nothing was measured there


def test_places_are_those_of_exif_where_the_list_has_none(tmp_path: Path) -> None:
    for number in range(3):
        exif = Image.Exif()
        if number < 2:
            exif.get_ifd(0x8825).update({1: "S", 2: (number + 1.0, 30.0, 0.0), 3: "E", 4: (7.0, 0.0, 0.0)})
        Image.new("RGB", (16, 16), (40 * number, 0, 0)).save(tmp_path / f"{number}.jpg", exif=exif)
    rows = [
        "file_name,label,location,latitude,longitude",
        "0.jpg,a,known,46,8",
        "1.jpg,a,seen,,",
        "2.jpg,a,none,,",
    ]
    (tmp_path / "list.csv").write_text("\n".join(rows))
    found = _coordinates(readers.read(tmp_path / "list.csv", verify=False))
    assert found == {"known": (46.0, 8.0), "seen": (-2.5, 7.0)}


def test_few_places_or_none_are_not_compared(insects: Path, tmp_path: Path, cache: Path) -> None:
    assert "places" not in train(listed(insects, tmp_path, 4), HOW).classifier.provenance
    assert "places" not in train(insects, HOW).classifier.provenance
    with pytest.raises(InputError, match="no photo has a location"):
        train(insects, TrainConfig(**{**vars(HOW), "split": "location"}))


def test_no_place_is_in_two_folds(insects: Path, tmp_path: Path, cache: Path) -> None:
    how = TrainConfig(**{**vars(HOW), "split": "location"})
    trained = train(listed(insects, tmp_path, 6), how)
    assert set(trained.evaluation.groups) == {f"site {n}" for n in range(6)}


def test_night_photos_have_no_colours(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    grey = np.repeat(rng.integers(0, 255, (60, 80, 1), np.uint8), 3, axis=2)
    for name, pixels, expected in (
        ("grey", grey, True),
        ("pink", np.clip(grey.astype(int) + np.array([40, 0, 20]), 0, 255).astype(np.uint8), True),
        ("colours", rng.integers(0, 255, (60, 80, 3), np.uint8), False),
    ):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
        assert images.is_grey((tmp_path / f"{name}.png").read_bytes()) == expected, name


def test_whole_photos_are_a_row_beside_boxes(insects: Path, tmp_path: Path, cache: Path) -> None:
    table = listed(insects, tmp_path, 6)
    found = [{"category": "1", "conf": 0.9, "bbox": [0.2, 0.2, 0.5, 0.5]}]
    names = pl.read_csv(table)["file_name"].to_list()
    listing = {
        "detection_categories": {"1": "animal"},
        "images": [{"file": each, "detections": found} for each in names],
    }
    (tmp_path / "boxes.json").write_text(json.dumps(listing))
    config = StudyConfig(
        Options(backbones=(NETWORK,)), engine="torch", groups="none", boxes=tmp_path / "boxes.json"
    )
    record = study(table, "traps", config, out=tmp_path / "study").record
    for name in ("boxes", "boxes-known"):
        whole, cut = record.table(name)
        assert (whole.label, cut.label) == (f"{NETWORK}, whole photos", f"{NETWORK}, boxes")
        assert whole.photos == cut.photos > 50
        assert whole.scores != cut.scores
    with pytest.raises(InputError, match="with --boxes"):
        study(table, "traps", StudyConfig(Options(backbones=(NETWORK,)), engine="torch"), out=tmp_path / "no")
