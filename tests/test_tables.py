"""Tables as people write them: other separators, encodings, decimal commas, names of columns, and Excel."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import openpyxl
import polars as pl
import pytest

from fieldmark.data import readers
from fieldmark.data.events import read_clocks
from fieldmark.data.readers import column_names, tabular
from fieldmark.utils.errors import InputError

ROWS = [
    ["Datei", "Art", "Breite", "Länge", "Datum", "Ort"],
    ["ä 1.jpg", "Parus major", "47,25", "-8,5", "3.5.2024 07:08", "Wald, hinten"],
    ["2.jpg", "Pica pica", "", "", "", "=Feld"],
]


def written(path: Path, separator: str, encoding: str, first: str = "") -> Path:
    text = io.StringIO()
    csv.writer(text, delimiter=separator).writerows(ROWS)
    path.write_bytes((first + text.getvalue()).encode(encoding))
    return path


def check(path: Path) -> None:
    frame = readers.read(path, verify=False).frame.sort("id", descending=True)
    assert frame["path"].to_list() == ["ä 1.jpg", "2.jpg"]
    assert frame["taxon_id"].to_list() == ["Parus major", "Pica pica"]
    assert frame["latitude"].to_list() == [47.25, None]
    assert frame["longitude"].to_list() == [-8.5, None]
    assert frame["taken"].to_list() == ["2024-05-03 07:08", None]
    assert frame["location"].to_list() == ["Wald, hinten", "=Feld"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_any_separator_and_encoding(tmp_path: Path, separator: str, encoding: str) -> None:
    check(written(tmp_path / "mine.csv", separator, encoding))


def test_the_line_that_excel_writes_for_itself_is_passed_over(tmp_path: Path) -> None:
    check(written(tmp_path / "mine.csv", ";", "cp1252", "sep=;\r\n"))


def test_excel_sheets_are_read(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    for row in ROWS:
        book.active.append(row)
    book.active["C2"], book.active["D2"] = 47.25, -8.5
    book.active["E2"] = datetime(2024, 5, 3, 7, 8)
    book.active["F3"].data_type = "s"  # a text that looks like a formula
    book.active.append([None] * 6)
    book.save(tmp_path / "mine.xlsx")
    frame = readers.read(tmp_path / "mine.xlsx", verify=False).frame.sort("id", descending=True)
    assert frame["taken"].to_list() == ["2024-05-03 07:08:00", None]
    assert frame["longitude"].to_list() == [-8.5, None]
    assert frame["location"].to_list() == ["Wald, hinten", "=Feld"]


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04 torn"])
def test_what_is_no_sheet_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.xlsx").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.xlsx is not a sheet of Excel"):
        readers.read(tmp_path / "a.xlsx")


def test_an_empty_sheet_and_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    book.save(tmp_path / "a.xlsx")
    with pytest.raises(InputError, match="no row on its first sheet"):
        readers.read(tmp_path / "a.xlsx")
    book.active.append(["file", "file", "label"])
    book.save(tmp_path / "a.xlsx")
    with pytest.raises(InputError, match="two columns of one name"):
        readers.read(tmp_path / "a.xlsx")


def test_a_gzipped_table_and_a_torn_one(tmp_path: Path) -> None:
    packed = gzip.compress(b"name;accepted\na;b\n")
    (tmp_path / "n.csv.gz").write_bytes(packed)
    assert tabular.read_text_table(tmp_path / "n.csv.gz").rows() == [("a", "b")]
    (tmp_path / "n.csv.gz").write_bytes(packed[:-12])
    with pytest.raises(InputError, match="could not be read as a table"):
        tabular.read_text_table(tmp_path / "n.csv.gz")


@pytest.mark.parametrize(
    ("header", "usual"),
    [
        ("file_name,label", {"file_name": 0, "label": 1}),
        ("photo;species", {"file_name": 0, "label": 1, "name": 1, "species": 1}),
        ("File Name\tclass", {"file_name": 0, "label": 1}),
        ("path,label,species", {"file_name": 0, "label": 1, "species": 2}),
        ("path,species,class", {"file_name": 0, "label": 1, "name": 1, "species": 1, "class": 2}),
        ("image,name,y,x", {"file_name": 0, "label": 1, "name": 1, "latitude": 2, "longitude": 3}),
        ("image,label,lat,lng,date,station", dict(zip(
            ("file_name", "label", "latitude", "longitude", "taken", "location"), range(6), strict=True))),
        ("file,file_name,label", {"file": 0, "file_name": 1, "label": 2}),
    ],
)  # fmt: skip
def test_columns_have_the_names_that_people_give(header: str, usual: dict[str, int]) -> None:
    for separator in ";\t":
        header = header.replace(separator, ",")
    names = header.split(",")
    row = [str(10 + number) for number in range(len(names))]
    frame = column_names.with_usual_names(pl.DataFrame([row], names, orient="row"))
    assert dict(zip(frame.columns, (int(each) - 10 for each in frame.row(0)), strict=True)) == usual


def test_pixels_are_no_degrees() -> None:
    frame = pl.DataFrame({"file": ["a"], "label": ["b"], "x": ["1200"], "y": ["30"]})
    assert "latitude" not in column_names.with_usual_names(frame).columns


def test_a_table_without_a_column_says_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("number;what\n1;2\n")
    with pytest.raises(InputError, match=r"no column 'file_name' .*first line gives 'number', 'what'"):
        readers.read(tmp_path / "t.csv")


def test_decimal_commas_of_clocks(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("deployment;seconds\na;3600,5\n")
    assert read_clocks(tmp_path / "c.csv") == {"a": 3600.5}


def test_a_corrected_table_of_predict_is_given_to_grow_and_train(
    insects: Path, model: Path, tmp_path: Path, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files are named from the folder of that command; the old common name does not count."""
    monkeypatch.setenv("FIELDMARK_CACHE", str(model.parent / "cache"))
    monkeypatch.chdir(insects.parent)
    out = tmp_path / "names.xlsx"
    assert run("predict", model, "insects", "--out", out).code == 2  # one photo is broken
    book = openpyxl.load_workbook(out)
    [was] = [row for row in book.active.iter_rows() if str(row[0].value).endswith("terrestris/03.jpg")]
    was[1].value = "Bombus lapidarius"
    book.save(out)
    table = readers.read(out)
    found = dict(table.frame.select("path", "taxon_id").iter_rows())
    assert found["insects/Bombus terrestris/03.jpg"] == "Bombus lapidarius"
    assert table.kept.height == 64
    done = run("grow", model, out, "--out", tmp_path / "grown")
    assert done.code == 0, done.err
    assert "5 classes" in done.err
    assert "broken.jpg (truncated)" in done.err


def test_candidates_are_no_labels(tmp_path: Path) -> None:
    (tmp_path / "n.csv").write_text("file_name,species,source,name,taxon_id,among\na.jpg,b,species,b,1,4\n")
    with pytest.raises(InputError, match="without --candidates"):
        readers.read(tmp_path / "n.csv")


def test_names_that_nobody_looked_at_are_counted(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = photos / "names.csv"
    rows = "".join(
        f"Apis mellifera/0{at}.jpg,Apis mellifera,{sure},0.1\n" for at, sure in enumerate(["no", "yes"])
    )
    try:
        path.write_text(f"file,name,sure,second_score\n{rows}")
        assert readers.read(path).kept.height == 2
    finally:
        path.unlink()
    assert "names count as labels, 1 of them with sure = no" in capsys.readouterr().err
