"""Prediction: which photos the arguments stand for, and what is printed and written of them."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from fieldmark import predict
from fieldmark.classifier import Answer, Classifier, Prediction
from fieldmark.errors import ImageRejected, InputError, RejectReason
from fieldmark.predict import Item, Named
from fieldmark.taxonomy import Taxon


@pytest.fixture(autouse=True)
def cache(model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The model's own cache: the network is converted once for all tests here."""
    monkeypatch.setenv("FIELDMARK_CACHE", str(model.parent / "cache"))
    return model.parent / "cache"


@pytest.fixture(scope="module")
def classifier(model: Path) -> Classifier:
    return Classifier.load(model)


def annotations(folder: Path, images: list[dict[str, Any]], name: str = "test2019.json") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps({"info": {}, "images": images}))
    return folder / name


@pytest.fixture
def challenge(insects: Path, tmp_path: Path) -> Path:
    """A list of photos without labels: good ones, one cut off, one that is not there."""
    photos = sorted(insects.rglob("*.jpg"))[8:20]  # the broken one is among them
    images = []
    for number, path in enumerate(photos):
        name = f"test2019/{number:03}.jpg"
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / name)
        images.append({"id": 4000 - 7 * number, "file_name": name, "width": 64, "height": 64})
    images.append({"id": 9, "file_name": "test2019/gone.jpg", "width": 64, "height": 64})
    return annotations(tmp_path, images)


def test_files_and_folders(insects: Path) -> None:
    folder = insects / "Apis mellifera"
    items = predict.items_of([folder / "03.jpg", folder])
    assert [item.path.name for item in items][:2] == ["03.jpg", "00.jpg"]
    assert len(items) == 1 + 17
    assert items[0].id is None


def test_a_folder_of_folders_gives_photos_alone(insects: Path, tmp_path: Path) -> None:
    shutil.copy(insects / "Apis mellifera" / "00.jpg", tmp_path / "A.JPG")
    (tmp_path / "notes.txt").write_text("no photo")
    (tmp_path / ".hidden.jpg").write_text("no photo")
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "b.webp").write_text("judged when it is read")
    assert [item.path.name for item in predict.items_of([tmp_path])] == ["A.JPG", "b.webp"]


def test_an_annotation_file_gives_its_ids(challenge: Path) -> None:
    items = predict.items_of([challenge])
    assert [item.id for item in items][:3] == ["4000", "3993", "3986"]
    assert items[-1].id == "9"
    assert items[0].path == challenge.parent / "test2019" / "000.jpg"


@pytest.mark.parametrize(
    ("argument", "content"),
    [
        ("nowhere.jpg", None),
        ("nowhere", None),
        ("list.json", "[1, 2"),
        ("list.json", "{}"),
        ("list.json", "[]"),
        ("list.json", '{"images": 7}'),
        ("list.json", '{"images": [7]}'),
        ("list.json", '{"images": [{"id": 1}]}'),
        ("list.json", '{"images": [{"file_name": "a.jpg"}]}'),
        ("list.json", '{"images": []}'),
        ("list.json.gz", "not compressed"),
        ("empty/", ""),
    ],
)
def test_what_holds_no_photos_is_one_sentence(
    tmp_path: Path, argument: str, content: str | None
) -> None:
    path = tmp_path / argument
    if argument.endswith("/"):
        path.mkdir()
    elif content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=path.name.split(".", maxsplit=1)[0]) as caught:
        predict.items_of([path])
    assert "\n" not in str(caught.value)


def test_every_photo_is_named_in_order_and_a_bad_one_stops_nothing(
    insects: Path, classifier: Classifier
) -> None:
    items = predict.items_of([insects])  # more than a batch, and no multiple of it
    found = list(predict.predict(classifier, items, top=2))
    assert [each.item for each in found] == items
    bad = [each for each in found if each.prediction is None]
    assert [Path(each.item.name).name for each in bad] == ["broken.jpg"]
    assert bad[0].rejected is not None
    assert bad[0].rejected.reason is RejectReason.TRUNCATED
    for each in found:
        if each.prediction is None:
            continue
        (alone,) = classifier.predict([each.item.path], top=2)
        assert alone.best.taxon == each.prediction.best.taxon
        assert alone.best.score == pytest.approx(each.prediction.best.score, rel=1e-3)
        assert len(each.prediction.answers) == 2


def test_it_has_learned_them(insects: Path, classifier: Classifier) -> None:
    items = predict.items_of([insects / "Danaus plexippus"])
    names = [
        each.prediction.best.taxon.name
        for each in predict.predict(classifier, items)
        if each.prediction
    ]
    assert names.count("Danaus plexippus") >= 14


def test_a_batch_of_bad_photos_and_none_at_all(tmp_path: Path, classifier: Classifier) -> None:
    items = [Item(str(number), tmp_path / "gone.jpg") for number in range(70)]
    found = list(predict.predict(classifier, items))
    assert [each.item.name for each in found] == [str(number) for number in range(70)]
    assert all(each.prediction is None for each in found)
    assert list(predict.predict(classifier, [])) == []


