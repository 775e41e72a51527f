"""Boxes, places and dates with a request: the server says what `predict` says of the same classifier."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from fieldmark.data.locations import Locations
from fieldmark.evaluation.location_prior import KernelPrior, LocationRule
from fieldmark.inference import clips, formats, inputs
from fieldmark.inference.classifier import Classifier
from fieldmark.inference.classifier.location import LocationPrior
from fieldmark.inference.inputs import Boxes
from fieldmark.serving.config import ServeConfig

HERE, THERE = (47.0, 8.0), (52.0, 13.5)
SEEN = [
    {"category": "1", "conf": 0.5, "bbox": [0.1, 0.2, 0.5, 0.6]},
    {"category": "2", "conf": 0.95, "bbox": [0.0, 0.0, 0.3, 0.3]},
    {"category": "1", "conf": 0.9, "bbox": [0.4, 0.3, 0.4, 0.3]},
    {"category": "1", "conf": 0.1, "bbox": [0.4, 0.3, 0.4, 0.3]},
    {"category": "1", "conf": 0.8, "bbox": [1.2, 0.3, 0.1, 0.1]},
]


@pytest.fixture(scope="module")
def placed(classifier: Classifier) -> Classifier:
    """The first label lives here alone, the second there alone; a list has the first and the last."""
    rows = np.repeat([[*HERE, 100], [*THERE, 100]], 50, axis=0)
    kernel = KernelPrior(Locations.of(rows), np.repeat([0, 1], 50), len(classifier.taxa))
    prior = LocationPrior(kernel, LocationRule(1.0))
    found = replace(classifier, temperature=30.0, thresholds={}, ood=None, prior=prior)
    return found.favouring([found.classes[0], found.classes[-1]], "park")


@pytest.fixture(scope="module")
def server(running: Any, placed: Classifier) -> Iterator[Any]:
    with running(placed, ServeConfig(decoders=1, queue=8)) as server:
        yield server


@pytest.fixture
def post(server: Any) -> Iterator[Callable[..., Any]]:
    with httpx.Client(base_url=server.url, timeout=60) as web:
        yield lambda path="/v1/predict", **more: web.post(path, **more)


@pytest.fixture
def photos(tmp_path: Path, draw: Callable[[int, int], bytes]) -> list[Path]:
    """A plain photo; one on its side with a place; one that was cut off."""
    exif = Image.Exif()
    exif[0x0112] = 6
    exif.get_ifd(0x8825).update({1: "N", 2: (47.0, 0.0, 0.0), 3: "E", 4: (8.0, 0.0, 0.0)})
    exif.get_ifd(0x8769)[0x9003] = "2023:04:10 12:00:00"
    picture = Image.open(io.BytesIO(draw(1, 40))).resize((240, 180))
    paths = [tmp_path / name for name in ("plain.jpg", "turned.jpg", "cut.jpg")]
    picture.save(paths[0], quality=92)
    picture.save(paths[1], exif=exif, quality=92)
    data = paths[0].read_bytes()
    paths[2].write_bytes(data[: int(0.8 * len(data))])
    return paths


def form(paths: list[Path]) -> list[tuple[str, tuple[str, bytes]]]:
    return [("photo", (path.name, path.read_bytes())) for path in paths]


def scores(labels: Any) -> dict[str, float]:
    return {each["taxon_id"]: each["score"] for each in labels}


def expected(classifier: Classifier, paths: list[Path], boxes: Path | None = None) -> list[Any]:
    """The records of the command `predict`."""
    items = inputs.find_photos(paths)
    if boxes:
        items = inputs.at_boxes(items, Boxes.read(boxes, None, None))
    lines = formats.lines("jsonl", clips.predict(classifier, items), classifier.taxonomy)
    return [json.loads(line) for line in lines]


def test_photos_get_the_answers_of_predict_with_their_own_places(
    post: Callable[..., Any], placed: Classifier, photos: list[Path]
) -> None:
    found = post(files=form(photos)).json()["photos"]
    for entry, record in zip(found, expected(placed, photos), strict=True):
        assert scores(entry["labels"]) == pytest.approx(scores(record["labels"]), abs=1e-4)
        assert entry["answer"]["reason"] == record["reason"]
        assert entry.get("note") == record.get("note")
    assert [each["prior"]["used"] for each in found] == [False, True, False]
    assert found[0]["prior"]["reason"] == "the photo has no place"
    assert "EXIF" in found[1]["prior"]["reason"]
    assert found[2]["note"] == "truncated"


def test_a_place_and_a_date_in_the_address_or_the_form(
    post: Callable[..., Any], placed: Classifier, photos: list[Path]
) -> None:
    where = {"lat": THERE[0], "lon": THERE[1], "date": "2023-04-10"}
    [record] = expected(placed.at(*THERE, "2023-04-10"), photos[1:2])
    data = photos[1].read_bytes()
    for answer in (post(params=where, content=data), post(data=where, files=form(photos[1:2]))):
        [entry] = answer.json()["photos"]
        assert scores(entry["labels"]) == pytest.approx(scores(record["labels"]), abs=1e-4)
        assert entry["prior"] == {"used": True, "reason": "the place is that of the request"}
    [off] = post(params={"prior": "off"}, content=data).json()["photos"]
    [plain] = expected(replace(placed, prior=None), photos[1:2])
    assert scores(off["labels"]) == pytest.approx(scores(plain["labels"]), abs=1e-4)
    assert not off["prior"]["used"]


def test_each_box_has_the_answer_of_predict(
    post: Callable[..., Any], placed: Classifier, photos: list[Path], tmp_path: Path
) -> None:
    document = {
        "images": [
            {"file": f"E:/site/{path.name}", "detections": SEEN if number < 2 else SEEN[:1]}
            for number, path in enumerate(photos)
        ],
        "detection_categories": {"1": "animal", "2": "person", "3": "vehicle"},
    }
    file = tmp_path / "boxes.json"
    file.write_text(json.dumps(document))
    found = post(files=form(photos), data={"boxes": json.dumps(document)}).json()["photos"]
    records = expected(placed, photos, file)
    for entry in found:
        assert entry["kind"] == "animal"
        assert "answer" not in entry
        mine = [each for each in records if each["file_name"].endswith(entry["name"])]
        answered = [each for each in entry["boxes"] if "answer" in each]
        assert len(answered) == len([each for each in mine if "rejected" not in each])
        for box in answered:
            [record] = [each for each in mine if each["detection"]["box"] == box["bbox"]]
            assert scores(box["labels"]) == pytest.approx(scores(record["labels"]), abs=1e-4)
            assert box["answer"]["reason"] == record["reason"]
    first = found[0]["boxes"]
    assert [each["category"] for each in first] == ["animal", "human", "animal", "animal", "animal"]
    assert ["answer" in each for each in first] == [True, False, True, False, False]
    assert first[4]["error"]["code"] == "outside"
    assert found[2]["note"] == "truncated"
    low = post(files=form(photos[:1]), data={"boxes": json.dumps(SEEN[:4]), "box_threshold": "0.05"}).json()
    assert ["answer" in each for each in low["photos"][0]["boxes"]] == [True, False, True, True]


@pytest.mark.parametrize(
    ("seen", "kind"),
    [
        ([], "blank"),
        ([SEEN[1]], "human"),
        ([SEEN[3]], "blank"),
        ([{**SEEN[1], "category": "3"}, {**SEEN[1], "conf": 0.3}], "vehicle"),
    ],
)
def test_photos_without_an_animal(post: Callable[..., Any], photos: list[Path], seen: Any, kind: str) -> None:
    answer = post(params={"boxes": json.dumps(seen)}, content=photos[0].read_bytes())
    [entry] = answer.json()["photos"]
    assert entry["kind"] == kind
    assert len(entry["boxes"]) == len(seen)
    assert not any("answer" in each for each in entry["boxes"])
    assert (entry["width"], entry["height"]) == (240, 180)


@pytest.mark.parametrize(
    ("params", "code", "said"),
    [
        ({"lat": 47}, "bad-parameter", "both lat and lon"),
        ({"lat": 97, "lon": 1}, "bad-parameter", "lat is invalid"),
        ({"lat": 47, "lon": 8, "date": "June"}, "bad-parameter", "'June' is no date"),
        ({"lat": 47, "lon": 8, "prior": "off"}, "bad-parameter", "for the prior"),
        ({"prior": "maybe"}, "bad-parameter", "prior is invalid"),
        ({"box_threshold": 0.3}, "bad-parameter", "without boxes"),
        ({"boxes": "{"}, "bad-boxes", "no JSON"),
        ({"boxes": "[" * 100_000}, "bad-boxes", "no JSON"),
        ({"boxes": "7"}, "bad-boxes", "has no boxes"),
        ({"boxes": '[{"category": "1", "bbox": [0, 0, 0, 1]}]'}, "bad-boxes", "more than 0"),
        ({"boxes": '[{"category": "1", "conf": NaN, "bbox": [0, 0, 1, 1]}]'}, "bad-boxes", "from 0 to 1"),
        ({"boxes": '{"images": [{"file": "other.jpg", "detections": []}]}'}, "bad-boxes", "other photos"),
        (
            {"boxes": json.dumps([SEEN[0] | {"bbox": [n / 20, 0, 0.2, 1]} for n in range(9)])},
            "too-many-boxes",
            "At most 8 boxes",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(
    post: Callable[..., Any], photos: list[Path], params: dict[str, Any], code: str, said: str
) -> None:
    answer = post(data={name: str(value) for name, value in params.items()}, files=form(photos[:1]))
    assert answer.status_code in (400, 413)
    assert answer.json()["error"]["code"] == code
    assert said in answer.json()["error"]["message"]


def test_a_classifier_without_a_prior_and_other_routes(
    running: Any, placed: Classifier, photos: list[Path], post: Callable[..., Any]
) -> None:
    for route in ("similar", "heat-map"):
        answer = post(f"/v1/{route}", files=form(photos[:1]), data={"boxes": "[]"})
        assert answer.status_code == 400
        assert "for /v1/predict alone" in answer.json()["error"]["message"]
    with running(replace(placed, prior=None), ServeConfig(decoders=1)) as server:
        data = photos[1].read_bytes()
        about = httpx.get(f"{server.url}/v1/model").json()
        assert about["offers"]["prior"] is False
        assert about["species_list"] == {"name": "park", "classes": 2}
        [entry] = httpx.post(f"{server.url}/v1/predict", content=data).json()["photos"]
        assert "prior" not in entry
        refused = httpx.post(f"{server.url}/v1/predict", params={"lat": 1, "lon": 2}, content=data)
        assert "no prior of places" in refused.json()["error"]["message"]
