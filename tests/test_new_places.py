"""New places beside known ones, and whole photos beside boxes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from fieldmark.data import images, readers
from fieldmark.data.photos import PhotoTable, build_frame
from fieldmark.data.split import split_photos
from fieldmark.data.taxonomy import Taxon, Taxonomy
from fieldmark.experiments import Options, StudyConfig, study
from fieldmark.inference import checkpoint, inputs
from fieldmark.inference.inputs import Boxes
from fieldmark.training import ExtendConfig, TrainConfig, extend, train
from fieldmark.training.run import _coordinates
from fieldmark.training.strategies.extend import extended_split
from fieldmark.utils.errors import InputError

pytestmark = pytest.mark.usefixtures("one_cache")


NEW = {113: 1, 114: 9, 115: 9}
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
    insects: Path, draw: Callable[[int, int], bytes], tmp_path: Path, cache: Path
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
    # Places stay together where the classifier grows: known ones with their old photos, and new ones.
    more = tmp_path / "more.csv"
    for number in NEW:
        (tmp_path / f"{number}.jpg").write_bytes(draw(1, number))
    lines = [f"{number}.jpg,Bombus terrestris,site {place}\n" for number, place in NEW.items()]
    more.write_text(f"file_name,label,location\n{''.join(lines)}")
    grown = extend(tmp_path / "new", more, ExtendConfig(engine="torch"), out=tmp_path / "grown")
    assert grown.classifier.provenance["split"]["by_place"]
    assert grown.classifier.provenance["places"]["difference"] is None
    frame = PhotoTable.read(tmp_path / "grown" / "photos.parquet").frame
    assert frame.filter(pl.col("location") == "site 1")["group"].unique().len() == 1
    assert frame.filter(pl.col("location") == "site 9")["group"].unique().to_list() == ["site 9"]
    more.write_text("file_name,label\n113.jpg,Bombus terrestris\n")
    with pytest.raises(InputError, match=r"no photo in .* has a location"):
        extend(tmp_path / "new", more, out=tmp_path / "x")


def test_a_test_part_by_place_takes_the_new_photos_of_its_places() -> None:
    def photos(*places: str, start: int = 0) -> PhotoTable:
        rows = [(f"{start + n:03}", "ab"[n % 2], place) for n, place in enumerate(places)]
        schema = ["id", "taxon_id", "location"]
        columns = pl.DataFrame(rows, schema=schema, orient="row").with_columns(path="id", group="location")
        taxa = Taxonomy([Taxon("a", "a"), Taxon("b", "b")])
        return PhotoTable(build_frame(columns), taxa, Path("/x"), "test")

    old = photos(*[f"p{n // 8}" for n in range(80)])
    split = split_photos(old, val=0.1, test=0.1, seed=0, way="location")
    new = photos(*["p0", "p1", "p2"] * 4, *[f"q{n // 8}" for n in range(80)], start=100)
    table = old.with_frame(pl.concat([old.frame, new.frame]))
    grown = extended_split(split, table)
    parts = table.frame.join(grown.frame, on="id").group_by("location").agg(pl.col("part").unique())
    assert all(len(each) == 1 for each in parts["part"])
    assert {part for place, [part] in parts.iter_rows() if place[0] == "q"} == {"train", "val", "test"}


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
    page = (tmp_path / "study" / "report.html").read_text()
    assert "Boxes compared with the whole photos: new places: " in page
    assert ">validation<" not in page  # the table of photos has no part that the source does not have
    with pytest.raises(InputError, match="with --boxes"):
        study(table, "traps", StudyConfig(Options(backbones=(NETWORK,)), engine="torch"), out=tmp_path / "no")


def test_boxes_and_events_of_two_photos_a_class(
    draw: Callable[[int, int], bytes], tmp_path: Path, cache: Path
) -> None:
    """Too few for folds to measure much, but not for a classifier and an answer for each visit."""
    found = [
        {"category": "1", "conf": c, "bbox": [0.1, 0.1, side, side]} for c, side in ((0.9, 0.8), (0.8, 0.4))
    ]
    lines, images = ["file_name,label,location,sequence"], []
    for label, number in product(range(3), range(2)):
        name = f"{label}-{number}.jpg"
        (tmp_path / name).write_bytes(draw(label, number))
        lines.append(f"{name},species {label},site {label},visit {label}")
        images.append({"file": name, "detections": found})
    (tmp_path / "list.csv").write_text("\n".join(lines))
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps({"detection_categories": {"1": "animal"}, "images": images}))
    made = train(tmp_path / "list.csv", replace(HOW, boxes=boxes)).classifier
    items = inputs.at_boxes(inputs.find_photos([tmp_path / "list.csv"]), Boxes.read(boxes, None, None))
    checkpoint.to_file(tmp_path / "events.csv", made, items, gap=60.0)
    rows = pl.read_csv(tmp_path / "events.csv")
    assert rows["photos"].to_list() == [2, 2, 2]
    assert rows["count"].to_list() == [2, 2, 2]
