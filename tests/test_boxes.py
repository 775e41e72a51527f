"""Boxes: files in all formats, their match with photos, crops, thresholds, tables."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import simplejpeg
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fieldmark.data import boxes, images
from fieldmark.data.detections import USUAL_THRESHOLD, Category, Detection, Detections
from fieldmark.data.images.boxes import pixels_in, turned
from fieldmark.data.merge import merge
from fieldmark.data.photos import PhotoTable, build_frame
from fieldmark.data.readers import BoxFile, read
from fieldmark.data.readers.box_files import read_boxes
from fieldmark.data.storage import places
from fieldmark.data.storage.places import Box, Boxed
from fieldmark.data.taxonomy import Taxon, Taxonomy
from fieldmark.utils.errors import ImageRejected, InputError

SHARED = Path(__file__).resolve().parents[2] / "shared" / "camera-traps"
BOX = [0.25, 0.5, 0.25, 0.25]


def megadetector(**more: Any) -> dict[str, Any]:
    found = [
        {"category": "1", "conf": 0.9, "bbox": BOX},
        {"category": "2", "conf": 0.8, "bbox": [0, 0, 0.1, 0.1]},
        {"category": "3", "conf": 0.1, "bbox": [0, 0, 0.1, 0.1]},
    ]
    names = {"1": "animal", "2": "person", "3": "vehicle"}
    failed = {"file": "a/2.jpg", "detections": None, "failure": "Failure image access"}
    listed = [{"file": "a/1.jpg", "detections": found}, failed, {"file": "a/3.jpg", "detections": []}]
    return {"info": {"format_version": "1.4"}, "detection_categories": names, "images": listed, **more}


def speciesnet() -> dict[str, Any]:
    found = [
        {"category": "1", "label": "animal", "conf": 0.9, "bbox": BOX},
        {"category": "2", "label": "human", "conf": 0.8, "bbox": [0, 0, 0.1, 0.1]},
        {"category": "3", "label": "vehicle", "conf": 0.1, "bbox": [0, 0, 0.1, 0.1]},
    ]
    return {"predictions": [{"filepath": "a/1.jpg", "detections": found}, {"filepath": "a/3.jpg"}]}


def coco(**image: Any) -> dict[str, Any]:
    size = {"width": 400, "height": 200, **image}
    return {
        "images": [{"id": n, "file_name": f"a/{n}.jpg", **size} for n in (1, 3)],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 7, "bbox": [100, 100, 100, 50]},
            {"id": 2, "image_id": 1, "category_id": 8, "bbox": [0, 0, 40, 20]},
            {"id": 3, "image_id": 1, "category_id": 9, "bbox": [0, 0, 40, 20]},
            {"id": 4, "image_id": 3, "category_id": 0},
        ],
        "categories": [
            {"id": 0, "name": "empty"},
            {"id": 7, "name": "Lynx lynx"},
            {"id": 8, "name": "human"},
            {"id": 9, "name": "vehicle"},
        ],
    }


def written(folder: Path, value: object, name: str = "boxes.json") -> Path:
    (folder / name).write_text(value if isinstance(value, str) else json.dumps(value))
    return folder / name


TABLES = {
    "own.csv": "file_name,left,top,width,height,confidence,category\n"
    "a/1.jpg,0.25,0.5,0.25,0.25,0.9,animal\na/1.jpg,0,0,0.1,0.1,0.8,person\na/1.jpg,0,0,0.1,0.1,0.1,3\na/3.jpg,,,,,,\n",
    "animl.csv": "FilePath,Width,Height,file,category,conf,bbox1,bbox2,bbox3,bbox4\n"
    "a/1.jpg,400,200,/x/a/1.jpg,1,0.9,0.25,0.5,0.25,0.25\na/1.jpg,400,200,/x,2,0.8,0,0,0.1,0.1\n"
    "a/1.jpg,400,200,/x,3,0.1,0,0,0.1,0.1\na/3.jpg,400,200,/x,,,,,,\n",
}


@pytest.mark.parametrize("form", ["megadetector", "speciesnet", "coco", *TABLES])
def test_every_format_gives_the_same_boxes(form: str, tmp_path: Path) -> None:
    made = {"megadetector": megadetector(), "speciesnet": speciesnet(), "coco": coco()}
    path = written(tmp_path, TABLES[form], form) if form in TABLES else written(tmp_path, made[form])
    found = read_boxes(path)
    assert list(found.of_file) == ["a/1.jpg", "a/3.jpg"]  # what the detector could not read is not listed
    first = found.of_file["a/1.jpg"]
    assert [each.category for each in first] == ["animal", "human", "vehicle"]
    assert [replace(each.box, size=None) for each in first[:1]] == [Box(*BOX)]
    assert found.of_file["a/3.jpg"] == ()
    if form == "coco":
        assert first[0].label == "Lynx lynx"
        assert {each.confidence for each in first} == {1.0}
    else:
        assert [each.confidence for each in first] == [0.9, 0.8, 0.1]


def test_the_boxes_of_a_camera_trap_package(tmp_path: Path) -> None:
    tables = {
        "deployments": "deploymentID,locationID\nd,l\n",
        "media": "mediaID,deploymentID,timestamp,filePath\nm,d,2020-01-01T00:00:00Z,a/1.jpg\n",
        "observations": "observationID,deploymentID,mediaID,observationType,scientificName,bboxX,bboxY,"
        "bboxWidth,bboxHeight,classificationProbability\no,d,m,animal,Lynx lynx,0.25,0.5,0.25,0.25,\n"
        "p,d,m,blank,,,,,,\n",
    }
    for name, text in tables.items():
        (tmp_path / f"{name}.csv").write_text(text)
    about = {"resources": [{"name": name, "path": f"{name}.csv"} for name in tables]}
    written(tmp_path, about, "datapackage.json")
    expected = {"a/1.jpg": (Detection(Box(*BOX), "animal", 1.0, "Lynx lynx"),)}
    assert read_boxes(tmp_path).of_file == read_boxes(tmp_path / "datapackage.json").of_file == expected


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"x": 1}, "has no boxes: expected is MegaDetector"),
        ([1], "has no boxes: expected is"),
        (megadetector(images=[{"detections": []}]), "an image has no file"),
        (megadetector(images=[{"file": "1.jpg", "detections": 3}]), "is no list"),
        (megadetector(images=[{"file": "1.jpg", "detections": [3]}]), "is no object"),
        (
            megadetector(images=[{"file": "1.jpg", "detections": [{"category": "1", "bbox": [1, 2]}]}]),
            r"is \[1, 2\]",
        ),
        (
            megadetector(
                images=[{"file": "1.jpg", "detections": [{"category": "1", "conf": 7, "bbox": BOX}]}]
            ),
            "its confidence is 7",
        ),
        (
            megadetector(
                images=[{"file": "1.jpg", "detections": [{"category": "1", "bbox": [10, 20, 30, 40]}]}]
            ),
            "shares of the photo, from 0 to 1",
        ),
        (
            megadetector(
                images=[{"file": "1.jpg", "detections": [{"category": "1", "bbox": [0, 0, 0, 0.1]}]}]
            ),
            "must be more than 0",
        ),
        (coco(width=None), "none of its 3 boxes can be; .* has no width and height"),
        ({**coco(), "annotations": []}, "its annotations need a bbox"),
        (megadetector(images=[]), "lists no photo of which boxes are known"),
        (
            megadetector(detection_categories={"1": "fish", "2": "plant"}),
            "boxes of fish, plant, 3 are no animals",
        ),
        ("{", "is not valid JSON"),
    ],
)
def test_what_is_no_file_of_boxes_is_refused(value: object, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        read_boxes(written(tmp_path, value))


GOOD, NONE = (0.25, 0.5, 0.25, 0.25), (0.25, 0.5, 0, 0.25)
ROWS = "".join(
    f"{name},{','.join(map(str, sides))},0.9\n" for name, sides in (("1", GOOD), ("1", NONE), ("2", NONE))
)
SIDED = {
    "megadetector": {
        "detection_categories": {"1": "animal"},
        "images": [
            {
                "file": name,
                "detections": [{"category": "1", "conf": 0.9, "bbox": list(each)} for each in sides],
            }
            for name, sides in (("1", (GOOD, NONE)), ("2", (NONE,)), ("3", ()))
        ],
    },
    "coco": {
        "images": [{"id": n, "file_name": n, "width": 8, "height": 8} for n in "123"],
        "annotations": [
            {"image_id": n, "category_id": 1, "bbox": [8 * each for each in sides]}
            for n, sides in (("1", GOOD), ("1", NONE), ("2", NONE))
        ],
        "categories": [{"id": 1, "name": "animal"}],
    },
    "boxes.csv": f"file_name,left,top,width,height,confidence\n{ROWS}3,,,,,\n",
}


def test_numbers_of_categories_are_those_of_the_file_and_a_box_that_is_listed_twice_is_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = {"1": "person", "2": "vehicle", "3": "animal", "4": "fish", "0": "empty"}
    found = [{"category": str(n), "conf": 0.5, "bbox": BOX} for n in (0, 1, 2, 3, 3, 4)]
    listed = [{"file": "1.jpg", "detections": found}] * 2
    read = read_boxes(written(tmp_path, megadetector(detection_categories=names, images=listed))).of_file
    assert [each.category for each in read["1.jpg"]] == ["human", "vehicle", "animal"]
    assert "boxes of fish are no animals" in caplog.text


@pytest.mark.parametrize("form", SIDED)
def test_boxes_that_cannot_be_are_left_out_and_the_first_is_named(
    form: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = written(tmp_path, SIDED[form], form if form.endswith(".csv") else "boxes.json")
    found = read_boxes(path).of_file
    # Of photo 2 it is unknown what it shows; photo 3 shows nothing.
    assert {name: len(each) for name, each in found.items()} == {"1": 1, "3": 0}
    [line] = caplog.messages
    assert f"{path.name}: boxes that cannot be are left out, 2; the first, of 1, is [" in line
    assert line.endswith("its width and height must be more than 0.")


def test_an_image_and_a_box_without_an_id_do_not_belong_together(tmp_path: Path) -> None:
    listing = coco()
    listing["images"].append({"file_name": "a/9.jpg", "width": 400, "height": 200})
    listing["annotations"].append({"bbox": [0, 0, 9, 9]})
    (tmp_path / "boxes.json").write_text(json.dumps(listing))
    found = read_boxes(tmp_path / "boxes.json")
    assert found.of_file["a/9.jpg"] == ()
    assert found.of_file["a/1.jpg"]


@pytest.mark.parametrize("text", ["file_name,label\na.jpg,b\n", "left,top,width,height\n0,0,1,1\n"])
def test_a_table_without_the_columns_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no columns of boxes"):
        read_boxes(written(tmp_path, text, "boxes.csv"))


@given(
    st.text(max_size=40) | st.recursive(st.none() | st.floats() | st.text(max_size=5), st.lists, max_leaves=5)
)
def test_anything_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    folder = tmp_path_factory.mktemp("any")
    for document in (
        value,
        megadetector(images=value),
        {**coco(), "annotations": value},
        {"predictions": value},
    ):
        with suppress(InputError):
            read_boxes(written(folder, document))


@pytest.mark.skipif(not SHARED.is_dir(), reason="the samples of camera traps are not there")
def test_the_real_files_are_read() -> None:
    zamba = SHARED / "zamba" / "images"
    assert len(read_boxes(zamba / "ena24_small" / "md_annotations.json").of_file) == 21
    assert read_boxes(zamba / "ena24_small" / "md_annotations.json").threshold == 0.8
    assert len(read_boxes(zamba / "megadetector_output.json").of_file) == 3
    assert len(read_boxes(zamba / "camtrap_dp_small").of_file) == 4
    animl = read_boxes(SHARED / "animl" / "main" / "Detections.csv")
    names = [path.name for path in (SHARED / "animl" / "Southwest").iterdir()]
    assert len(animl.matched(names)) == 14
    [(_, [first, second])] = read_boxes(SHARED / "animl" / "md" / "md_gt.json").of_file.items()
    assert (first.category, round(first.confidence, 2), round(second.confidence, 2)) == ("animal", 0.74, 0.16)


# Which boxes are of which photo


def named(*paths: str) -> Detections:
    return Detections({path: (Detection(Box(*BOX), label=path),) for path in paths}, "test")


@pytest.mark.parametrize(
    ("listed", "photos", "expected"),
    [
        (["a/1.jpg"], ["a/1.jpg"], ["a/1.jpg"]),
        (["/mnt/x/a/1.jpg", "/mnt/x/b/1.jpg"], ["a/1.jpg", "b/1.jpg"], ["/mnt/x/a/1.jpg", "/mnt/x/b/1.jpg"]),
        (["1.jpg", "2.jpg"], ["mine/1.jpg", "mine/2.jpg"], ["1.jpg", "2.jpg"]),
        (
            ["C:\\x\\a\\1.jpg", "C:\\x\\a\\2.jpg"],
            ["a/1.jpg", "a/2.jpg"],
            ["C:\\x\\a\\1.jpg", "C:\\x\\a\\2.jpg"],
        ),
        (["/x/a/1.jpg", "/x/a/2.jpg"], ["y/a/1.jpg", "y/a/2.jpg"], ["/x/a/1.jpg", "/x/a/2.jpg"]),
        # Another camera's photo of the same name is another photo.
        (["x/a/1.jpg", "x/a/2.jpg"], ["a/1.jpg", "a/2.jpg", "b/1.jpg"], ["x/a/1.jpg", "x/a/2.jpg", None]),
        (["a/1.jpg"], ["b/2.jpg"], [None]),
        # Cards and cameras change the case, where no two names differ in it alone.
        (
            ["X/A/IMG_1.JPG", "X/A/IMG_2.JPG"],
            ["a/img_1.jpg", "a/img_2.jpg"],
            ["X/A/IMG_1.JPG", "X/A/IMG_2.JPG"],
        ),
        (["a/x.JPG", "a/x.jpg"], ["a/x.jpg", "a/X.jpg"], ["a/x.jpg", None]),
    ],
)
def test_photos_are_found_where_paths_begin_elsewhere(
    listed: list[str], photos: list[str], expected: list[str | None]
) -> None:
    found = named(*listed).matched(photos)
    assert [found[path][0].label if path in found else None for path in photos] == expected


# Crops


def photo(width: int, height: int, orientation: int = 1) -> bytes:
    """A photo as it is stored: red in its upper left quarter, green in the lower right one, else blue."""
    from io import BytesIO

    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 2] = 255
    pixels[: height // 2, : width // 2] = (255, 0, 0)
    pixels[height // 2 :, width // 2 :] = (0, 255, 0)
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = BytesIO()
    Image.fromarray(pixels).save(found, "JPEG", quality=95, subsampling=0, exif=exif)
    return found.getvalue()


def test_a_crop_is_a_square_with_a_margin_inside_the_photo() -> None:
    pixels = np.arange(200 * 300 * 3, dtype=np.uint32).reshape(200, 300, 3).astype(np.uint8)
    crop = pixels_in(pixels, Box(0.4, 0.4, 0.2, 0.1))  # 60 x 20 pixels, its centre at (150, 90)
    assert crop.shape == (72, 72, 3)
    np.testing.assert_array_equal(crop, pixels[54:126, 114:186])
    np.testing.assert_array_equal(pixels_in(pixels, Box(0, 0, 0.2, 0.3)), pixels[:72, :72])
    assert pixels_in(pixels, Box(0, 0, 1, 1)).shape == (200, 300, 3)
    assert pixels_in(pixels, Box(0.5, 0.5, 1e-4, 1e-4)).shape == (8, 8, 3)
    with pytest.raises(ImageRejected, match="not in the photo"):
        pixels_in(pixels, Box(1.2, 0.1, 0.1, 0.1))


@given(
    st.tuples(*[st.floats(-0.5, 1.5)] * 2, *[st.floats(0.001, 1.5)] * 2),
    st.integers(1, 60),
    st.integers(1, 60),
)
def test_every_box_gives_a_part_of_the_photo_or_is_refused(
    sides: tuple[float, ...], width: int, height: int
) -> None:
    box, pixels = Box(*sides), np.zeros((height, width, 3), np.uint8)
    try:
        found = pixels_in(pixels, box)
    except ImageRejected:
        return
    assert 0 < found.shape[0] <= height
    assert 0 < found.shape[1] <= width


def test_a_photo_is_decoded_once_for_all_of_its_boxes(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    decoded: list[int] = []
    decode = images.decode
    monkeypatch.setattr(
        images, "decode", lambda data, **more: decoded.append(len(data)) or decode(data, **more)
    )
    stored = [photo(90, 60), photo(60, 90)]
    crops = [
        images.read_bytes(Boxed(places.InMemoryImage(data), Box(at / 20, 0.1, 0.2, 0.2)))
        for data in stored
        for at in range(12)
    ]
    assert len(decoded) == len(stored)
    assert all(images.header(crop).width > 8 for crop in crops)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_of_a_turned_photo(orientation: int, cache: Path) -> None:
    """Of a photo stored on its side, by the size that the box was drawn in."""
    data = photo(64, 48, orientation)
    shown = images.decode(data)
    stored = Box(0.05, 0.05, 0.3, 0.3, (64, 48))  # in the red quarter
    if orientation in (1, 5, 6, 7, 8):  # of the others both have the same size: they are taken as shown
        crop = images.decode(images.read_bytes(Boxed(places.InMemoryImage(data), stored)))
        assert crop[..., 0].mean() > 240, orientation
    red = np.argwhere(shown[..., 0] > 200)
    (top, left), (bottom, right) = red.min(axis=0), red.max(axis=0) + 1
    height, width = shown.shape[:2]
    box = Box(left / width, top / height, (right - left) / width, (bottom - top) / height)
    crop = images.decode(images.read_bytes(Boxed(places.InMemoryImage(data), box)))
    assert (crop[..., 0] > 200).mean() > 0.45  # 32 x 24 pixels in a square of 39
    assert turned(box, width, height, orientation) == box


def test_crops_are_kept_by_the_bytes_of_the_photo_and_the_box(cache: Path, tmp_path: Path) -> None:
    path = tmp_path / "1.jpg"
    path.write_bytes(photo(64, 48))
    place = places.at(tmp_path, f"1.jpg#box={Box(0.0, 0.0, 0.3, 0.3)}")
    assert place == Boxed(path, Box(0.0, 0.0, 0.3, 0.3))
    first = images.read_bytes(place)
    [kept] = (cache / "crops").rglob("*.jpg")
    assert kept.read_bytes() == first
    assert simplejpeg.decode_jpeg_header(first)[3] == "444"
    path.write_bytes(photo(64, 64))
    images.read_bytes(place)
    assert len(list((cache / "crops").rglob("*.jpg"))) == 2
    path.write_bytes(photo(64, 48)[:200])
    with pytest.raises(ImageRejected):
        images.read_bytes(place)


@given(st.tuples(*[st.floats(-2, 2)] * 4), st.none() | st.tuples(*[st.integers(1, 99_999)] * 2))
def test_a_box_in_a_table_is_read_as_it_was_written(
    sides: tuple[float, ...], size: tuple[int, int] | None
) -> None:
    place = Boxed(places.TarMember(Path("/x/a.tar"), 512, 7), Box(*sides, size))
    assert places.at(Path("/"), str(place)[1:]) == place


# Tables


def table(labels: dict[str, str]) -> PhotoTable:
    rows = {"id": list(labels), "path": list(labels), "taxon_id": list(labels.values())}
    names = dict.fromkeys([*labels.values(), "Lynx lynx"])
    return PhotoTable(build_frame(rows), Taxonomy(Taxon(name, name) for name in names), Path("/x"), "test")


def seen(*confidences: float, category: Category = "animal", label: str | None = None) -> Any:
    return tuple(Detection(Box(*BOX), category, each, label) for each in confidences)


def test_a_table_has_a_row_for_each_box_of_an_animal() -> None:
    labels = {"1": "fox", "2": "fox", "3": "human", "4": "empty", "5": "fox", "6": "fox"}
    found = {
        **{"1": seen(0.9, 0.7, 0.1), "2": seen(0.1), "3": seen(0.9), "4": seen(0.5), "5": ()},
        "6": seen(0.9, label="lynx LYNX"),
    }
    cut = boxes.cropped(table(labels), Detections(found, "test"), 0.2)
    rows = {row["id"]: row for row in cut.frame.iter_rows(named=True)}
    assert list(rows) == ["1#1", "1#2", "2", "3#1", "4#1", "5", "6#1"]
    assert {rows[name]["group"] for name in ("1#1", "1#2")} == {"1"}
    assert rows["1#1"]["path"] == "1#box=0.25,0.5,0.25,0.25"
    assert [rows[name]["reason"] for name in ("2", "5")] == ["no-box"] * 2
    assert rows["3#1"]["reason"] == "no-animal"  # a person is never learned as a species
    assert rows["4#1"]["taxon_id"] == "empty"  # a false alarm is: so that the next one is blank
    assert rows["6#1"]["taxon_id"] == "Lynx lynx"  # the label of the box, not of the photo
    assert cut.box_threshold == 0.2
    with pytest.raises(InputError, match="boxes are of other photos"):
        boxes.of_photos(table(labels), Detections({"other": ()}, "test"))
    mixed = table({"1#box=0.1,0.1,0.5,0.5": "fox", "2": "fox"})
    detections = boxes.of_photos(mixed, Detections({"2": seen(0.9)}, "test"))
    assert boxes.cropped(mixed, detections, 0.2).frame["id"].to_list() == ["1#box=0.1,0.1,0.5,0.5", "2#1"]
    elsewhere = {f"D:\\{name}": each for name, each in found.items()}
    assert boxes.of_photos(table(labels), Detections(elsewhere, "test")).of_file == found


def test_the_threshold_is_measured_where_photos_are_labelled_as_empty() -> None:
    labels = {f"a{n}": "fox" for n in range(40)} | {f"b{n}": "empty" for n in range(40)}
    found = {f"a{n}": seen(0.5 + n / 100) for n in range(40)} | {f"b{n}": seen(n / 100) for n in range(40)}
    listed = Detections(found, "test", 0.8)
    measured = boxes.find_threshold(table(labels), listed)
    assert (measured.way, measured.missed, measured.false_alarms) == ("measured", 0, 0)
    assert 0.39 < measured.value <= 0.5
    assert "of 40 photos of animals 0 have no box" in measured.summary
    given = boxes.find_threshold(table(labels), listed, 0.7)
    assert (given.value, given.way, given.missed) == (0.7, "given", 20)
    few = table({name: label for name, label in labels.items() if label == "fox"})
    assert boxes.find_threshold(few, listed).value == 0.8
    assert boxes.find_threshold(few, replace(listed, threshold=None)).value == USUAL_THRESHOLD
    with pytest.raises(InputError, match="give a confidence from 0 to 1"):
        boxes.find_threshold(few, listed, 2)


def test_a_table_of_boxes_is_written_and_read(tmp_path: Path, cache: Path) -> None:
    for number in (1, 2):
        (tmp_path / "fox").mkdir(exist_ok=True)
        (tmp_path / "fox" / f"{number}.jpg").write_bytes(photo(64, 48 + number))
    listed = [
        {"file": f"fox/{n}.jpg", "detections": [{"category": "1", "conf": 0.9, "bbox": BOX}]} for n in (1, 2)
    ]
    path = written(tmp_path, megadetector(images=listed), "boxes.json")
    found = read(tmp_path, source="folder", boxes=BoxFile(path))
    assert found.kept["id"].to_list() == ["fox/1.jpg#1", "fox/2.jpg#1"]
    assert found.kept["sha256"].null_count() == 0
    found.write(tmp_path / "index.parquet")
    again = PhotoTable.read(tmp_path / "index.parquet")
    assert again.box_threshold == USUAL_THRESHOLD
    assert again.frame.equals(found.frame)
    with pytest.raises(InputError, match="without boxes"):
        BoxFile.of(None, 0.5)
    assert pl.DataFrame(again.frame)["status"].to_list().count("kept") == 2


def test_boxes_and_whole_photos_are_not_merged() -> None:
    whole = table({"1": "fox", "2": "hare"})
    cut = boxes.cropped(whole, Detections({"1": seen(0.9), "2": seen(0.8)}, "test"), 0.5)
    with pytest.raises(InputError, match="do not go together"):
        merge([whole, cut])
    assert merge([cut, cut]).box_threshold == 0.5
