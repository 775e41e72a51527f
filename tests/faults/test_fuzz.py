"""A short run of `python -m tests.fuzz`, always on the same changes, and what longer runs have found."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.fuzz import TARGETS, attempt

from fieldmark.data import readers
from fieldmark.inference.checkpoint import records_of
from fieldmark.utils.errors import InputError

COUNT = 40  # of each target
SLOW = ("classifier", "neighbours", "journal")  # which train one first


@pytest.mark.parametrize("name", sorted(TARGETS.keys() - set(SLOW)))
def test_damaged_input_is_read_or_refused_in_one_line(name: str) -> None:
    if name == "form":
        pytest.importorskip("starlette", reason="fieldmark[serve] is not installed")
    for number in range(COUNT):
        data, error = attempt(TARGETS[name], number)
        assert error is None, (number, data, error)


def test_a_damaged_classifier_is_read_or_refused(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.fuzz._trained", lambda: model.parent)
    for name in ("classifier", "neighbours"):
        for number in range(8):
            _, error = attempt(TARGETS[name], number)
            assert error is None, (name, number, error)


def test_an_empty_journal_has_no_records(tmp_path: Path) -> None:
    (tmp_path / "names.csv.journal").write_bytes(b"")
    assert list(records_of(tmp_path / "names.csv")) == []


def test_a_last_line_without_a_cell_is_refused() -> None:
    _, error = attempt(TARGETS["csv"], 522)
    assert error is None


def test_a_table_in_no_known_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photos.csv").write_bytes(b"file_name,label\na.jpg,Parus \xff\x81\n")
    with pytest.raises(InputError, match="save it as UTF-8"):
        readers.read(tmp_path / "photos.csv")


def test_a_table_with_a_line_break_in_its_name_is_named_in_one_line(tmp_path: Path) -> None:
    from tests.fuzz import META

    (tmp_path / "meta.xml").write_bytes(META.replace(b"occurrence.txt", b"occur\nence.txt"))
    with pytest.raises(InputError, match=r"lacks the table occur ence\.txt"):
        readers.read(tmp_path)
