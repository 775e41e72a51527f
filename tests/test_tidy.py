"""The table for people: a row a photo, for spreadsheets; and files of theirs that are not written over."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from fieldmark.data.detections import Detection
from fieldmark.data.storage.places import Box
from fieldmark.data.taxonomy import Taxon, Taxonomy
from fieldmark.inference import checkpoint, clips, inputs
from fieldmark.inference.classifier import Answer, Classifier, HigherTaxon, Prediction
from fieldmark.inference.formats import FormatOptions, tidy, writer_of
from fieldmark.inference.inputs import InputPhoto
from fieldmark.inference.predictor import PhotoResult
from fieldmark.inference.record import to_record
from fieldmark.utils.errors import ImageRejected, InputError, RejectReason

FORMULA = Taxon("1", "=1+1", "été", "", {})
TIT, TICK = Taxon("2", "Parus major", "great tit"), Taxon("3", "Ixodes ricinus")
TAXONOMY = Taxonomy([FORMULA, TIT, TICK])
KINGDOM = HigherTaxon("kingdom", {"kingdom": "Animalia"}, 0.962)
GONE = Path("gone.jpg")
RESULTS = [
    PhotoResult(
        InputPhoto("a/1.jpg", GONE, taken="2024-05-03T07:08:09Z", latitude=47.25, longitude=-8.5),
        Prediction((Answer(TIT, 0.75), Answer(TICK, 0.2), Answer(FORMULA, 0.05)), sure=True),
    ),
    PhotoResult(
        InputPhoto("a/2.jpg", GONE, taken="2024-05-03", location="-hide"),
        Prediction((Answer(FORMULA, 0.4), Answer(TIT, 0.3)), False, KINGDOM, (KINGDOM,), "because"),
    ),
    PhotoResult(InputPhoto("b.jpg", GONE), Prediction((Answer(TIT, 1.0),), False)),
    PhotoResult(InputPhoto("c.jpg", GONE), None, ImageRejected(RejectReason.EMPTY, "no bytes")),
    PhotoResult(
        InputPhoto("d.jpg", GONE, detection=Detection(Box(0, 0, 0.5, 0.5), "human", 0.93), kind="human"), None
    ),
    PhotoResult(InputPhoto("e.jpg", GONE, kind="blank"), None),
]
RECORDS = [to_record(each, 3) for each in RESULTS]


@pytest.fixture(autouse=True)
def cache(model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIELDMARK_CACHE", str(model.parent / "cache"))
    return model.parent / "cache"


def rows_of_csv(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline="")))


def sheet_of(path: Path) -> Any:
    return openpyxl.load_workbook(path).active


def test_a_row_has_the_best_name_and_whether_it_is_sure() -> None:
    sure, rolled, not_sure, bad, human, blank = map(tidy.row_of, RECORDS)
    assert tuple(sure) == tidy.COLUMNS
    assert sure["date"] == datetime(2024, 5, 3, 7, 8, 9)
    assert (sure["name"], sure["common_name"], sure["score"], sure["sure"]) == (
        *("Parus major", "great tit", 0.75, "yes"),
    )
    assert (sure["second"], sure["second_score"], sure["third_score"]) == ("Ixodes ricinus", 0.2, 0.05)
    assert (sure["place"], sure["latitude"], sure["longitude"], sure["note"]) == ("a", 47.25, -8.5, None)
    assert (rolled["name"], rolled["sure"], rolled["note"]) == (
        *("=1+1", "no", "sure of the kingdom Animalia (96.2%)"),
    )
    assert (rolled["date"].isoformat(), rolled["place"], rolled["third"]) == ("2024-05-03", "-hide", None)
    assert (not_sure["name"], not_sure["sure"], not_sure["note"]) == ("Parus major", "no", None)
    assert (bad["name"], bad["sure"], bad["note"]) == (None, None, "cannot be used: empty")
    assert (human["name"], human["score"], human["sure"]) == ("human", 0.93, "yes")
    assert (blank["name"], blank["score"], blank["note"]) == ("blank", None, "no animal in a box")
    event: Any = {"photos": ["a.jpg"], "start": "", "end": "", "place": "a", "count": 0, "also": []}
    visit = tidy.row_of({"file_name": "a.jpg", "kind": "vehicle", "event": event})
    assert (visit["name"], visit["note"]) == ("vehicle", "by its box")


def test_csv_opens_in_spreadsheets_and_runs_no_formula(tmp_path: Path) -> None:
    path = tmp_path / "n.csv"
    writer_of(path, wide=False).write(path, RECORDS, FormatOptions(TAXONOMY, boxes=0.2))
    assert path.read_bytes().startswith(b"\xef\xbb\xbffile,name,")
    found = rows_of_csv(path)
    assert [row["name"] for row in found] == [*("Parus major", "'=1+1", "Parus major", "", "human", "blank")]
    assert found[0]["date"] == "2024-05-03 07:08:09"
    assert (found[0]["latitude"], found[0]["longitude"], found[2]["score"]) == ("47.25", "-8.5", "1")
    assert found[1]["place"] == "'-hide"
    assert (found[4]["detected"], found[4]["width"]) == ("human", "0.5")


def test_an_excel_sheet_has_texts_dates_and_a_first_row_that_stays(tmp_path: Path) -> None:
    path = tmp_path / "n.xlsx"
    writer_of(path, wide=False).write(path, RECORDS, FormatOptions(TAXONOMY))
    sheet = sheet_of(path)
    assert (sheet.freeze_panes, sheet.auto_filter.ref) == ("A2", "A1:Q7")
    names = [cell.value for cell in sheet[1]]
    assert tuple(names) == tidy.COLUMNS
    date, day = (sheet.cell(row, names.index("date") + 1) for row in (2, 3))
    assert date.is_date
    assert (date.value, day.value) == (datetime(2024, 5, 3, 7, 8, 9), datetime(2024, 5, 3))
    formula = sheet.cell(3, 2)
    assert (formula.value, formula.data_type) == ("=1+1", "s")
    assert sheet.cell(2, 4).number_format == "0.0%"
    assert sheet.column_dimensions["B"].width > len("Parus major")


def test_a_sheet_that_would_be_too_long_is_refused_before_any_work(
    tmp_path: Path, classifier: Classifier
) -> None:
    items = [InputPhoto("a", GONE)] * 1_048_576
    with pytest.raises(InputError, match=r"use \.csv"):
        checkpoint.to_file(tmp_path / "n.xlsx", classifier, items)
    assert list(tmp_path.iterdir()) == []


def test_candidates_have_rows_of_their_own_on_request(
    photos: Path, model: Path, tmp_path: Path, run: Callable[..., Any]
) -> None:
    given = (model, photos, "--top", 2, "--out", tmp_path / "n.csv")
    assert run("predict", *given).code == 0
    assert len(rows_of_csv(tmp_path / "n.csv")) == 16
    done = run("predict", *given, "--candidates")  # of the same journal
    assert (done.code, "16 photos were predicted before" in done.err) == (0, True)
    assert {row["source"] for row in rows_of_csv(tmp_path / "n.csv")} > {"candidate"}
    for more, said in (
        (("--wide", "--candidates"), "leave one of them out"),
        (("--overwrite",), "--overwrite is for a file"),
        (("--candidates",), "needs a table"),
        (("--candidates", "--out", tmp_path / "n.jsonl"), "--candidates is a row a label"),
    ):
        done = run("predict", model, photos, *more)
        assert done.code == 2
        assert said in done.err


def test_a_file_that_was_edited_is_left(
    photos: Path, tmp_path: Path, classifier: Classifier, model: Path, run: Callable[..., Any]
) -> None:
    items, out = inputs.find_photos([photos]), tmp_path / "names.csv"
    checkpoint.to_file(out, classifier, items[:4])
    checkpoint.to_file(out, classifier, items)  # more photos: it is as it was written
    corrected = out.read_text(encoding="utf-8-sig").replace("Apis mellifera", "Apis cerana")
    out.write_text(corrected)
    done = run("predict", model, photos, "--out", out)
    assert done.code == 2
    assert "names.csv was changed since it was written" in done.err
    assert "names-2.csv" in done.err
    assert out.read_text() == corrected
    assert run("predict", model, photos, "--out", out, "--overwrite").code == 0
    assert "cerana" not in out.read_text()
    checkpoint.to_file(out, classifier, items)  # is again as it was written


def test_an_edit_while_photos_are_named_is_left_too(
    photos: Path, tmp_path: Path, classifier: Classifier
) -> None:
    items, out = inputs.find_photos([photos]), tmp_path / "names.xlsx"
    checkpoint.to_file(out, classifier, items[:4])

    def edits(*given: Any) -> Any:
        out.write_bytes(b"my sheet")
        return clips.predict(*given)

    with pytest.raises(InputError, match="changed since"):
        checkpoint.to_file(out, classifier, items, name=edits)
    assert out.read_bytes() == b"my sheet"
    out.unlink()
    checkpoint.to_file(out, classifier, items)  # nothing was lost
    assert sheet_of(out).max_row == 17


def test_a_kill_before_the_file_has_its_name_costs_nothing(
    photos: Path, tmp_path: Path, classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    items, out = inputs.find_photos([photos]), tmp_path / "names.csv"
    checkpoint.to_file(out, classifier, items[:4])
    before = out.read_bytes()

    def killed(self: Path, target: Path) -> Path:
        if target == out:
            raise KeyboardInterrupt
        return replace(self, target)

    replace = Path.replace
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            checkpoint.to_file(out, classifier, items)
    assert out.read_bytes() == before
    checkpoint.to_file(out, classifier, items)
    assert len(rows_of_csv(out)) == 16


def test_an_edited_table_of_a_package_is_left(photos: Path, tmp_path: Path, classifier: Classifier) -> None:
    items, out = inputs.find_photos([photos])[:3], tmp_path / "p" / "datapackage.json"
    checkpoint.to_file(out, classifier, items)
    about = json.loads(out.read_text())
    out.write_text(json.dumps(about | {"title": "mine"}))  # what it says is kept
    checkpoint.to_file(out, classifier, items)
    assert json.loads(out.read_text())["title"] == "mine"
    (out.parent / "observations.csv").write_text("verified by me")
    with pytest.raises(InputError, match=r"observations\.csv was changed"):
        checkpoint.to_file(out, classifier, items)
    assert (out.parent / "observations.csv").read_text() == "verified by me"


def test_photos_that_cannot_be_used_are_named(
    photos: Path, tmp_path: Path, model: Path, run: Callable[..., Any]
) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(photos / "Apis mellifera", folder)
    for number in range(7):
        (folder / f"bad{number}.jpg").write_bytes(b"no picture")
    out = tmp_path / "names.csv"
    done = run("predict", model, folder, "--out", out)
    assert done.code == 2
    assert "7 of 15 photos could not be used" in done.err
    assert "bad4.jpg (not-an-image) and 2 more" in done.err
    assert "bad5" not in done.err
    noted = [row["file"][-8:] for row in rows_of_csv(out) if row["note"] == "cannot be used: not-an-image"]
    assert noted == [f"bad{number}.jpg" for number in range(7)]
    printed = run("predict", model, folder)
    assert "7 of 15 photos could not be used" in printed.err


def test_a_submission_is_not_written_over(
    photos: Path, model: Path, tmp_path: Path, run: Callable[..., Any]
) -> None:
    (tmp_path / "s.csv").write_text("mine")
    done = run("predict", model, photos, "--submission", tmp_path / "s.csv")
    assert (done.code, "--overwrite" in done.err) == (2, True)
    assert (tmp_path / "s.csv").read_text() == "mine"
