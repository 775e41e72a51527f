"""The project of the application: photos, decisions with undo, queues and results, without a page."""

from __future__ import annotations

import csv
import json
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fieldmark.app import (
    answers,
    checking,
    decisions,
    exports,
    learning,
    queues,
    results,
    suggestions,
    watching,
)
from fieldmark.app.activity import activity
from fieldmark.app.desktop import write_start_file
from fieldmark.app.queues import Query
from fieldmark.app.store import EMPTY, Project
from fieldmark.app.watching import Watcher
from fieldmark.data import readers
from fieldmark.data.events import Shot
from fieldmark.inference.inputs import InputPhoto
from fieldmark.utils.errors import InputError


def new_photos(count: int, *, places: int = 2, seconds: int = 3600) -> list[InputPhoto]:
    """Photos of some places, an event apart from each other."""
    return [
        InputPhoto(
            f"/cams/{n % places}/{n:05}.jpg",
            Path(f"/cams/{n % places}/{n:05}.jpg"),
            taken=f"2024-0{1 + n % 3}-1{n % 7}T{n % 24:02}:00:00Z",
            location=f"site {n % places}",
        )
        for n in range(count)
    ]


def answer(photo: InputPhoto, scores: dict[str, float], *, sure: bool = True) -> dict[str, Any]:
    labels = [
        {"taxon_id": name, "name": name, "common_name": "", "rank": "species", "score": score}
        for name, score in sorted(scores.items(), key=lambda each: -each[1])
    ]
    return {
        **{"file_name": photo.name, "source": "species" if sure else "not sure", "rank": "species"},
        **{"name": labels[0]["name"] if sure else "", "score": labels[0]["score"], "sure": sure},
        **{"unknown": False, "reason": "", "among": 2, "ranks": {}, "wider": [], "labels": labels},
    }


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path / "project")


@pytest.fixture
def named(project: Project) -> Project:
    """Twelve new photos: the first ones are doubtful, the later ones more and more certain of Lynx."""
    photos = new_photos(12)
    project.add_new(photos, Path("/cams"))
    records = []
    for number, each in enumerate(photos):
        score = 0.51 + 0.04 * number
        records.append(answer(each, {"Lynx lynx": score, "Felis silvestris": 1 - score}, sure=number > 3))
    answers.keep(project, records, "01")  # type: ignore[arg-type]  # plain dictionaries
    return project


def labels_of(project: Project) -> dict[int, tuple[str | None, str]]:
    return {row[0]: (row[1], row[2]) for row in project.rows("SELECT id, label, state FROM photos")}


# Photos


def test_a_folder_of_species_is_added_once_with_its_refused_photos(project: Project, insects: Path) -> None:
    table = readers.read(insects)
    assert project.add_labelled(table, insects) == (65, 1)
    assert project.add_labelled(table, insects) == (0, 1)
    assert queues.refused_counts(project, "labelled") == {"truncated": 1}
    counts = queues.species_counts(project, "labelled")
    assert [row[1] for row in counts] == [16, 16, 16, 16]
    refused = queues.wall(project, Query("labelled", which="refused"))
    assert [each["state"] for each in queues.tiles(project, refused.ids)] == ["refused"]


def test_a_folder_with_other_things_is_no_project(tmp_path: Path) -> None:
    (tmp_path / "thesis.doc").write_text("x")
    with pytest.raises(InputError, match="other files"):
        Project(tmp_path)


def test_a_file_that_is_no_database_is_no_project(tmp_path: Path) -> None:
    (tmp_path / "project.sqlite").write_text("no database at all, but long enough to be read" * 20)
    with pytest.raises(InputError, match="not a project"):
        Project(tmp_path)


def test_a_project_is_the_same_after_it_was_opened_again(named: Project) -> None:
    decisions.accept(named, [1, 2], reviewer="Ada")
    before, folder = labels_of(named), named.folder
    named.close()
    assert labels_of(Project(folder)) == before


