"""Boxes in the project of the application, and the order by likeness, without a page."""

from __future__ import annotations

import csv
import json
import shutil
import sqlite3
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from fieldmark.app import (
    answers,
    decisions,
    exports,
    jobs,
    learning,
    likeness,
    pictures,
    queues,
    results,
    store,
    suggestions,
)
from fieldmark.app.queues import Query
from fieldmark.app.store import EMPTY, Project
from fieldmark.data import readers
from fieldmark.data.detections import Detection, Detections
from fieldmark.data.readers import BoxFile
from fieldmark.data.storage.places import Box
from fieldmark.inference.inputs import Boxes, InputPhoto, at_boxes
from fieldmark.inference.predictor import PhotoResult
from fieldmark.inference.record import key_of, to_record
from fieldmark.utils.errors import InputError

LEFT, RIGHT = [0.1, 0.2, 0.3, 0.4], [0.6, 0.5, 0.2, 0.2]


def record(path: Path, scores: dict[str, float], box: list[float] | None = None, **more: Any) -> Any:
    labels = [
        {"taxon_id": name, "name": name, "common_name": "", "rank": "species", "score": score}
        for name, score in sorted(scores.items(), key=lambda each: -each[1])
    ]
    found = {"detection": {"category": "animal", "confidence": 0.9, "box": box}} if box else {}
    return {
        **{
            "file_name": str(path),
            **found,
            "source": "species",
            "rank": "species",
            "name": labels[0]["name"],
        },
        **{
            "score": labels[0]["score"],
            "sure": True,
            "unknown": False,
            "reason": "",
            "among": 2,
            "ranks": {},
        },
        **{"wider": [], "labels": labels, **more},
    }


def of_boxes(path: Path, kind: str, confidence: float = 0.0, **more: Any) -> Any:
    """The record of a photo whose boxes show no animal."""
    found = {"category": kind, "confidence": confidence, "box": LEFT}
    return {"file_name": str(path), "kind": kind, **({"detection": found} if confidence else {}), **more}


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """Four photos of a field with a dark animal on the left and a light one on the right."""
    folder = tmp_path / "photos"
    folder.mkdir()
    pixels = np.full((300, 400, 3), (90, 140, 60), np.uint8)
    pixels[60:180, 40:160] = (20, 20, 30)
    pixels[150:210, 240:320] = (230, 220, 210)
    for number in range(4):
        Image.fromarray(pixels).save(folder / f"{number}.jpg", quality=95)
    return sorted(folder.iterdir())


@pytest.fixture
def project(tmp_path: Path, paths: list[Path]) -> Project:
    made = Project(tmp_path / "project")
    taken = "2024-05-01T08:00:0{}Z"
    photos = (InputPhoto(str(p), p, location="site", taken=taken.format(p.stem)) for p in paths)
    made.add_new(photos, paths[0].parent)
    return made


@pytest.fixture
def boxed(project: Project, paths: list[Path]) -> Project:
    """Two animals in the first photo, then a blank one, a person, and one that the file did not list."""
    weak = {"category": "animal", "confidence": 0.15, "box": RIGHT}
    answers.keep(
        project,
        [
            record(paths[0], {"Lynx": 0.9, "Felis": 0.1}, LEFT, others=[weak]),
            record(paths[0], {"Felis": 0.7, "Lynx": 0.3}, RIGHT),
            of_boxes(paths[1], "blank", others=[weak]),
            of_boxes(paths[2], "human", 0.8),
            record(paths[3], {"Lynx": 0.6, "Felis": 0.4}),
        ],
        "01",
    )
    return project


def shown(project: Project, **query: Any) -> list[tuple[str, str | None]]:
    found = project.photos(queues.wall(project, Query(**query)).ids)
    return sorted((f"{each.path.stem}{f' {each.box}' if each.box else ''}", each.name) for each in found)


def test_a_project_of_the_first_version_is_opened_with_its_decisions(tmp_path: Path) -> None:
    folder = tmp_path / "old"
    folder.mkdir()
    with sqlite3.connect(folder / "project.sqlite") as db:
        db.executescript(store._SCHEMAS[0])
        db.execute("PRAGMA user_version = 1")
        db.execute(
            "INSERT INTO photos (id, source, role, path, state) VALUES (1, 1, 'new', '/c/1.jpg', 'none')"
        )
        db.execute("INSERT INTO answers VALUES (1, '01', 'Lynx', 'Lynx', 0.9, 0.8, 1, '{}')")
    old = Project(folder)
    decisions.accept(old, [1], reviewer="Ada")
    old.close()
    [photo] = Project(folder).photos([1])
    assert (photo.label, photo.state, photo.box, photo.name) == ("Lynx", "person", None, "Lynx")


