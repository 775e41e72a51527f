"""Names of unknown origin: no terminal obeys them, no spreadsheet runs them."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldmark.data.readers.tabular import clean
from fieldmark.inference.formats.base import csv_line
from fieldmark.utils.printable import PrintableStream, cell, printable


@pytest.mark.parametrize(
    "text", ["=HYPERLINK(1)", "+1+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "'=1", "-", "-photo.jpg"]
)
def test_a_formula_gets_a_quote_and_is_read_back(text: str) -> None:
    (read,) = csv.reader([csv_line([text])])
    assert read == ["'" + text]
    assert clean(pl.DataFrame({"a": read}))["a"].to_list() == [text.strip()] or text[0] == "\t"


@pytest.mark.parametrize("text", ["0.5", "-0.5", "+3", "-1e-05", "photo.jpg", "O'Brien", "'quoted'", ""])
def test_numbers_and_other_texts_stay(text: str) -> None:
    assert cell(text) == text


@given(st.text())
def test_no_text_reaches_a_terminal_raw(text: str) -> None:
    shown = printable(text)
    assert all(
        letter.isprintable() or not ("\x00" <= letter <= "\x9f") or letter in "\t\n\r" for letter in shown
    )
    assert printable(shown) == shown


def test_control_characters_are_written_out(tmp_path: Path) -> None:
    assert printable("a\x1b[2J\x9b\u202eb\n") == "a\\x1b[2J\\x9b\\u202eb\n"
    for command in (["predict", "nowhere", "a\x1b[31m.jpg"], ["stats", str(tmp_path / "\x1b[31m")]):
        done = subprocess.run([sys.executable, "-m", "fieldmark", *command], capture_output=True, check=False)
        assert done.returncode == 2
        assert b"\x1b" not in done.stdout + done.stderr


def test_what_is_printed_is_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", PrintableStream(stream))
    print("a\x1b[31m\x9b1")  # noqa: T201
    assert stream.getvalue() == "a\\x1b[31m\\x9b1\n"
