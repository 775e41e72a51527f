"""`predict --out FOLDER/datapackage.json`: a whole Camtrap DP, valid and read back."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fieldmark.data import readers
from fieldmark.data.boxes import Detection, Detections
from fieldmark.data.readers.box_files import read_boxes
from fieldmark.data.storage.places import Box
from fieldmark.inference import checkpoint
from fieldmark.inference.formats.camtrap_package import _TABLES
from fieldmark.inference.formats.deployments import Deployments, read_deployments
from fieldmark.inference.inputs import Boxes, InputPhoto, at_boxes, find_photos
from fieldmark.utils.errors import InputError

STANDARDS = Path(__file__).parent / "standards"
FIRST, SECOND = Box(0.1, 0.1, 0.3, 0.3), Box(0.5, 0.5, 0.4, 0.4)


def photo_with_exif(path: Path, insect: Path, taken: str, north: float | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9003] = taken
    if north is not None:
        where = {1: "N", 2: (north, 30.0, 0.0), 3: "W", 4: (7.0, 0.0, 36.0)}
        exif.get_ifd(0x8825).update(where)
    Image.open(insect).save(path, exif=exif)


@pytest.fixture
def traps(insects: Path, tmp_path: Path) -> Path:
    """Two sites, each with a "cam A"; four photos in two visits of a camera, one broken photo."""
    root = tmp_path / "traps"
    for site in (1, 2):
        for number, insect in enumerate(sorted(insects.rglob("0?.jpg"))[:4]):
            path = root / f"site{site}" / "cam A" / f"IMG_{number}.JPG"
            taken = f"2023:05:0{site} 10:0{number // 2}:0{number}"
            photo_with_exif(path, insect, taken, 46.0 + site if number == 1 else None)
    (root / "site1" / "cam A" / "IMG_9.JPG").write_bytes(b"\xff\xd8\xff")
    return root


def rows_of(folder: Path, name: str) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / f"{name}.csv").read_text().splitlines()))


def predicted(traps: Path, classifier: Any, out: Path, **more: Any) -> Path:
    found = {"site1/cam A/IMG_0.JPG": (Detection(FIRST), Detection(SECOND)), "site1/cam A/IMG_1.JPG": ()}
    person = Detection(FIRST, "human", 0.9)
    found |= {"site2/cam A/IMG_0.JPG": (Detection(SECOND), person)}
    boxes = Boxes(Detections(found, "table"), 0.2)
    checkpoint.to_file(
        out / "datapackage.json", classifier, at_boxes(find_photos([traps]), boxes), boxes=boxes, **more
    )
    return out


def errors_of(folder: Path) -> list[str]:
    """The errors that frictionless finds, by the published schemas."""
    frictionless = pytest.importorskip("frictionless")
    found = []
    for name in _TABLES:
        published = json.loads((STANDARDS / f"camtrap-dp-1.0.2-{name}.json").read_text())
        about = {key: published[key] for key in ("fields", "missingValues", "primaryKey")}
        resource = frictionless.Resource(
            path=f"{name}.csv",
            basepath=str(folder),
            schema=frictionless.Schema.from_descriptor(about),
            encoding="utf-8",
        )
        found += [f"{name}: {e.type} {e.note}" for t in resource.validate().tasks for e in t.errors]
    return found


def test_the_columns_are_those_of_the_standard() -> None:
    for name, columns in _TABLES.items():
        published = json.loads((STANDARDS / f"camtrap-dp-1.0.2-{name}.json").read_text())
        assert [each["name"] for each in published["fields"]] == list(columns)


@pytest.mark.parametrize("gap", [None, 30.0])
def test_a_package_is_valid_and_is_read_back(traps: Path, classifier: Any, gap: float | None) -> None:
    (traps / "site1" / "cam A" / "IMG_9.JPG").unlink()  # it has no time, which the standard requires
    folder = predicted(traps, classifier, traps, gap=gap)
    assert errors_of(folder) == []
    media, observations = rows_of(folder, "media"), rows_of(folder, "observations")
    deployments = rows_of(folder, "deployments")
    assert [row["deploymentID"] for row in deployments] == ["site1/cam A", "site2/cam A"]
    assert [row["latitude"] for row in deployments] == ["47.5", "48.5"]
    assert {row["longitude"] for row in deployments} == {"-7.01"}
    assert deployments[0]["deploymentStart"] == "2023-05-01T10:00:00Z"
    assert deployments[0]["deploymentEnd"] == "2023-05-01T10:01:03Z"
    known = {name: {row[name] for row in media} for name in ("mediaID", "deploymentID")}
    assert {row["mediaID"] for row in observations} - {""} == known["mediaID"]
    assert {row["deploymentID"] for row in observations} == known["deploymentID"]
    levels = ["media"] * 10 + ["event"] * (0 if gap is None else 4)  # 8 photos, a second box, a person
    assert [row["observationLevel"] for row in observations] == levels
    of_events = {row["eventID"] for row in observations if row["observationLevel"] == "event"}
    assert {row["eventID"] for row in observations if row["mediaID"]} == (of_events or {""})

    table = readers.read(traps)
    assert table.source == "camtrap-dp"
    assert table.frame["deployment"].to_list() == ["site1/cam A"] * 4 + ["site2/cam A"] * 4
    assert table.frame["taken"][0] == "2023-05-01T10:00:00Z"
    assert set(table.frame["reason"]) <= {"machine-label", None}
    boxes = read_boxes(folder / "datapackage.json").of_file
    assert [each.box for each in boxes["site1/cam A/IMG_0.JPG"]] == [FIRST, SECOND]
    assert [each.category for each in boxes["site2/cam A/IMG_0.JPG"]] == ["animal", "human"]


def test_the_description_agrees_with_the_tables_and_keeps_what_a_person_wrote(
    traps: Path, classifier: Any
) -> None:
    about = traps / "datapackage.json"
    predicted(traps, classifier, traps, gap=30.0)
    first = json.loads(about.read_text())
    assert {"resources", "profile", "created", "contributors", "project"} < first.keys()
    assert first["project"]["observationLevel"] == ["event", "media"]
    assert first["temporal"] == {"start": "2023-05-01", "end": "2023-05-02"}
    assert first["spatial"]["coordinates"][0][:2] == [[-7.01, 47.5], [-7.01, 47.5]]
    names = {row["scientificName"] for row in rows_of(traps, "observations")} - {""}
    assert {each["scientificName"] for each in first["taxonomic"]} == names
    first["project"]["samplingDesign"], first["licenses"] = "simpleRandom", [{"name": "CC0-1.0"}]
    about.write_text(json.dumps(first))
    predicted(traps, classifier, traps, gap=30.0)
    again = json.loads(about.read_text())
    assert again["project"]["samplingDesign"] == "simpleRandom"
    assert again["licenses"] == [{"name": "CC0-1.0"}]


def test_a_broken_photo_and_one_without_a_time_are_in_the_tables(
    traps: Path, classifier: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = predicted(traps, classifier, tmp_path / "elsewhere")
    last = next(row for row in rows_of(folder, "media") if row["fileName"] == "IMG_9.JPG")
    assert last["filePath"] == "site1/cam A/IMG_9.JPG"  # not below the package
    assert (last["timestamp"], last["mediaComments"]) == ("", "truncated")
    said = capsys.readouterr().err
    assert "9 photos are not below" in said
    assert "1 of 9 photos have no time" in said


def test_a_table_of_deployments_gives_ids_places_and_times(traps: Path, classifier: Any) -> None:
    path = traps.parent / "deployments.csv"
    path.write_text(
        "deploymentID,locationID,latitude,longitude,deploymentStart,deploymentEnd,habitat,mine\n"
        "A-spring,site1/cam A,10,20,2023-04-01T00:00:00Z,2023-06-01T00:00:00Z,wood,x\n"
        "A-summer,site1/cam A,10,20,2023-06-01T00:00:01Z,2023-08-01T00:00:00Z,wood,x\n"
        "site2/cam A,,,,,,,x\n"
    )
    folder = predicted(traps, classifier, traps, deployments=read_deployments(path))
    rows = {row["deploymentID"]: row for row in rows_of(folder, "deployments")}
    assert list(rows) == ["A-spring", "site2/cam A", "A-summer"]  # one without photos is effort as well
    assert (rows["A-spring"]["latitude"], rows["A-spring"]["habitat"]) == ("10", "wood")
    assert rows["site2/cam A"]["latitude"] == "48.5"
    assert rows["A-spring"]["deploymentEnd"] == "2023-06-01T00:00:00Z"
    for name in ("media", "observations"):
        assert {row["deploymentID"] for row in rows_of(folder, name)} == {"A-spring", "site2/cam A"}
    path.write_text("deploymentID,latitude\na,1\na,1\n")
    assert read_deployments(path) == [{"deploymentID": "a", "latitude": "1"}]
    for wrong in (
        "deploymentID,latitude\na,1\na,2\n",
        "deploymentID,latitude\na,95\n",
        "deploymentID,longitude\na,x\n",
    ):
        path.write_text(wrong)
        with pytest.raises(InputError):
            read_deployments(path)


def test_deployments_are_folders_without_what_all_have_in_common() -> None:
    def names(*paths: str, **more: Any) -> list[str]:
        records: list[Any] = [{"file_name": path, **more} for path in paths]
        found = Deployments.of(records)
        return [found.name(each) for each in records]

    assert names("/x/s1/cam A/1.jpg", "/x/s2/cam A/1.jpg") == ["s1/cam A", "s2/cam A"]
    assert names("/x/s1/cam A/1.jpg", "/x/s1/cam A/2.jpg") == ["cam A", "cam A"]
    assert names("/x/s1/1.jpg", "/x/s1/deep/2.jpg") == ["s1", "s1/deep"]
    assert names("1.jpg", "a/2.jpg") == ["deployment", "a"]
    assert names(r"E:\s1\1.jpg", r"E:\s2\1.jpg") == ["s1", "s2"]
    assert names("/x/1.jpg", location="L", deployment="D") == ["D"]
    assert names("/x/1.jpg", location="L") == ["L"]


def test_two_photos_of_one_id_are_refused(classifier: Any, insects: Path, tmp_path: Path) -> None:
    one, two = sorted(insects.rglob("0?.jpg"))[:2]
    items = [InputPhoto(str(path), path, id="7") for path in (one, two)]
    with pytest.raises(InputError, match="the id '7'"):
        checkpoint.to_file(tmp_path / "datapackage.json", classifier, items)
