"""Growing: only what is new is computed, what was a test photo stays one, a kill costs nothing."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from tests.conftest import write_about

from fieldmark.data import readers
from fieldmark.data.photos import PhotoTable, build_frame
from fieldmark.data.split import Split
from fieldmark.data.taxonomy import Taxon, Taxonomy
from fieldmark.evaluation.results import Evaluation
from fieldmark.inference.classifier import Classifier
from fieldmark.models import runtime
from fieldmark.training import ExtendConfig, TrainConfig, extend, grouping, train
from fieldmark.training.strategies.extend import extended_split, lines
from fieldmark.utils import io
from fieldmark.utils.errors import InputError

TORCH = ExtendConfig(engine="torch")
CLASSES = ("Apis mellifera", "Bombus terrestris", "Cicindela campestris", "Danaus plexippus")
NEW = "Libellula depressa"


@pytest.fixture(scope="module")
def new_photos(draw: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty photos of a new kind, ten of a known one, and a copy of a photo that was learned from."""
    root = tmp_path_factory.mktemp("new")
    for name, label, first, count in ((NEW, 5, 0, 30), (CLASSES[1], 1, 100, 10)):
        (root / name).mkdir()
        for number in range(first, first + count):
            (root / name / f"{number:03}.jpg").write_bytes(draw(label, number))
    (root / CLASSES[1] / "again.jpg").write_bytes(draw(1, 3))
    return root