def test_each_box_is_a_row_of_its_own_in_place_of_its_photo(boxed: Project) -> None:
    assert shown(boxed) == [
        ("0 0.1,0.2,0.3,0.4", "Lynx"),
        ("0 0.6,0.5,0.2,0.2", "Felis"),
        ("1", EMPTY),
        ("2", "human"),
        ("3", "Lynx"),
    ]
    assert queues.progress(boxed) == {"photos": 5, "named": 5, "decided": 0}
    assert queues.boxes(boxed) == 2
    scores = dict(boxed.rows("SELECT name, min(round(score, 2)) FROM answers GROUP BY name"))
    assert scores == {"Felis": 0.7, EMPTY: 0.85, "human": 0.8, "Lynx": 0.6}
    assert len({event for (event,) in boxed.rows("SELECT event FROM photos WHERE role = 'new'")}) == 1
    doubtful = boxed.photos(suggestions.suggest(boxed))
    assert [each.path.stem for each in doubtful] == ["3"]  # what the boxes say is no doubt of the classifier


def test_decisions_are_of_boxes_and_stay_when_photos_are_named_again(
    boxed: Project, paths: list[Path]
) -> None:
    [left] = [each.id for each in boxed.photos(queues.wall(boxed, Query()).ids) if each.box == Box(*LEFT)]
    decisions.decide(boxed, [left], "Canis", reviewer="Ada")
    other = [0.5, 0.5, 0.25, 0.25]
    answers.keep(boxed, [record(paths[0], {"Felis": 0.8, "Lynx": 0.2}, other)], "02")
    assert shown(boxed, which="done") == [("0 0.1,0.2,0.3,0.4", "Lynx")]
    assert ("0 0.5,0.5,0.25,0.25", "Felis") in shown(boxed)
    assert ("0 0.6,0.5,0.2,0.2", "Felis") not in shown(boxed)  # the new boxes do not have it
    ids = {each.id for each in boxed.photos(queues.wall(boxed, Query(which="all")).ids)}
    answers.keep(boxed, [record(paths[0], {"Felis": 0.8, "Lynx": 0.2}, RIGHT)], "03")
    again = {each.id for each in boxed.photos(queues.wall(boxed, Query(which="all")).ids)}
    assert len(again) == len(ids)
    assert ("0 0.6,0.5,0.2,0.2", "Felis") in shown(boxed)  # and here it is again, in its old row
    decisions.undo(boxed)
    answers.keep(boxed, [record(paths[0], {"Lynx": 0.9, "Felis": 0.1})], "03")  # without boxes
    assert ("0", "Lynx") in shown(boxed)
    assert not queues.boxes(boxed)


def test_a_photo_that_a_person_named_as_a_whole_is_not_cut(project: Project, paths: list[Path]) -> None:
    decisions.decide(project, [1], "Canis", reviewer="Ada")
    answers.keep(project, [record(paths[0], {"Lynx": 0.9, "Felis": 0.1}, LEFT)], "01")
    assert shown(project, which="done") == [("0", None)]
    assert not queues.boxes(project)


def test_a_photo_that_cannot_be_read_is_refused_once(project: Project, paths: list[Path]) -> None:
    gone = [
        {"file_name": str(paths[0]), "detection": {"box": box}, "rejected": "missing"}
        for box in (LEFT, RIGHT)
    ]
    answers.keep(project, gone, "01")  # type: ignore[arg-type]  # plain dictionaries
    assert queues.refused_counts(project, "new") == {"missing": 1}


