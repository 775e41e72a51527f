"""Drawn camera-trap stations: what the files say is what the photos show."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import ExifTags, Image, ImageChops

from fieldmark.data import readers
from fieldmark.data.synthetic import draw_stations, station_plan
from fieldmark.data.synthetic.species import create_species
from fieldmark.data.synthetic.station_photos import photo
from fieldmark.utils.errors import InputError

SMALL: dict[str, Any] = {"stations": 3, "visits": 8, "seed": 2, "size": (320, 240)}
KINDS = create_species(12, 2)


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stations") / "drawn"
    draw_stations(folder, **SMALL, wrong_clock=True)
    return folder


@pytest.fixture(scope="module")
def listed(drawn: Path) -> dict[str, Any]:
    document: dict[str, Any] = read(drawn / "stations.json")
    return document


def plans(stations: int, visits: int, seed: int) -> list[station_plan.Visit]:
    return station_plan.plan(station_plan.stations(stations, seed), visits, 12, seed)


# Files


def test_equal_arguments_give_equal_bytes_and_a_complete_folder_stays(drawn: Path, tmp_path: Path) -> None:
    before = contents(drawn)
    again = draw_stations(tmp_path / "again", **SMALL, wrong_clock=True, workers=1)
    assert contents(tmp_path / "again") == before
    assert again == sum(name.endswith(".jpg") for name in before) > 3 * 3 * 8 - 1
    assert draw_stations(drawn, **SMALL, wrong_clock=True) == 0
    draw_stations(tmp_path / "other", **SMALL | {"visits": 1, "seed": 3})
    assert not set(contents(tmp_path / "other").values()) & set(before.values())


def test_an_interrupted_folder_is_drawn_again_and_another_is_refused(drawn: Path, tmp_path: Path) -> None:
    given = {"stations": 1, "visits": 2, "size": (64, 48)}
    draw_stations(tmp_path / "a", **given)
    before = contents(tmp_path / "a")
    marker = read(tmp_path / "a/fieldguide.json")
    (tmp_path / "a/fieldguide.json").write_text(json.dumps({**marker, "complete": False}))
    (tmp_path / "a/boxes.json").unlink()
    draw_stations(tmp_path / "a", **given)
    assert contents(tmp_path / "a") == before
    with pytest.raises(InputError, match="other settings"):
        draw_stations(drawn, **SMALL)  # without a wrong clock
    (tmp_path / "b").mkdir()
    (tmp_path / "b/mine.txt").touch()
    with pytest.raises(InputError, match="other files"):
        draw_stations(tmp_path / "b", **given)
    for wrong in ({"stations": 0}, {"species": 2}, {"size": (2000, 48)}):
        with pytest.raises(InputError, match="cannot be drawn"):
            draw_stations(tmp_path / "c", **given | wrong)


def test_the_reader_reads_labels_locations_groups_and_times(drawn: Path, listed: dict[str, Any]) -> None:
    table = readers.read(drawn)
    assert table.source == "coco-camera-traps"
    frame = table.frame
    assert set(frame["reason"].drop_nulls()) <= {"ambiguous-label"}
    assert set(frame["location"]) == {"S01", "S02", "S03"}
    assert frame["group"].n_unique() == 3 * 8
    assert frame["taken"].null_count() == 0
    assert all((drawn / path).is_file() for path in frame["path"])
    names = {taxon.id: taxon.name for taxon in table.taxonomy}
    assert {"empty", KINDS[0].name, KINDS[11].name} < set(names.values())
    for (_,), burst in frame.group_by("group"):
        assert burst["location"].n_unique() == 1
        assert 3 <= burst.height <= 5
    numbers = pl.DataFrame(listed["images"]).group_by("seq_id").agg("frame_num", "seq_num_frames")
    for _, frames, lengths in numbers.iter_rows():
        assert sorted(frames) == list(range(1, lengths[0] + 1))


def test_the_detector_s_file_has_the_format_and_is_near_the_truth(
    drawn: Path, listed: dict[str, Any]
) -> None:
    found = read(drawn / "boxes.json")
    assert found["info"]["format_version"] == "1.4"
    assert found["detection_categories"] == {"1": "animal", "2": "person", "3": "vehicle"}
    assert [each["file"] for each in found["images"]] == [each["file_name"] for each in listed["images"]]
    truth = defaultdict(list)
    for entry in listed["annotations"]:
        if "bbox" in entry:
            truth[entry["image_id"]].append(np.array(entry["bbox"]) / (SMALL["size"] * 2))
    overlaps, false = [], 0
    for image, entry in zip(listed["images"], found["images"], strict=True):
        confidences = [each["conf"] for each in entry["detections"]]
        assert confidences == sorted(confidences, reverse=True)
        for each in entry["detections"]:
            assert set(each) == {"category", "conf", "bbox"}
            assert 0 < each["conf"] <= 1
            x, y, w, h = each["bbox"]
            assert min(x, y) >= 0
            assert min(w, h) > 0
            assert max(x + w, y + h) < 1.0011
            near = [overlap(each["bbox"], box) for box in truth[image["id"]]]
            overlaps += [max(near)] if near and max(near) > 0.3 else []
            false += not near
    count = sum(map(len, truth.values()))
    assert 0.75 < np.mean(overlaps) < 0.9
    assert 0.8 * count < len(overlaps) <= count
    assert 0 < false < count / 4


def overlap(one: Any, two: Any) -> float:
    """The intersection over union of two boxes."""
    a, b = np.array(one), np.array(two)
    sides = np.minimum(a[:2] + a[2:], b[:2] + b[2:]) - np.maximum(a[:2], b[:2])
    shared = float(np.prod(sides.clip(0)))
    return shared / (float(np.prod(a[2:]) + np.prod(b[2:])) - shared)


def test_the_photos_have_time_place_and_camera_and_one_clock_is_wrong(
    drawn: Path, listed: dict[str, Any]
) -> None:
    with (drawn / "deployments.csv").open(encoding="utf-8") as handle:
        deployments = {row["locationID"]: row for row in csv.DictReader(handle)}
    assert len({row["deploymentID"] for row in deployments.values()}) == 3
    for image in listed["images"]:
        with Image.open(drawn / image["file_name"]) as picture:
            assert picture.size == (image["width"], image["height"]) == SMALL["size"]
            exif = picture.getexif()
        camera = f"{exif[ExifTags.Base.Make]} {exif[ExifTags.Base.Model]}"
        assert camera == "Fieldmark Drawn Camera"
        shown = exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal]
        taken = datetime.strptime(shown, "%Y:%m:%d %H:%M:%S")
        assert taken == datetime.fromisoformat(image["datetime"])
        row, place = deployments[image["location"]], exif.get_ifd(ExifTags.IFD.GPSInfo)
        for name, tag in (("latitude", ExifTags.GPS.GPSLatitude), ("longitude", ExifTags.GPS.GPSLongitude)):
            degrees = sum(float(part) / 60**power for power, part in enumerate(place[tag]))
            assert degrees == pytest.approx(float(row[name]), abs=1e-5)
        start, end = (datetime.fromisoformat(row[f"deployment{end}"][:-1]) for end in ("Start", "End"))
        assert (start <= taken <= end) == (image["location"] != "S03")
        assert taken.year == (2000 if image["location"] == "S03" else 2023)


# Photos


def test_a_box_holds_its_animal_and_nothing_else_changes() -> None:
    """Against the same photo drawn without what passes: all that differs is in the boxes, to their edges."""
    seen = 0
    for visit in plans(3, 8, 5):
        for frame in range(len(visit.seconds)):
            picture, boxes = photo(visit, frame, KINDS, (320, 240), 5)
            plain, none = photo(visit, frame, KINDS, (320, 240), 5, shown=False)
            assert none == []
            differs = np.asarray(ImageChops.difference(picture, plain)).max(2)
            for _, (left, top, width, height) in boxes:
                assert left >= 0
                assert top >= 0
                assert left + width <= 320
                assert top + height <= 240
                inside = differs[top : top + height, left : left + width]
                assert (inside > 8).mean() > 0.05 or visit.night
                assert inside.max() > 0
                seen += 1
            for _, (left, top, width, height) in boxes:
                differs[top : top + height, left : left + width] = 0
            assert differs.max() == 0
    assert seen > 40


def test_a_background_is_that_of_its_station_and_nights_are_grey() -> None:
    visits = [visit for visit in plans(2, 40, 1) if not visit.passers]
    plain = {}
    for visit in visits:
        picture = photo(visit, 0, KINDS, (64, 48), 1)[0]
        grey = np.ptp(np.asarray(picture, int), 2).max() == 0
        assert grey == visit.night
        if not visit.night:
            plain[visit.id] = (visit.station.name, np.asarray(picture.convert("L"), float).ravel())
    same, other = [], []
    for name, (station, pixels) in plain.items():
        for name2, (station2, pixels2) in plain.items():
            if name < name2:
                (same if station == station2 else other).append(np.corrcoef(pixels, pixels2)[0, 1])
    assert min(same) > max(other)
    assert {visit.night for visit in visits} == {True, False}


# Plans


def test_every_species_is_seen_in_its_regions_at_its_hours_and_season() -> None:
    habits = station_plan.habits(12, 0)
    visits = plans(12, 60, 0)
    first = datetime(2023, 3, 1)
    seen: dict[int, list[station_plan.Visit]] = defaultdict(list)
    for visit in visits:
        for species in {each.category - station_plan.FIRST_SPECIES for each in visit.passers}:
            if species >= 0:
                seen[species].append(visit)
    for species, its in seen.items():
        for visit in its:
            centre = station_plan.REGIONS[visit.station.region]
            place = visit.station.latitude, visit.station.longitude
            assert np.abs(np.subtract(place, centre)).max() <= station_plan.REACH
            assert visit.station.region in habits[species].regions
    assert len(seen) == 12
    counts = sorted(map(len, seen.values()))
    assert counts[-1] > 8 * counts[0]  # a long tail
    common = max(seen, key=lambda species: len(seen[species]))
    hours = [(visit.taken.hour - habits[common].hour + 12) % 24 - 12 for visit in seen[common]]
    days = [(visit.taken - first).days - habits[common].season for visit in seen[common]]
    assert np.quantile(np.abs(hours), 0.8) < 5
    assert np.quantile(np.abs(days), 0.8) < 70


def test_visits_are_bursts_of_all_that_a_camera_sees() -> None:
    visits = plans(12, 60, 0)
    for visit in visits:
        steps = np.diff(visit.seconds)
        assert visit.seconds[0] == 0
        assert 2 <= len(steps) <= 4
        assert set(steps) <= {1, 2, 3}
    categories = [[each.category for each in visit.passers] for visit in visits]
    assert 0.1 < sum(not each for each in categories) / len(visits) < 0.3
    assert {(1,), (2,)} <= {tuple(each) for each in categories}
    pairs = [each for each in categories if len(each) == 2]
    assert 0.02 < len(pairs) / len(visits) < 0.2
    assert 0 < sum(len(set(each)) == 2 for each in pairs) < len(pairs) / 2