@pytest.fixture(scope="module")
def held_out(insects: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The classifier of the insects, measured on a test part. Not to be changed."""
    folder = tmp_path_factory.mktemp("held out")
    how = TrainConfig(backbone="shufflenet_v2_x0_5", weights="random", engine="torch", holdout=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIELDMARK_CACHE", str(model.parent / "cache"))
        train(insects, out=folder / "model", config=how)
    return folder / "model"


@pytest.fixture
def kept(model: Path, cache: Path) -> Path:
    """The cache in which the old features lie, in the test's own cache."""
    shared = [path.name for path in cache.iterdir()]  # by all tests
    shutil.copytree(model.parent / "cache", cache, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*shared))
    return cache


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many photos each call of a network saw."""
    counted: list[int] = []
    make = runtime.engine

    def counting(*args: Any, **more: Any) -> Any:
        run = make(*args, **more)

        def engine(crops: Any) -> Any:
            counted.append(len(crops))
            return run(crops)

        return engine

    monkeypatch.setattr(runtime, "engine", counting)
    return counted


def test_a_new_kind_is_learned_and_only_new_photos_are_computed(
    model: Path, kept: Path, new_photos: Path, seen: list[int], draw: Any, tmp_path: Path
) -> None:
    grown = extend(model, new_photos, TORCH, out=tmp_path / "grown")
    assert sum(seen) == 40  # not the copy, and none of the old
    classes = [taxon.id for taxon in grown.classifier.taxa]
    assert classes == [*CLASSES, NEW]
    about = grown.classifier.provenance["grown"]
    assert about["computed"] == 40
    assert about["new_classes"] == [NEW]
    assert about["from"]["digest"] == Classifier.load(model).digest
    assert about["old_photos"]["photos"] == 64  # measured in folds before, and again
    assert about["new_photos"]["photos"] == 40
    low, high = about["old_photos"]["interval"]
    assert low <= about["old_photos"]["difference"] <= high
    assert about["new_classes_photos"]["photos"] == 30
    table = PhotoTable.read(tmp_path / "grown" / "photos.parquet")
    assert table.reasons()["duplicate"] == 1
    loaded = Classifier.load(tmp_path / "grown")
    assert loaded.predict([draw(5, 777)])[0].best.taxon.name == NEW
    before, after = (Split.read(each / "split.parquet") for each in (model, tmp_path / "grown"))
    parts = dict(after.frame.iter_rows())
    assert after.way == before.way == "folds"
    assert set(before.ids("train")) < set(after.ids("train"))
    assert len(parts) == len(after.ids("train")) == 104
    told = grown.summary.measurement
    assert (told.way, told.photos, told.learned) == ("folds", 104, 104)
    _, text = (tmp_path / "grown" / "report.html").read_text().split('<section id="grown">')
    changed, _ = text.split("</section>", 1)
    assert f"1 new class: {NEW}." in changed
    assert f">{about['old_photos']['photos']}<" in changed
    assert "of new classes" in changed


def test_the_old_classifier_is_compared_by_heads_that_did_not_see_the_photos(
    model: Path, kept: Path, new_photos: Path, tmp_path: Path
) -> None:
    """Its own answers on the photos that it learned from would be too good."""
    about = extend(model, new_photos, TORCH, out=tmp_path / "grown").classifier.provenance["grown"]
    before = Evaluation.load(model / "evaluation.safetensors")
    after = Evaluation.load(tmp_path / "grown" / "evaluation.safetensors")
    old = after.where(np.isin(after.photo_ids, before.photo_ids))
    assert about["old_photos"]["error_before"] == pytest.approx(before.wrong_N().mean())
    assert about["old_photos"]["error"] == pytest.approx(old.wrong_N().mean())


def test_what_was_held_out_stays_held_out(
    held_out: Path, kept: Path, new_photos: Path, seen: list[int], tmp_path: Path
) -> None:
    """A test photo stays one, and of the new photos some become some."""
    grown = extend(held_out, new_photos, TORCH, out=tmp_path / "grown")
    assert sum(seen) == 40
    before, after = (Split.read(each / "split.parquet") for each in (held_out, tmp_path / "grown"))
    parts = dict(after.frame.iter_rows())
    assert all(parts[photo] == part for photo, part in before.frame.iter_rows())
    assert len(after.ids("test")) > len(before.ids("test"))
    assert len(after.ids("val")) > len(before.ids("val"))
    about = grown.classifier.provenance["grown"]
    assert about["old_photos"]["photos"] == len(before.ids("test"))
    assert about["new_classes_photos"]["photos"] >= 1
    assert grown.summary.measurement.way == "test part"


def test_the_old_photos_themselves_are_not_needed(
    kept: Path, new_photos: Path, insects: Path, tmp_path: Path, model: Path
) -> None:
    moved = tmp_path / "model"
    shutil.copytree(model, moved)
    table = PhotoTable.read(moved / "photos.parquet")
    gone = PhotoTable(table.frame, table.taxonomy, tmp_path / "gone", table.source)
    gone.write(moved / "photos.parquet")
    about = json.loads((moved / "classifier.json").read_text())
    about["files"]["photos.parquet"] = io.file_digest(moved / "photos.parquet")
    write_about(moved, about)
    grown = extend(moved, new_photos, TORCH, out=tmp_path / "grown")
    known = extend(model, new_photos, TORCH, out=tmp_path / "again")
    np.testing.assert_array_equal(grown.classifier.lead.head.weight, known.classifier.lead.head.weight)


PROGRAM = """
import sys, time
from pathlib import Path
from fieldmark.data.synthetic import probe
from fieldmark.training import ExtendConfig, run
from fieldmark.models import runtime as engines

probe.COUNT = 16  # as in the tests' own process
model, photos, out, log = map(Path, sys.argv[1:])


def say(what):
    with log.open("a") as file:
        print(what, file=file, flush=True)
    time.sleep(0.3)  # long enough to be killed in


def slow(make):
    def made(*given, **more):
        run = make(*given, **more)

        def engine(crops):
            say(len(crops))
            return run(crops)

        return engine

    return made


def told(what, call):
    def telling(*given, **more):
        say(what)
        return call(*given, **more)

    return telling