def test_names_that_tables_would_take_for_formulas_come_back(
    project: Project, tmp_path: Path, draw: Any
) -> None:
    for name in ("=cmd", "Ursus, arctos"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        (tmp_path / "photos" / name / "-1.jpg").write_bytes(draw(0, len(name)))
    project.add_labelled(readers.read(tmp_path / "photos"), tmp_path / "photos")
    assert learning.write_labels(project, tmp_path / "labels.csv") == 2
    again = readers.read(tmp_path / "labels.csv")
    assert {taxon.name for taxon in again.taxonomy} == {"=cmd", "Ursus, arctos"}
    assert again.kept.height == 2


def test_copies_bursts_and_poor_photos_are_listed_and_left_out(
    project: Project, insects: Path, tmp_path: Path, finished: Callable[[Project], None]
) -> None:
    folder = tmp_path / "photos"
    shutil.copytree(insects / "Apis mellifera", folder / "Apis mellifera")
    shutil.copytree(insects / "Danaus plexippus", folder / "Danaus plexippus")
    shutil.copy(folder / "Apis mellifera" / "00.jpg", folder / "Apis mellifera" / "copy.jpg")
    Image.new("RGB", (200, 200), (9, 9, 9)).save(folder / "Danaus plexippus" / "night.jpg")
    project.add_labelled(readers.read(folder), folder)
    with project.changing() as db:
        db.execute(
            "UPDATE photos SET taken = '2024-05-01T08:00:0' || substr(path, -5, 1) WHERE path LIKE '%/1_.jpg'"
        )
    checking.check(project, "--backbone shufflenet_v2_x0_5 --weights random --engine torch")
    finished(project)

    def names(listing: checking.Listing) -> list[str]:
        return [each.path.name for each in project.photos(checking.wall(project, listing).ids)]

    assert names("copies")[:2] == ["00.jpg", "copy.jpg"]
    assert "night.jpg" in names("poor")
    assert [each.count for each in checking.wall(project, "bursts").groups] == [6, 6]
    assert len(checking.spare(project, "bursts")) == 10
    assert queues.days(project, "labelled") == {"2024-05-01": 12}
    before = labels_of(project)
    spare = checking.spare(project, "copies")
    checking.leave_out(project, spare, reviewer="Ada")
    assert "copy.jpg" not in names("copies")
    assert set(names("out")) == {each.path.name for each in project.photos(spare)}
    left = learning.write_labels(project, tmp_path / "labels.csv")
    assert left == 34 - len(spare) == sum(row[1] for row in queues.species_counts(project, "labelled"))
    decisions.undo(project)
    assert labels_of(project) == before


def test_a_watched_folder_adds_whole_photos_and_names_them_once(
    project: Project, tmp_path: Path, draw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    card, begun = tmp_path / "card", list[int]()
    monkeypatch.setattr(learning, "classifier_of", lambda _project: tmp_path)
    monkeypatch.setattr(learning, "name", lambda _project: begun.append(1))
    watcher = Watcher(project)
    assert watcher.look() == 0
    project.set(watching.SETTING, str(card))
    assert watcher.look() == 0  # the card is not there yet
    (card / "DCIM").mkdir(parents=True)
    data = draw(0, 1)
    (card / "DCIM" / "1.jpg").write_bytes(data)
    (card / "DCIM" / "2.jpg").write_bytes(data[:500])
    assert watcher.look() == 0  # both could still be written
    (card / "DCIM" / "2.jpg").write_bytes(data[:900])
    assert watcher.look() == 1
    assert watcher.look() == 1  # its writer paused for too long
    assert len(begun) == 2
    (card / "DCIM" / "2.jpg").write_bytes(data)
    assert (watcher.look(), len(begun)) == (0, 3)  # named again, now that it is whole
    assert (watcher.look(), len(begun)) == (0, 3)
    assert queues.progress(project)["photos"] == 2


@pytest.mark.parametrize("system", ["linux", "darwin", "win32"])
def test_a_start_file_is_written_and_no_other_file_is_replaced(
    tmp_path: Path, system: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    folder = tmp_path / "50 % of $my `own` photos"
    path = write_start_file(folder, system, tmp_path)
    text = path.read_text()
    if system == "darwin":
        assert shlex.split(text.splitlines()[-1])[1:] == [
            sys.executable,
            "-m",
            "fieldmark",
            "app",
            str(folder),
        ]
    else:
        assert text.count("%%") == 1
    assert write_start_file(folder, system, tmp_path) == path
    path.write_text("mine")
    with pytest.raises(InputError, match="a file of yours"):
        write_start_file(folder, system, tmp_path)
    assert path.read_text() == "mine"


# Decisions


def test_decisions_are_taken_back_and_made_again_in_order(named: Project) -> None:
    states = [labels_of(named)]
    decisions.accept(named, [1, 2, 3], reviewer="Ada")
    states.append(labels_of(named))
    decisions.decide(named, [2], "Felis silvestris", reviewer="Ada")
    states.append(labels_of(named))
    decisions.rename(named, "Lynx lynx", "Felis silvestris", reviewer="Ada")
    states.append(labels_of(named))
    assert states[-1][1] == ("Felis silvestris", "person")
    for before in reversed(states[:-1]):
        assert decisions.undo(named)
        assert labels_of(named) == before
    assert decisions.undo(named) is None
    for after in states[1:]:
        assert decisions.redo(named)
        assert labels_of(named) == after
    assert decisions.redo(named) is None


def test_nothing_is_made_again_after_another_decision(named: Project) -> None:
    decisions.accept(named, [1], reviewer="Ada")
    decisions.undo(named)
    decisions.decide(named, [2], None, reviewer="Ada", state="unknown")
    assert decisions.redo(named) is None
    assert labels_of(named)[1] == (None, "none")


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("decide"), st.sets(st.integers(1, 6), min_size=1), st.sampled_from("ABC")),
            st.tuples(st.just("unknown"), st.sets(st.integers(1, 6), min_size=1), st.none()),
            st.tuples(st.just("rename"), st.sampled_from("ABC"), st.sampled_from("ABC")),
            st.tuples(st.sampled_from(["undo", "redo"]), st.none(), st.none()),
        ),
        max_size=12,
    )
)
def test_any_order_of_decisions_undo_and_redo_is_that_of_two_stacks(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, Any, Any]]
) -> None:
    project = Project(tmp_path_factory.mktemp("undo") / "project")
    project._db.execute("PRAGMA synchronous=OFF")  # hundreds of projects; no power cut is tested here
    project.add_new(new_photos(6), Path("/cams"))
    past, future, now = [], [], labels_of(project)
    for act, which, name in steps:
        if act in ("undo", "redo"):
            done = (decisions.undo if act == "undo" else decisions.redo)(project)
            source, other = (past, future) if act == "undo" else (future, past)
            assert bool(done) == bool(source)
            if source:
                other.append(now)
                now = source.pop()
        else:
            try:
                if act == "decide":
                    decisions.decide(project, sorted(which), name, reviewer="Ada")
                elif act == "unknown":
                    decisions.decide(project, sorted(which), None, reviewer="Ada", state="unknown")
                else:
                    decisions.rename(project, which, name, reviewer="Ada")
            except InputError:
                continue  # no photo has that name
            past, future, now = [*past, now], [], labels_of(project)
        assert labels_of(project) == now
    project.close()


