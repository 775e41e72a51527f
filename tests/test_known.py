"""What is known of photos in Python: their boxes, place and date; and photos that were cut off."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fieldmark.data.detections import Detection
from fieldmark.data.locations import Locations
from fieldmark.data.storage.places import Box, Boxed
from fieldmark.evaluation.location_prior import KernelPrior, LocationRule
from fieldmark.inference import clips, inputs
from fieldmark.inference.classifier import Classifier
from fieldmark.inference.classifier.location import LocationPrior
from fieldmark.utils.errors import ImageRejected, InputError

HERE, THERE = (47.0, 8.0), (52.0, 13.5)
BOX = (0.1, 0.2, 0.5, 0.6)


def scores(found: Any) -> dict[str, float]:
    return {each.taxon.id: each.score for each in found.answers}


@pytest.fixture
def soft(classifier: Classifier) -> Classifier:
    """The classifier of the four insects, which is less sure, so that a difference shows."""
    return replace(classifier, temperature=30.0, thresholds={}, ood=None)


@pytest.fixture
def placed(soft: Classifier) -> Classifier:
    """The first label lives here alone, the second there alone."""
    rows = np.repeat([[*HERE, 100], [*THERE, 100]], 50, axis=0)
    kernel = KernelPrior(Locations.of(rows), np.repeat([0, 1], 50), len(soft.taxa))
    return replace(soft, prior=LocationPrior(kernel, LocationRule(1.0)))


def turned_photo(draw: Callable[[int, int], bytes], gps: bool) -> bytes:
    """A photo that is stored on its side, and perhaps says where it was taken."""
    exif = Image.Exif()
    exif[0x0112] = 6
    if gps:
        exif.get_ifd(0x8825).update({1: "N", 2: (47.0, 0.0, 0.0), 3: "E", 4: (8.0, 0.0, 0.0)})
        exif.get_ifd(0x8769)[0x9003] = "2023:04:10 12:00:00"
    file = io.BytesIO()
    Image.open(io.BytesIO(draw(0, 40))).crop((0, 0, 64, 40)).save(file, "JPEG", exif=exif, quality=95)
    return file.getvalue()


def test_boxes_give_what_the_command_does_of_every_form_of_a_photo(
    soft: Classifier, draw: Callable[[int, int], bytes], tmp_path: Path
) -> None:
    classifier = soft
    data = turned_photo(draw, gps=False)
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    place = Boxed(path, Box(*BOX))
    [row] = clips.predict(classifier, [inputs.InputPhoto("a", place, detection=Detection(place.box))])
    picture = Image.open(io.BytesIO(data))
    upright = np.asarray(picture.transpose(Image.Transpose.ROTATE_270))
    for photo in (path, str(path), data, io.BytesIO(data), upright, picture):
        found = classifier.predict(photo, boxes=BOX)
        assert scores(found) == pytest.approx(scores(row.prediction), abs=1e-4)
    whole, cut = classifier.predict([path, path], boxes=iter([None, np.array(BOX)]))
    assert scores(cut) == pytest.approx(scores(row.prediction), abs=1e-4)
    assert scores(whole) == pytest.approx(scores(classifier.predict(path)), abs=1e-4)
    assert scores(whole) != pytest.approx(scores(cut), abs=1e-4)
    lazily = classifier.predict((each for each in [path]), boxes=[BOX])
    assert scores(next(lazily)) == pytest.approx(scores(cut), abs=1e-4)


def test_boxes_that_cannot_be(classifier: Classifier, draw: Callable[[int, int], bytes]) -> None:
    photo = draw(0, 1)
    for boxes, said in {
        (0.1, 0.2, 0.3): "it is [left, top, width, height]",
        (0, 0, 0.2, 0.0): "must be more than 0",
        (10, 10, 200, 300): "they are shares",
        (float("nan"), 0, 1, 1): "it is [left",
        "nose": "could not convert",
        7: "not iterable",
    }.items():
        with pytest.raises(InputError, match=said.replace("[", r"\[")):
            classifier.predict(photo, boxes=boxes)  # type: ignore[arg-type]
    for several in ([BOX], [BOX] * 3):
        with pytest.raises(InputError, match="more of one"):
            classifier.predict([photo, photo], boxes=several)
    pixels = np.zeros((20, 20, 3), np.uint8)
    outside = (1.2, 0.1, 0.1, 0.1)
    found = classifier.predict([photo, pixels, photo], boxes=[outside, outside, None], on_error="return")
    assert [getattr(each, "reason", None) == "outside" for each in found] == [True, True, False]
    with pytest.raises(InputError, match="another box"):
        classifier.predict(Boxed(Path("x.jpg"), Box(*BOX)), boxes=BOX)
    with pytest.raises(TypeError, match="'box'"):
        classifier.predict(photo, box=BOX)  # type: ignore[call-overload]


def test_a_place_and_date(placed: Classifier, draw: Callable[[int, int], bytes], tmp_path: Path) -> None:
    photo = draw(0, 40)
    there = placed.predict([photo], place=THERE)
    assert scores(there[0]) == scores(placed.at(*THERE).predict(photo))
    assert (there[0].prior, placed.predict(photo).prior) == (True, False)
    dated = placed.predict(photo, place=HERE, date="2023-04-10")
    assert scores(dated) == scores(placed.at(*HERE, "2023-04-10").predict(photo))
    path = tmp_path / "gps.jpg"
    path.write_bytes(turned_photo(draw, gps=True))
    by_exif = placed.predict(
        [path, path.read_bytes(), photo, Image.open(io.BytesIO(path.read_bytes()))], place="exif"
    )
    expected = placed.at(*HERE, "2023-04-10").predict(path)
    for found in by_exif[:2]:
        assert scores(found) == pytest.approx(scores(expected), abs=1e-4)
    assert [each.prior for each in by_exif] == [True, True, False, False]  # pixels have no EXIF data
    [row] = clips.predict(placed, [inputs.InputPhoto("gps", path)])
    assert scores(row.prediction) == pytest.approx(scores(by_exif[0]), abs=1e-6)
    for known, said in (
        ({"date": "2023-04-10"}, "without a place"),
        ({"date": 100, "place": "exif"}, "without a place"),
        ({"place": "Zürich"}, "A place is 'Zürich'"),
        ({"place": (97, 8)}, "no place at 97"),
        ({"place": HERE, "date": "June"}, "'June' is no date"),
    ):
        with pytest.raises(InputError, match=said):
            placed.predict(photo, **known)
    for place in (HERE, "exif"):
        with pytest.raises(InputError, match="no prior"):
            replace(placed, prior=None).predict(photo, place=place)


def test_a_photo_that_was_cut_off_has_a_note(
    classifier: Classifier, draw: Callable[[int, int], bytes], tmp_path: Path
) -> None:
    file = io.BytesIO()
    Image.open(io.BytesIO(draw(1, 3))).resize((200, 200)).save(file, "JPEG", quality=90)
    data = file.getvalue()
    cut, short = data[: int(0.85 * len(data))], data[: len(data) // 4]
    path = tmp_path / "cut.jpg"
    path.write_bytes(cut)
    [row] = clips.predict(classifier, [inputs.InputPhoto("cut", path)])
    assert row.note == "truncated"
    found = classifier.predict([data, path, cut, io.BytesIO(cut), short], on_error="return")
    assert [getattr(each, "note", "rejected") for each in found] == ["", *["truncated"] * 3, "rejected"]
    for each in found[1:4]:
        assert scores(each) == pytest.approx(scores(row.prediction), abs=1e-4)
    assert classifier.predict(cut, boxes=(0.1, 0.1, 0.5, 0.4)).note == "truncated"
    with pytest.raises(ImageRejected, match="truncated"):
        classifier.predict(cut, boxes=(0.1, 0.95, 0.05, 0.04))