engines.engine = slow(engines.engine)
run.Trained.save = told("write", run.Trained.save)
run.classifier_page = told("page", run.classifier_page)
run.extend(model, photos, ExtendConfig(engine="torch"), out=out)
"""


def killed(when: str, *places: Path) -> list[str]:
    """Grow in a process that is killed (SIGKILL) when it says so; gives all that it said."""
    command = [sys.executable, "-c", PROGRAM, *map(str, places)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    log, deadline = places[-1], time.monotonic() + 120
    while not log.exists() or when not in log.read_text().split():
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    said = log.read_text().split()
    log.unlink()
    return said


def test_killed_again_and_again_it_goes_on_to_the_same_end(
    model: Path, kept: Path, new_photos: Path, seen: list[int], tmp_path: Path
) -> None:
    """In its second batch, and between the classifier and its page."""
    whole = extend(model, new_photos, TORCH, out=tmp_path / "whole")
    shutil.rmtree(kept)
    shutil.copytree(model.parent / "cache", kept)
    seen.clear()
    out = tmp_path / "grown"
    places = (model, new_photos, out, tmp_path / "log")
    assert killed("8", *places) == ["32", "8"]
    assert not (out / "classifier.json").exists()
    assert killed("page", *places) == ["8", "write", "page"]  # the first batch was kept
    assert not (out / "report.html").exists()
    grown = extend(model, new_photos, TORCH, out=out)
    assert not seen
    assert (out / "report.html").exists()
    assert grown.classifier.digest == whole.classifier.digest == Classifier.load(out).digest


def test_labels_go_under_their_accepted_names(
    model: Path, kept: Path, new_photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "names.csv").write_text(f"name,accepted\n{CLASSES[0]},Apis cerana\n")
    config = ExtendConfig(names=tmp_path / "names.csv", engine="torch")
    grown = extend(model, new_photos, config, out=tmp_path / "grown")
    assert "Apis cerana" in [taxon.name for taxon in grown.classifier.taxa]
    assert CLASSES[0] not in [taxon.name for taxon in grown.classifier.taxa]
    assert grown.classifier.provenance["grown"]["new_classes"] == [NEW]


def test_corrected_labels_replace_those_that_were_learned(
    model: Path, kept: Path, insects: Path, seen: list[int], draw: Any, tmp_path: Path
) -> None:
    """A known photo under another name: nothing is computed, and the correction is listed."""
    new = tmp_path / "reviewed"
    for name, photo in ((CLASSES[1], f"{CLASSES[0]}/03.jpg"), (NEW, f"{CLASSES[2]}/05.jpg")):
        (new / name).mkdir(parents=True)
        shutil.copy(insects / photo, new / name / "reviewed.jpg")
    grown = extend(model, new, TORCH, out=tmp_path / "grown")
    assert not seen
    expected = [
        {"id": f"{CLASSES[0]}/03.jpg", "before": CLASSES[0], "now": CLASSES[1]},
        {"id": f"{CLASSES[2]}/05.jpg", "before": CLASSES[2], "now": NEW},
    ]
    assert grown.classifier.provenance["grown"]["corrected"] == expected
    told = json.loads((tmp_path / "grown" / "evaluation.json").read_text())["grown"]
    assert told["corrected"] == expected
    table = PhotoTable.read(tmp_path / "grown" / "photos.parquet")
    now = dict(table.labelled.select("id", "taxon_id").iter_rows())
    assert len(now) == 64
    assert {each["id"]: each["now"] for each in expected}.items() <= now.items()
    assert table.reasons()["duplicate"] == 2
    assert any("2 labels of known photos were corrected" in line for line in lines(grown.classifier))
    _, text = (tmp_path / "grown" / "report.html").read_text().split('<section id="grown">')
    assert "Corrected labels of known photos" in text.split("</section>", 1)[0]


def test_a_reviewed_suspect_label_is_learned_from(kept: Path, insects: Path, tmp_path: Path) -> None:
    """Hard photos stay so, but a suspect label that a person gives again is no longer suspect."""
    table = readers.read(insects)
    suspect = [f"{CLASSES[0]}/03.jpg", f"{CLASSES[1]}/04.jpg", f"{CLASSES[3]}/05.jpg"]
    table = table.reject(suspect, "suspect-label").reject([f"{CLASSES[0]}/06.jpg"], "dark")
    how = TrainConfig(backbone="shufflenet_v2_x0_5", weights="random", engine="torch", groups="none")
    old = train(table, how, out=tmp_path / "old")
    assert old.summary.measurement.hard == 4
    for photo in (suspect[0], f"{CLASSES[0]}/06.jpg"):
        (tmp_path / "new" / CLASSES[0]).mkdir(parents=True, exist_ok=True)
        shutil.copy(insects / photo, tmp_path / "new" / photo)
    (tmp_path / "new" / CLASSES[0] / "other.jpg").write_bytes((insects / suspect[1]).read_bytes())
    grown = extend(tmp_path / "old", tmp_path / "new", TORCH, out=tmp_path / "grown")
    told = grown.summary.measurement
    assert (told.hard, told.learned, told.photos) == (2, 62, 64)
    assert [each["id"] for each in grown.classifier.provenance["grown"]["corrected"]] == [suspect[1]]


@pytest.mark.parametrize(("asked", "grouped"), [(None, False), ("none", False), ("auto", True)])
def test_groups_are_looked_for_as_in_training_unless_asked_otherwise(
    asked: Any,
    grouped: bool,
    kept: Path,
    insects: Path,
    new_photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    how = TrainConfig(backbone="shufflenet_v2_x0_5", weights="random", engine="torch", groups="none")
    train(insects, how, out=tmp_path / "old")
    calls: list[int] = []
    find = grouping.grouped
    monkeypatch.setattr(grouping, "grouped", lambda *all_: (calls.append(1), find(*all_))[1])
    config = ExtendConfig(engine="torch", groups=asked)
    grown = extend(tmp_path / "old", new_photos, config, out=tmp_path / "grown")
    assert bool(calls) == grouped
    assert grown.classifier.provenance["groups"] == ("auto" if grouped else "none")


def rows(*photos: tuple[str, str | None]) -> pl.DataFrame:
    ids = [name for name, _ in photos]
    return build_frame(
        {"id": ids, "path": ids, "taxon_id": ["a"] * len(ids), "group": [g for _, g in photos]}
    )


def test_a_new_photo_of_a_known_group_goes_where_the_group_is() -> None:
    old = pl.DataFrame({"id": ["1", "2", "3"], "part": ["train", "test", "val"]})
    frame = rows(("1", "p"), ("2", "q"), ("3", None), ("4", "p"), ("5", "q"), ("6", "new"))
    table = PhotoTable(frame, Taxonomy([Taxon("a", "a")]), Path("/"), "test")
    found = dict(extended_split(Split(old, 0, "stratified"), table).frame.iter_rows())
    assert found == {"1": "train", "2": "test", "3": "val", "4": "train", "5": "test", "6": "train"}


def test_measured_in_folds_new_photos_are_learned_from_but_for_an_official_test_part() -> None:
    old = pl.DataFrame({"id": ["1", "2"], "part": ["train", "test"]})
    frame = rows(("1", "p"), ("2", "q"), ("3", None), ("4", None), ("5", "p"), ("6", "q"))
    frame = frame.with_columns(split=pl.when(pl.col("id") == "4").then(pl.lit("test")))
    table = PhotoTable(frame, Taxonomy([Taxon("a", "a")]), Path("/"), "test")
    grown = extended_split(Split(old, 0, "folds"), table)
    found = dict(grown.frame.iter_rows())
    assert found == {"1": "train", "2": "test", "3": "train", "4": "test", "5": "train", "6": "test"}
    assert grown.way == "folds"
    with_group = table.with_frame(frame.filter(pl.col("id").is_in(["1", "2", "6"])))
    assert [*extended_split(Split(old, 0, "folds"), with_group).ids("test")] == ["2", "6"]


REFUSALS = {
    "itself": "the classifier that is extended",
    "nothing": "None of the photos is new",
    "bare": "has no split.parquet",
}


@pytest.mark.parametrize("what", REFUSALS)
def test_what_cannot_grow_is_refused(
    what: str, model: Path, kept: Path, new_photos: Path, insects: Path, tmp_path: Path
) -> None:
    shutil.copytree(model, tmp_path / "model")
    if what == "bare":
        (tmp_path / "model" / "split.parquet").unlink()
    out = tmp_path / ("model" if what == "itself" else "grown")
    photos = insects if what == "nothing" else new_photos
    before = io.sha256((tmp_path / "model" / "classifier.json").read_bytes())
    with pytest.raises(InputError, match=REFUSALS[what]):
        extend(tmp_path / "model", photos, TORCH, out=out)
    assert io.sha256((tmp_path / "model" / "classifier.json").read_bytes()) == before
    assert not (tmp_path / "grown" / "classifier.json").exists()