def test_an_empty_name_and_no_photo_are_refused(named: Project) -> None:
    for photos, name in (([1], "  "), ([1], "a\0b"), ([], "Lynx lynx"), ([1], "x" * 201)):
        with pytest.raises(InputError):
            decisions.decide(named, photos, name, reviewer="Ada")
    assert not decisions.history(named)


def test_reviewers_who_disagree_are_listed_until_they_agree(named: Project) -> None:
    decisions.decide(named, [1, 2], "Lynx lynx", reviewer="Ada")
    decisions.decide(named, [2, 3], "Felis silvestris", reviewer="Ben")
    [found] = decisions.disagreements(named)
    assert (found.photo, found.said) == (2, {"Ada": "Lynx lynx", "Ben": "Felis silvestris"})
    assert queues.wall(named, Query(which="disagreements")).ids == (2,)
    decisions.undo(named)
    assert not decisions.disagreements(named)
    decisions.redo(named)
    decisions.decide(named, [2], "Felis silvestris", reviewer="Ada")
    assert not decisions.disagreements(named)
    assert decisions.reviewed(named)[2][0] == "Ada"


_DECIDING = """
import sys
from pathlib import Path
from fieldmark.app import decisions
from fieldmark.app.store import Project
project = Project(Path(sys.argv[1]))
for number in range(1, 401):
    decisions.decide(project, [number], f"species {number}", reviewer="Ada")
    print(number, flush=True)
"""