def test_results_count_photos_and_exports_keep_the_boxes(boxed: Project, tmp_path: Path) -> None:
    wall = boxed.photos(queues.wall(boxed, Query()).ids)
    ids = {(each.path.stem, each.box and each.box.left): each.id for each in wall}
    decisions.decide(boxed, [ids["0", 0.6]], "Lynx", reviewer="Ada")
    decisions.decide(boxed, [ids["2", None]], "Canis", reviewer="Ada")
    counts = {row[0]: row[1:] for row in results.counts(results.observations(boxed))}
    assert counts["Lynx"] == (2, 1, 1)  # the two of the first photo are in one photo
    for form in ("csv", "camtrap-dp", "camtrap-dp-package", "megadetector"):
        exports.export(boxed, form, tmp_path / exports.FORMATS[form][0])
    rows = list(csv.DictReader((tmp_path / "results.csv").read_text("utf-8-sig").splitlines()))
    assert [row["box_left"] for row in rows if row["file"].endswith("0.jpg")] == ["0.1", "0.6"]
    found = json.loads((tmp_path / "results.megadetector.json").read_text())
    images = {Path(each["file"]).stem: each["detections"] for each in found["images"]}
    names = found["classification_categories"]
    called = {
        tuple(each["bbox"]): names[each["classifications"][0][0]]
        for each in images["0"]
        if "classifications" in each
    }
    assert called == {tuple(LEFT): "Lynx", tuple(RIGHT): "Lynx"}
    assert [each["conf"] for each in images["1"]] == [0.15]  # what was too weak to count stays in the file
    [human, canis] = sorted(images["2"], key=lambda each: each["conf"])
    assert (human["category"], "classifications" in human) == ("2", False)  # a person says what it is
    assert (canis["bbox"], names[canis["classifications"][0][0]]) == ([0, 0, 1, 1], "Canis")
    rows = list(csv.DictReader((tmp_path / "observations.camtrap.csv").read_text("utf-8-sig").splitlines()))
    assert [row["scientificName"] for row in rows if row["bboxX"] == "0.6"] == ["Felis", "Lynx"]
    assert [row["observationType"] for row in rows if row["mediaID"].endswith("1.jpg")] == ["blank"]
    with zipfile.ZipFile(tmp_path / "camtrap-dp.zip") as archive:
        media = next(name for name in archive.namelist() if "media" in name)
        assert len(archive.read(media).decode().splitlines()) == 5


def test_crops_are_learned_from_in_groups_and_what_boxes_say_is_not(boxed: Project, tmp_path: Path) -> None:
    decisions.accept(boxed, queues.wall(boxed, Query()).ids, reviewer="Ada")
    assert learning.labels(boxed).new == 3
    assert learning.write_labels(boxed, tmp_path / "labels.csv") == 3
    table = readers.read(tmp_path / "labels.csv")
    assert table.kept.height == 3
    sizes = {row["path"].partition("#")[2]: (row["width"], row["group"]) for row in table.kept.to_dicts()}
    first = str(boxed.photos([1])[0].path)
    assert sizes["box=0.1,0.2,0.3,0.4"] == (144, first)
    assert sizes["box=0.6,0.5,0.2,0.2"] == (96, first)
    assert sizes[""] == (400, None)
    assert table.kept["sha256"].n_unique() == 3


def test_the_wall_shows_the_crop_and_the_large_view_the_photo_with_the_box(
    boxed: Project, tmp_path: Path
) -> None:
    [dark, *_] = [each for each in boxed.photos(queues.wall(boxed, Query()).ids) if each.box == Box(*LEFT)]
    small = pictures.thumbnail(tmp_path / "small", dark.picture)
    large = pictures.large(dark)
    assert small
    assert large
    crop, whole = (np.asarray(Image.open(BytesIO(each))) for each in (small, large))
    assert crop.shape == (144, 144, 3)
    assert crop[72, 72].max() < 50
    assert whole.shape == (300, 400, 3)
    assert whole[100, 36].tolist()[0] > 200  # the frame, left of the box
    assert abs(whole[100, 100].astype(int) - (20, 20, 30)).max() < 20
    assert (tmp_path / "small").exists()
    dark.path.unlink()
    assert pictures.thumbnail(tmp_path / "small", dark.picture) is None


def test_the_box_of_a_file_of_pixels_is_found_again_in_the_journal(tmp_path: Path) -> None:
    box = Box(0.1, 0.2, 0.3, 0.4, (4000, 3000))
    photos = [InputPhoto("a.jpg", tmp_path / "a.jpg")]
    [row] = at_boxes(photos, Boxes(Detections({"a.jpg": (Detection(box),)}, "coco"), 0.2))
    assert key_of(to_record(PhotoResult(row, None), 2)) == row.key == f"a.jpg#box={box}"


