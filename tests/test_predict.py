"""Prediction: which photos the arguments stand for, and what is printed and written of them."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import polars as pl
import pytest

from fieldmark.data import species_list
from fieldmark.data.taxonomy import Taxon, Taxonomy
from fieldmark.inference import checkpoint, clips, formats, inputs, predictor
from fieldmark.inference.classifier import Answer, Classifier, HigherTaxon, Prediction
from fieldmark.inference.formats import submission, writer_of
from fieldmark.inference.formats.table import COLUMNS, columns
from fieldmark.inference.inputs import InputPhoto
from fieldmark.inference.predictor import PhotoResult
from fieldmark.utils.errors import ImageRejected, InputError, RejectReason


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
    items = inputs.find_photos([folder / "03.jpg", folder])
    assert [item.path.name for item in items][:2] == ["03.jpg", "00.jpg"]
    assert len(items) == 1 + 17
    assert items[0].id is None


def test_a_folder_of_folders_gives_photos_alone(insects: Path, tmp_path: Path) -> None:
    shutil.copy(insects / "Apis mellifera" / "00.jpg", tmp_path / "A.JPG")
    (tmp_path / "notes.txt").write_text("no photo")
    (tmp_path / ".hidden.jpg").write_text("no photo")
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "b.webp").write_text("judged when it is read")
    assert [item.path.name for item in inputs.find_photos([tmp_path])] == ["A.JPG", "b.webp"]


def test_an_annotation_file_gives_its_ids(challenge: Path) -> None:
    items = inputs.find_photos([challenge])
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
def test_what_holds_no_photos_is_one_sentence(tmp_path: Path, argument: str, content: str | None) -> None:
    path = tmp_path / argument
    if argument.endswith("/"):
        path.mkdir()
    elif content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=path.name.split(".", maxsplit=1)[0]) as caught:
        inputs.find_photos([path])
    assert "\n" not in str(caught.value)


def test_every_photo_is_named_in_order_and_a_bad_one_stops_nothing(
    insects: Path, classifier: Classifier
) -> None:
    items = inputs.find_photos([insects])  # more than a batch, and no multiple of it
    found = list(clips.predict(classifier, items, top=2))
    assert [each.photo for each in found] == items
    bad = [each for each in found if each.prediction is None]
    assert [Path(each.photo.name).name for each in bad] == ["broken.jpg"]
    assert bad[0].rejected is not None
    assert bad[0].rejected.reason is RejectReason.TRUNCATED
    for each in found:
        if each.prediction is None:
            continue
        (alone,) = classifier.predict([each.photo.path], top=2)
        assert alone.best.taxon == each.prediction.best.taxon
        assert alone.best.score == pytest.approx(each.prediction.best.score, rel=1e-3)
        assert len(each.prediction.answers) == 2


def test_it_has_learned_them(insects: Path, classifier: Classifier) -> None:
    items = inputs.find_photos([insects / "Danaus plexippus"])
    names = [each.prediction.best.taxon.name for each in clips.predict(classifier, items) if each.prediction]
    assert names.count("Danaus plexippus") >= 14


def test_a_batch_of_bad_photos_and_none_at_all(tmp_path: Path, classifier: Classifier) -> None:
    items = [InputPhoto(str(number), tmp_path / "gone.jpg") for number in range(70)]
    found = list(clips.predict(classifier, items))
    assert [each.photo.name for each in found] == [str(number) for number in range(70)]
    assert all(each.prediction is None for each in found)
    assert list(clips.predict(classifier, [])) == []


AWKWARD = Taxon("7", 'a "comma", and\na line', "été", "", {})
TIT = Taxon("8", "Parus major", "", "", {"kingdom": "Animalia", "genus": "Parus"})
TICK = Taxon("9", "Ixodida", "tick", "", {"kingdom": "Animalia", "order": "Ixodida"})
TAXONOMY = Taxonomy([AWKWARD, TIT, TICK])
KINGDOM = HigherTaxon("kingdom", {"kingdom": "Animalia"}, 0.6)
RESULTS = [
    PhotoResult(
        InputPhoto("a,b.jpg", Path("a,b.jpg"), "12"),
        Prediction((Answer(AWKWARD, 0.75), Answer(TIT, 0.25)), sure=False),
    ),
    PhotoResult(InputPhoto("c\rd.jpg", Path("c")), Prediction((Answer(AWKWARD, 1.0),), sure=True)),
    PhotoResult(
        InputPhoto("tit.jpg", Path("t")),
        Prediction((Answer(TIT, 0.4), Answer(TICK, 0.2)), False, KINGDOM, (KINGDOM,), "because"),
    ),
    PhotoResult(InputPhoto("e.jpg", Path("e")), None, ImageRejected(RejectReason.EMPTY, "no bytes")),
]


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_csv_is_read_back_by_the_standard_reader() -> None:
    found = table("\r\n".join(formats.lines("csv", RESULTS, TAXONOMY, candidates=True)) + "\r\n")
    assert tuple(found[0]) == COLUMNS
    said = [(row["file_name"], row["source"], row["name"], row["rank"]) for row in found]
    assert said == [
        ("a,b.jpg", "not sure", "", "none"),
        ("a,b.jpg", "candidate", AWKWARD.name, "species"),
        ("a,b.jpg", "candidate", "Parus major", "species"),
        ("c\rd.jpg", "species", AWKWARD.name, "species"),
        ("tit.jpg", "rolled up", "Animalia", "kingdom"),
        ("tit.jpg", "candidate", "Parus major", "species"),
        ("tit.jpg", "candidate", "Ixodida", "order"),
        ("e.jpg", "", "", ""),
    ]
    assert [row["score"] for row in found] == [
        *("", "0.750000", "0.250000", "1.000000", "0.600000", "0.400000", "0.200000", "")
    ]
    assert found[1]["common_name"] == "été"
    tit = found[5]
    assert (tit["kingdom"], tit["genus"], tit["species_epithet"], tit["species"]) == (
        *("Animalia", "Parus", "major", "Parus major"),
    )
    assert (found[4]["kingdom"], found[4]["genus"]) == ("Animalia", "")
    assert (found[6]["order"], found[6]["species"]) == ("Ixodida", "")
    assert {row["among"] for row in found[:-1]} == {"3"}
    assert found[-1]["rejected"] == "empty"


def test_json_lines_are_an_object_a_line() -> None:
    lines = list(formats.lines("jsonl", RESULTS, TAXONOMY))
    assert all("\n" not in line for line in lines)
    first, second, third, fourth = (json.loads(line) for line in lines)
    assert (first["file_name"], first["id"], first["sure"]) == ("a,b.jpg", "12", False)
    assert (first["source"], first["rank"], first["name"]) == ("not sure", "none", "")
    assert [label["score"] for label in first["labels"]] == [0.75, 0.25]
    assert first["labels"][0]["name"] == AWKWARD.name
    assert "id" not in second
    assert (third["source"], third["name"], third["reason"]) == ("rolled up", "Animalia", "because")
    assert third["wider"] == [{"rank": "kingdom", "name": "Animalia", "score": 0.6}]
    assert fourth == {"file_name": "e.jpg", "rejected": "empty"}


def test_the_terminal_says_not_sure_and_why_a_photo_is_of_no_use() -> None:
    text = "\n".join(formats.text_lines(RESULTS))
    assert "not sure" in text.split("c\rd.jpg")[0]
    assert "not sure" not in text.split("c\rd.jpg")[1].split("tit.jpg")[0]
    assert "75.0%" in text
    assert "60.0%  kingdom Animalia; the species is not sure:" in text
    assert "cannot be used: empty: no bytes" in text


def test_wide_is_a_row_a_photo_and_a_column_a_label(insects: Path, classifier: Classifier) -> None:
    folder = insects / "Apis mellifera"
    results = list(clips.predict(classifier, inputs.find_photos([folder]), top=1))
    found = table("\r\n".join(formats.lines("csv", results, classifier.taxonomy, wide=True)))
    assert len(found) == 17
    for row, result in zip(found, results, strict=True):
        if result.prediction is None:
            assert row["rejected"] == "truncated"
            continue
        scores = {taxon.name: float(row[taxon.name]) for taxon in classifier.taxa}
        assert sum(scores.values()) == pytest.approx(1, abs=1e-5)
        assert max(scores, key=lambda name: scores[name]) == result.prediction.best.taxon.name


def test_labels_of_one_name_have_columns_of_their_own() -> None:
    twins = Taxonomy([Taxon("1", "a"), Taxon("2", "a"), Taxon("3", "score"), Taxon("4", "b")])
    assert columns(twins, wide=True)[7:] == ("a (1)", "a (2)", "score (3)", "b", "rejected")


def test_patterns_and_lists(insects: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [item.name for item in inputs.find_photos([insects / "*" / "0[0-2].jpg"])]
    assert len(names) == 12
    assert names == [item.name for item in inputs.find_photos([insects / "**" / "0[0-2].jpg"])]
    assert len(inputs.find_photos([insects / "D*"])) == 16  # a folder
    with pytest.raises(InputError, match="matches no photo"):
        inputs.find_photos([insects / "*.tiff"])
    for end in ("\n", "\r\n", "\0"):
        (tmp_path / "list.txt").write_text(end.join([*names, "gone.jpg", ""]))
        for argument in (f"@{tmp_path / 'list.txt'}", "-"):
            text = (tmp_path / "list.txt").open()
            monkeypatch.setattr("sys.stdin", text)
            items = inputs.find_photos([Path(argument)])
            assert [item.name for item in items] == [*names, "gone.jpg"]
            text.close()
    (tmp_path / "list.txt").write_text("\n\n")
    with pytest.raises(InputError, match="names no photo"):
        inputs.read_list(str(tmp_path / "list.txt"))


def test_only_some_labels_are_possible_and_share_the_scores(
    insects: Path, tmp_path: Path, classifier: Classifier
) -> None:
    (tmp_path / "only.txt").write_text(
        "# of this place\napis MELLIFERA\n\n Danaus  plexippus \n", encoding="utf-8-sig"
    )
    names = species_list.read_species_list(tmp_path / "only.txt")
    fewer = classifier.only(names)
    photo = insects / "Bombus terrestris" / "00.jpg"
    (every,), (some,) = classifier.predict([photo], top=9), fewer.predict([photo], top=9)
    p = {answer.taxon.name: answer.score for answer in every.answers}
    whole = p["Apis mellifera"] + p["Danaus plexippus"]
    assert {answer.taxon.name for answer in some.answers} == {"Apis mellifera", "Danaus plexippus"}
    for answer in some.answers:
        assert answer.score == pytest.approx(p[answer.taxon.name] / whole, rel=1e-3)
    with pytest.raises(InputError, match="'Ursus ursus', 'unicorn'"):
        classifier.only(["Ursus ursus", "unicorn"])
    assert classifier.only([*names, "unicorn"]).classes == fewer.classes
    with pytest.raises(InputError, match="at least two"):
        classifier.only(["Apis mellifera"])


def test_the_first_label_can_be_the_one_with_the_least_expected_height(
    insects: Path, tmp_path: Path, classifier: Classifier
) -> None:
    ranked = replace(
        classifier,
        thresholds={},
        ood=None,
        taxonomy=Taxonomy(
            replace(taxon, ranks={"order": "one" if at else "other"})
            for at, taxon in enumerate(classifier.taxonomy)
        ),
    )
    by_height = ranked.decided_by("height")
    p_C = np.full(4, 0.22, np.float32)
    p_C[0] = 0.34  # the likeliest by itself, but all others are relatives of each other
    assert ranked.rank(p_C).best.taxon == ranked.taxa[0]
    prediction = by_height.rank(p_C, top=2)
    assert prediction.best.taxon == ranked.taxa[1]
    assert prediction.answers[1].taxon == ranked.taxa[0]
    assert by_height.digest != ranked.digest
    by_height.save(tmp_path / "model")
    assert Classifier.load(tmp_path / "model").decision == "height"
    with pytest.raises(InputError, match="needs the ranks"):
        replace(ranked, taxonomy=Taxonomy(Taxon(t.id, t.id) for t in ranked.taxa)).decided_by("height")
    with pytest.raises(InputError, match="probable or height"):
        ranked.decided_by("nearest")  # type: ignore[arg-type]


# A file that a later run goes on with


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("suffix", [writer.suffix for writer in formats.WRITERS.values()])
def test_a_run_that_was_cut_off_goes_on_and_gives_the_same_file(
    insects: Path, tmp_path: Path, classifier: Classifier, suffix: str, wide: bool
) -> None:
    if wide and not writer_of(Path(f"a{suffix}"), wide=False).wide:
        with pytest.raises(InputError, match="--wide"):
            checkpoint.to_file(tmp_path / f"a{suffix}", classifier, [], wide=True)
        return
    items = inputs.find_photos([insects])
    whole, cut = tmp_path / f"whole{suffix}", tmp_path / f"cut{suffix}"
    assert checkpoint.to_file(whole, classifier, items, wide=wide) == 1
    assert checkpoint.to_file(cut, classifier, items[:40], wide=wide) == 1
    journal = cut.with_name(f"{cut.name}.journal")
    about, *lines = journal.read_bytes().splitlines(keepends=True)
    lines.sort(key=lambda line: b' {"written"' not in line)  # as a run begins that is then killed
    journal.write_bytes(b"".join([about, *lines])[:-150])  # a kill tore the last line
    asked = []
    kept = classifier.rank
    object.__setattr__(classifier, "rank", lambda *given: asked.append(1) or kept(*given))
    try:
        checkpoint.to_file(cut, classifier, items, wide=wide)
    finally:
        object.__delattr__(classifier, "rank")
    assert len(asked) == 64 - 38  # the torn one again, the broken one is still of no use
    for path in (whole, cut):
        assert len(content(path)) == len(content(whole))
    assert sorted(content(whole)) == sorted(content(cut))


def test_a_damaged_journal_costs_its_damaged_lines_alone(
    insects: Path, tmp_path: Path, classifier: Classifier
) -> None:
    items, out = inputs.find_photos([insects])[:12], tmp_path / "a.jsonl"
    checkpoint.to_file(out, classifier, items)
    whole = sorted(line["file_name"] for line in map(json.loads, out.read_text().splitlines()))
    journal = tmp_path / "a.jsonl.journal"
    about, *lines = journal.read_bytes().splitlines(keepends=True)
    deep = b"[" * 100_000 + b"]" * 100_000 + b"\n"
    odd = [b"null\n", b"[]\n", b"{}\n", b"\xff\n", deep, lines[3].replace(b"file_name", b"file_nama")]
    lone = lines[4].replace(b'"file_name": "', b'"file_name": "\\ud800')
    flipped = bytearray(lines[0])
    flipped[lines[0].index(b"file_name") + 13] ^= 1
    journal.write_bytes(b"".join([about, bytes(flipped), *odd, lone, *lines[1:3], *lines[5:]]))
    checkpoint.to_file(out, classifier, items)
    assert sorted(line["file_name"] for line in map(json.loads, out.read_text().splitlines())) == whole


def content(path: Path) -> list[str]:
    """The rows of a file without their scores, which differ in the last digit by the batch."""
    if path.suffix == ".parquet":
        found: list[dict[str, Any]] = pl.read_parquet(path).to_dicts()
    elif path.suffix == ".csv":
        found = table(path.read_bytes().decode("utf-8-sig"))
    elif path.suffix == ".xlsx":
        rows = [list(row) for row in openpyxl.load_workbook(path).active.iter_rows(values_only=True)]
        found = [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]
    elif path.name == "datapackage.json":
        return sorted(
            f"{row['mediaID']} {row['deploymentID'][-9:]}"
            for row in table(path.with_name("observations.csv").read_text())
        )
    elif path.suffix == ".json":
        whole = json.loads(path.read_text())
        found = whole["predictions"] if "predictions" in whole else whole["images"]
    else:
        found = [json.loads(line) for line in path.read_text().splitlines()]
    keys = ("filepath", "file", "failure", "prediction", "file_name", "source", "name", "rank", "rejected")
    keys += ("file", "sure", "note")
    return [json.dumps([row.get(key) or "" for key in keys]) for row in found]


def test_another_classifier_begins_anew_and_a_changed_photo_is_named_again(
    insects: Path, tmp_path: Path, classifier: Classifier, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "mine", tmp_path / "out.csv"
    shutil.copytree(insects / "Danaus plexippus", folder)
    items = inputs.find_photos([folder])
    checkpoint.to_file(out, classifier, items)
    before = out.read_bytes()
    checkpoint.to_file(out, classifier, items)
    assert "16 photos were predicted before" in capsys.readouterr().err
    assert out.read_bytes() == before
    shutil.copy(insects / "Apis mellifera" / "00.jpg", folder / "00.jpg")
    checkpoint.to_file(out, classifier, items)
    assert "15 photos were predicted before" in capsys.readouterr().err
    checkpoint.to_file(out, classifier.only(["Apis mellifera", "Danaus plexippus"]), items)
    assert "predicted again" in capsys.readouterr().err
    assert {row["third"] for row in table(out.read_bytes().decode("utf-8-sig"))} == {""}


def test_a_file_of_something_else_is_not_written_over(tmp_path: Path, classifier: Classifier) -> None:
    (tmp_path / "thesis.csv").write_text("years of work")
    with pytest.raises(InputError, match="thesis"):
        checkpoint.to_file(tmp_path / "thesis.csv", classifier, [])
    assert (tmp_path / "thesis.csv").read_text() == "years of work"


def test_a_name_that_is_no_unicode_can_be_printed(
    insects: Path, tmp_path: Path, classifier: Classifier
) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jpg"))
    try:
        shutil.copy(insects / "Apis mellifera" / "00.jpg", odd)
    except OSError:
        pytest.skip("this file system takes no such name")
    for argument in (tmp_path, odd):
        found = list(clips.predict(classifier, inputs.find_photos([argument])))
        assert found[0].prediction is not None
        for form in ("text", "csv", "jsonl"):
            text = "\n".join(formats.lines(form, found, classifier.taxonomy))
            assert "caf\\xe9.jpg" in text.replace("\\\\", "\\")
            text.encode()


def test_a_submission_has_one_row_for_each_image_id(
    challenge: Path, tmp_path: Path, classifier: Classifier, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also for a photo that is damaged or not there: it gets the first class, and this is said."""
    items = inputs.find_photos([challenge])
    found = list(clips.predict(classifier, items))
    submission.write_submission(tmp_path / "out" / "s.csv", found, classifier)
    rows = list(csv.DictReader((tmp_path / "out" / "s.csv").read_text().splitlines()))
    read_list = [str(image["id"]) for image in json.loads(challenge.read_text())["images"]]
    assert [row["id"] for row in rows] == read_list
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
    items = inputs.find_photos([twice])
    assert [item.id for item in items] == ["4000", "3993", "3986"]


def test_a_submission_needs_ids_and_says_so_before_any_work(challenge: Path, insects: Path) -> None:
    with pytest.raises(InputError, match="no image id"):
        submission.check_submission(inputs.find_photos([challenge, insects]))
    with pytest.raises(InputError, match="of another photo"):
        submission.check_submission(inputs.find_photos([challenge, challenge]))


def test_progress_changes_nothing(classifier: Classifier, insects: Path) -> None:
    items = inputs.find_photos([insects])
    plain = [each.photo for each in clips.predict(classifier, items)]
    shown = predictor.with_progress(clips.predict(classifier, items), len(items))
    assert [each.photo for each in shown] == plain