def test_a_kill_in_the_middle_of_decisions_loses_none(tmp_path: Path) -> None:
    project = Project(tmp_path / "project")
    project.add_new(new_photos(400), Path("/cams"))
    project.close()
    command = [sys.executable, "-c", _DECIDING, str(tmp_path / "project")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(25)]
        process.kill()
        said += process.stdout.readlines()
    done = len(said)
    assert 25 <= done < 400
    kept = Project(tmp_path / "project")
    found = [number for number, (label, _) in labels_of(kept).items() if label == f"species {number}"]
    assert found[:done] == list(range(1, done + 1))
    assert len(found) in (done, done + 1)  # the last one may be kept and not said yet
    assert len(decisions.history(kept, 1000)) == len(found)


# Queues


def test_walls_are_grouped_and_the_doubtful_come_first(named: Project) -> None:
    found = queues.wall(named, Query(by="doubt"))
    assert found.ids == tuple(range(1, 13))
    assert [each.name for each in found.groups] == ["Very doubtful", "Doubtful", "Likely", "Nearly certain"]
    assert sum(each.count for each in found.groups) == 12
    assert [each.count for each in queues.wall(named, Query(by="place")).groups] == [6, 6]
    events = [each.name for each in queues.wall(named, Query(by="event")).groups]
    assert len(events) == 12
    assert events == sorted(events)  # by place and time
    assert queues.wall(named, Query(least=0.9)).ids == (11, 12)
    decisions.accept(named, queues.wall(named, Query(least=0.9)).ids, reviewer="Ada")
    assert len(queues.wall(named, Query()).ids) == 10
    assert queues.wall(named, Query(which="done")).ids == (11, 12)
    assert queues.progress(named) == {"photos": 12, "named": 12, "decided": 2}


def test_what_to_label_next_is_doubtful_and_of_events_of_its_own(project: Project) -> None:
    burst = [
        InputPhoto(f"/c/{n}.jpg", Path(f"/c/{n}.jpg"), location="s", taken=f"2024-01-01T00:00:{n:02}Z")
        for n in range(10)
    ]
    alone = InputPhoto("/c/alone.jpg", Path("/c/alone.jpg"), location="s", taken="2024-01-02T00:00:00Z")
    project.add_new([*burst, alone], Path("/c"))
    answers.keep(
        project,
        [answer(each, {"A": 0.5 + n / 100, "B": 0.5 - n / 100}) for n, each in enumerate(burst)]  # type: ignore[misc]
        + [answer(alone, {"A": 0.99, "B": 0.01})],  # type: ignore[list-item]
        "01",
    )
    found = suggestions.suggest(project)
    assert [each.path.name for each in project.photos(found)] == ["0.jpg", "alone.jpg"]
    decisions.decide(project, found[:1], "A", reviewer="Ada")
    assert [each.path.name for each in project.photos(suggestions.suggest(project))] == ["alone.jpg"]


# Results


def test_a_persons_name_counts_before_the_classifiers(named: Project) -> None:
    decisions.decide(named, [1], EMPTY, reviewer="Ada")
    decisions.decide(named, [12], "Felis silvestris", reviewer="Ada")
    decisions.decide(named, [11], None, reviewer="Ada", state="unknown")
    found = {Path(each.file).name: each for each in results.observations(named)}
    ids = {each.id: each.path.name for each in named.photos(range(1, 13))}
    assert (found[ids[1]].species, found[ids[1]].by, found[ids[1]].reviewer) == (EMPTY, "person", "Ada")
    assert found[ids[2]].by == ""  # the classifier is not sure
    assert (found[ids[10]].species, found[ids[10]].by) == ("Lynx lynx", "machine")
    assert (found[ids[11]].species, found[ids[11]].by) == ("", "person")
    counts = {row[0]: row[1:] for row in results.counts(list(found.values()))}
    assert counts == {"Lynx lynx": (6, 6, 0), EMPTY: (1, 1, 1), "Felis silvestris": (1, 1, 1)}
    assert EMPTY not in {row[0] for row in results.counts(results.animals(list(found.values())))}
    persons = results.observations(named, persons_only=True)
    assert {each.species for each in persons} == {"", EMPTY, "Felis silvestris"}