def test_photos_that_look_alike_stand_together() -> None:
    rng = np.random.default_rng(0)
    centres = rng.integers(0, 1 << 63, 20, dtype=np.uint64)
    hashes = np.repeat(centres, 10) ^ (np.uint64(1) << rng.integers(0, 64, 200, dtype=np.uint64))
    mixed = rng.permutation(200)
    order = likeness.chain(hashes[mixed])
    assert sorted(order.tolist()) == list(range(200))
    of_centre = mixed[order] // 10
    assert (of_centre[1:] != of_centre[:-1]).sum() == 19  # each group is left once


def test_a_classifier_of_boxes_learns_again_with_boxes(
    boxed: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (boxed.folder / "classifiers" / "01").mkdir(parents=True)
    about = {"provenance": {"boxes": {"threshold": 0.4}}}
    (boxed.folder / "classifiers" / "01" / "classifier.json").write_text(json.dumps(about))
    boxed.set("classifier", "01")
    decisions.accept(boxed, queues.wall(boxed, Query()).ids, reviewer="Ada")
    with pytest.raises(InputError, match="learned from boxes alone"):
        learning.learn_again(boxed)
    (tmp_path / "boxes.csv").write_text("file_name,left,top,width,height\n3.jpg,0.1,0.1,0.5,0.5\n")
    assert learning.use_boxes(boxed, tmp_path / "boxes.csv") == (1, 4, 0.4)
    monkeypatch.setattr(jobs.Job, "start", lambda _job: None)
    job = learning.learn_again(boxed)
    assert job.command.count(f"--boxes {tmp_path / 'boxes.csv'}") == 1
    table = readers.read(job.folder / "new labels.csv", boxes=BoxFile(tmp_path / "boxes.csv"))
    assert sorted(table.kept["path"].str.extract("([0-9].jpg.*)")) == [
        "0.jpg#box=0.1,0.2,0.3,0.4",
        "0.jpg#box=0.6,0.5,0.2,0.2",
        "3.jpg#box=0.1,0.1,0.5,0.5",
    ]


def test_photos_are_named_by_their_boxes_and_learned_from_again(
    project: Project, paths: list[Path], model: Path, tmp_path: Path, finished: Callable[[Project], None]
) -> None:
    shutil.copytree(model, project.folder / "classifiers" / "01")
    project.set("classifier", "01")
    file = tmp_path / "boxes.json"
    with pytest.raises(InputError, match="not there"):
        learning.name(project, boxes=file)
    seen = [(0, 1, 0.9, LEFT), (0, 1, 0.8, RIGHT), (1, 1, 0.05, LEFT), (2, 3, 0.9, LEFT), (3, 1, 0.9, RIGHT)]
    images = [
        {
            "file": path.name,
            "detections": [
                {"category": str(category), "conf": sure, "bbox": box}
                for number, category, sure, box in seen
                if number == at
            ],
        }
        for at, path in enumerate(paths)
    ]
    file.write_text(json.dumps({"images": images, "detection_categories": {"1": "animal", "3": "vehicle"}}))
    assert learning.use_boxes(project, file) == (4, 4, 0.2)
    learning.name(project, boxes=Path(project.setting(learning.BOXES)))
    finished(project)
    assert [name for name, _ in shown(project)] == [
        "0 0.1,0.2,0.3,0.4",
        "0 0.6,0.5,0.2,0.2",
        "1",
        "2",
        "3 0.6,0.5,0.2,0.2",
    ]
    assert [row[0] for row in project.rows("SELECT likeness FROM answers ORDER BY 1")] == [0, 1, 2, 3, 4]
    alike = project.photos(queues.wall(project, Query(by="place", order="likeness")).ids)
    light = [at for at, each in enumerate(alike) if each.box and each.box.left == 0.6]
    assert light[1] - light[0] == 1  # the same animal in two photos
    assert len(list((project.folder / "thumbnails").rglob("*.jpg"))) == 5
    taxa = pl.read_parquet(model / "photos.parquet")["taxon_id"].drop_nulls().unique().sort().to_list()
    [one, other, *_] = [each.id for each in alike if each.box]
    decisions.decide(project, [one], taxa[0], reviewer="Ada")
    decisions.decide(project, [other], taxa[1], reviewer="Ada")
    learning.learn_again(project)
    finished(project)
    grown = pl.read_parquet(project.folder / "classifiers" / "02" / "photos.parquet")
    new = grown.filter(pl.col("path").str.contains("#box=", literal=True) & (pl.col("status") == "kept"))
    assert sorted(new["taxon_id"]) == sorted(taxa[:2])
    assert learning.labels(project).new == 0