AWKWARD = Taxon("7", 'a "comma", and\na line', "été", "", {})
RESULTS = [
    Named(
        Item("a,b.jpg", Path("a,b.jpg"), "12"),
        Prediction((Answer(AWKWARD, 0.75), Answer(Taxon("8", "Parus major"), 0.25)), sure=False),
    ),
    Named(Item("c\rd.jpg", Path("c")), Prediction((Answer(AWKWARD, 1.0),), sure=True)),
    Named(Item("e.jpg", Path("e")), None, ImageRejected(RejectReason.EMPTY, "no bytes")),
]


def test_csv_is_read_back_by_the_standard_reader() -> None:
    text = "\r\n".join(predict.as_csv(RESULTS)) + "\r\n"
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [row["file_name"] for row in rows] == ["a,b.jpg", "a,b.jpg", "c\rd.jpg", "e.jpg"]
    assert [row["rank"] for row in rows] == ["1", "2", "1", ""]
    assert rows[0]["name"] == AWKWARD.name
    assert rows[0]["common_name"] == "été"
    assert [float(row["score"]) for row in rows[:2]] == [0.75, 0.25]
    assert [row["sure"] for row in rows] == ["false", "", "true", ""]
    assert rows[3]["rejected"] == "empty"


def test_json_lines_are_an_object_a_line() -> None:
    lines = list(predict.as_json_lines(RESULTS))
    assert all("\n" not in line for line in lines)
    first, second, third = (json.loads(line) for line in lines)
    assert (first["file_name"], first["id"], first["sure"]) == ("a,b.jpg", "12", False)
    assert [label["score"] for label in first["labels"]] == [0.75, 0.25]
    assert first["labels"][0]["name"] == AWKWARD.name
    assert "id" not in second
    assert third == {"file_name": "e.jpg", "rejected": "empty"}


def test_the_terminal_says_not_sure_and_why_a_photo_is_of_no_use() -> None:
    text = "\n".join(predict.as_text(RESULTS))
    assert "not sure" in text.split("c\rd.jpg")[0]
    assert "not sure" not in text.split("c\rd.jpg")[1]
    assert "75.0%" in text
    assert "cannot be used: empty: no bytes" in text


def test_a_name_that_is_no_unicode_can_be_printed(
    insects: Path, tmp_path: Path, classifier: Classifier
) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jpg"))
    try:
        shutil.copy(insects / "Apis mellifera" / "00.jpg", odd)
    except OSError:
        pytest.skip("this file system takes no such name")
    for argument in (tmp_path, odd):
        found = list(predict.predict(classifier, predict.items_of([argument])))
        assert found[0].prediction is not None
        for form in predict.FORMATS.values():
            assert "caf\\xe9.jpg" in "\n".join(form(found)).replace("\\\\", "\\")
            "\n".join(form(found)).encode()


def test_a_submission_has_one_row_for_each_image_id(
    challenge: Path, tmp_path: Path, classifier: Classifier, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also for a photo that is damaged or not there: it gets the first class, and this is said."""
    items = predict.items_of([challenge])
    found = list(predict.predict(classifier, items))
    predict.write_submission(tmp_path / "out" / "s.csv", found, classifier)
    rows = list(csv.DictReader((tmp_path / "out" / "s.csv").read_text().splitlines()))
    listed = [str(image["id"]) for image in json.loads(challenge.read_text())["images"]]
    assert [row["id"] for row in rows] == listed
    assert {row["predicted"] for row in rows} <= {taxon.id for taxon in classifier.taxa}
    assert sum(each.prediction is None for each in found) == 2
    assert rows[-1]["predicted"] == classifier.taxa[0].id
    said = capsys.readouterr().err
    assert "gone.jpg: missing" in said
    assert "truncated" in said


def test_an_id_that_is_listed_twice_gets_one_row(
    challenge: Path, tmp_path: Path, classifier: Classifier
) -> None:
    images = json.loads(challenge.read_text())["images"]
    twice = annotations(tmp_path, [*images[:3], {**images[3], "id": images[0]["id"]}], "twice.json")
    items = predict.items_of([twice])
    assert [item.id for item in items] == ["4000", "3993", "3986"]


def test_a_submission_needs_ids_and_says_so_before_any_work(challenge: Path, insects: Path) -> None:
    with pytest.raises(InputError, match="no image id"):
        predict.check_submission(predict.items_of([challenge, insects]))
    with pytest.raises(InputError, match="of another photo"):
        predict.check_submission(predict.items_of([challenge, challenge]))


def test_progress_changes_nothing(classifier: Classifier, insects: Path) -> None:
    items = predict.items_of([insects])
    plain = [each.item for each in predict.predict(classifier, items)]
    shown = predict.with_progress(predict.predict(classifier, items), len(items))
    assert [each.item for each in shown] == plain