def test_the_detection_history_knows_where_no_camera_stood(project: Project) -> None:
    days = {"a": (1, 2, 20), "b": (10, 16)}
    photos = [
        InputPhoto(
            f"/{place}/{day}.jpg",
            Path(f"/{place}/{day}.jpg"),
            location=place,
            taken=f"2024-05-{day:02}T06:00:00Z",
        )
        for place, several in days.items()
        for day in several
    ]
    project.add_new(photos, Path("/"))
    sure = {"Lynx": 0.9, "B": 0.1}
    answers.keep(project, [answer(each, sure) for each in photos[:2]], "01")  # type: ignore[misc]  # as above
    found = results.history(results.observations(project), "Lynx", days=7)
    assert found.places == ("a", "b")
    assert found.occasions == ("2024-05-01", "2024-05-08", "2024-05-15")
    assert found.detected == ((1, 0, 0), (None, 0, 0))
    assert found.effort == ((7, 7, 6), (0, 5, 2))


def test_activity_counts_a_visit_once_and_its_intervals_hold_the_share(project: Project) -> None:
    times = [("a", "06:00"), ("a", "06:20"), ("a", "06:55"), ("b", "06:10"), ("a", "23:50"), ("a", "23:59")]
    shots = [Shot(place, f"2024-05-01T{time}:00Z") for place, time in times] + [Shot("a", "2024-05-02")]
    found = activity(shots)
    assert found is not None
    assert [(hour, each) for hour, each in enumerate(found.visits) if each] == [(6, 3), (23, 1)]
    assert found.shares[6] == 0.75
    low, high = found.intervals[6]
    assert (round(low, 3), round(high, 3)) == (0.194, 0.994)  # Clopper and Pearson's table
    assert activity([Shot("a", None)]) is None


@pytest.mark.parametrize("form", exports.FORMATS)
def test_results_are_written_in_every_format(named: Project, tmp_path: Path, form: str) -> None:
    decisions.decide(named, [12], "=Felis", reviewer="Ada")
    path = tmp_path / exports.FORMATS[form][0]
    exports.export(named, form, path)
    if form == "xlsx":
        import openpyxl

        book = openpyxl.load_workbook(path)
        assert book.sheetnames == ["photos", "species", "detection history", "effort (days)"]
        assert book["photos"].max_row == 13
        assert "=Felis" in [cell.value for cell in book["photos"]["B"]]
        assert all(cell.data_type != "f" for row in book["photos"].rows for cell in row)
        [dates] = [column for column in book["photos"].columns if column[0].value == "date"]
        assert dates[1].is_date
    elif form == "camtrap-dp-package":
        with zipfile.ZipFile(path) as archive:
            assert len(archive.namelist()) == 4
            about = json.loads(archive.read("datapackage.json"))
            rows = {
                each["name"]: list(csv.DictReader(archive.read(each["path"]).decode().splitlines()))
                for each in about["resources"]
            }
        assert [len(rows[each]) for each in ("deployments", "media", "observations")] == [2, 12, 13]
        assert about["title"] == named.folder.name
    elif form == "megadetector":
        images = json.loads(path.read_text())["images"]
        assert len(images) == 12
    else:
        rows = list(csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines()))
        column = {"csv": "species", "camtrap-dp": "scientificName", "darwin-core": "scientificName"}[form]
        assert "'=Felis" in [row[column] for row in rows]
        # A person's name is a row apart in the standards, where both can be told from each other.
        assert len(rows) == (12 if form == "csv" else 13)
        if form == "camtrap-dp":
            assert [row["classifiedBy"] for row in rows if row["classificationMethod"] == "human"] == ["Ada"]
            assert len({row["observationID"] for row in rows}) == 13


def test_without_names_there_is_nothing_to_download(project: Project, tmp_path: Path) -> None:
    project.add_new(new_photos(3), Path("/cams"))
    with pytest.raises(InputError, match="No photo has a name"):
        exports.export(project, "csv", tmp_path / "x.csv")
    assert not list(tmp_path.glob("x*"))
