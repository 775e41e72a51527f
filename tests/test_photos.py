from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldmark.data.photos import KEPT, REJECTED, SCHEMA, PhotoTable, build_frame
from fieldmark.data.taxonomy import Taxon, Taxonomy
from fieldmark.utils.errors import InputError

TAXONOMY = Taxonomy([Taxon("0", "Apis mellifera", "honey bee", "Insects", {"genus": "Apis"})])


def table(count: int, root: Path = Path("photos")) -> PhotoTable:
    ids = [str(i) for i in range(count)]
    frame = build_frame(
        {
            "id": ids,
            "path": [f"{i}.jpg" for i in ids],
            "taxon_id": ["0" if i % 3 else None for i in range(count)],
            "width": [100 + i for i in range(count)],
        }
    )
    return PhotoTable(frame, TAXONOMY, root, "inat")


@pytest.mark.parametrize("count", [0, 1, 5])
def test_a_frame_has_every_column_and_nulls_where_nothing_is_known(count: int) -> None:
    frame = table(count).frame
    assert frame.schema == pl.Schema(SCHEMA)
    assert frame.height == count
    assert frame["status"].to_list() == [KEPT] * count
    assert frame["sha256"].null_count() == count


def test_a_frame_with_other_columns_is_refused() -> None:
    with pytest.raises(ValueError, match="columns"):
        PhotoTable(pl.DataFrame({"id": ["1"]}), TAXONOMY, Path(), "inat")


@given(
    rounds=st.lists(
        st.tuples(st.sets(st.integers(-2, 11)), st.sampled_from(["empty", "corrupt"])), max_size=4
    )
)
def test_kept_and_rejected_add_up_and_the_first_reason_stays(rounds: list[tuple[set[int], str]]) -> None:
    photos = table(10)
    expected: dict[str, str] = {}
    for ids, reason in rounds:
        photos = photos.reject([str(i) for i in ids], reason)
        for i in ids & set(range(10)):
            expected.setdefault(str(i), reason)
    rejected = photos.frame.filter(pl.col("status") == REJECTED)
    assert dict(rejected.select("id", "reason").iter_rows()) == expected
    assert photos.kept.height + sum(photos.reasons().values()) == len(photos) == 10
    assert photos.kept["reason"].null_count() == photos.kept.height
    assert set(photos.labelled["id"]) == {str(i) for i in range(10) if i % 3} - set(expected)
    counted = list(photos.reasons().values())
    assert counted == sorted(counted, reverse=True)


def test_a_table_comes_back_as_it_was_written(tmp_path: Path) -> None:
    photos = table(7, tmp_path / "photos").reject(["2"], "corrupt")
    photos.write(tmp_path / "deep" / "photos.parquet")
    again = PhotoTable.read(tmp_path / "deep" / "photos.parquet")
    assert again.frame.equals(photos.frame)
    assert (again.taxonomy, again.root, again.source) == (TAXONOMY, photos.root, "inat")
    assert again.digest() == photos.digest()
    assert again.file_of("3.jpg") == tmp_path / "photos" / "3.jpg"


def test_a_digest_is_of_the_photos_not_of_their_order_or_place(tmp_path: Path) -> None:
    photos = table(7)
    moved = PhotoTable(photos.frame.reverse(), TAXONOMY, tmp_path, "inat")
    assert moved.digest() == photos.digest()
    assert photos.reject(["2"], "corrupt").digest() != photos.digest()
    assert PhotoTable(photos.frame, Taxonomy([]), Path(), "inat").digest() != photos.digest()


def test_what_is_no_table_is_said(tmp_path: Path) -> None:
    pl.DataFrame({"id": ["1"]}).write_parquet(tmp_path / "other.parquet")
    (tmp_path / "text.parquet").write_text("id,path\n")
    (tmp_path / "empty.parquet").write_bytes(b"")
    for name in ("other.parquet", "text.parquet", "empty.parquet", "absent.parquet", "."):
        with pytest.raises(InputError, match="is not a table written by `fieldmark index`"):
            PhotoTable.read(tmp_path / name)


def test_a_damaged_table_is_said(tmp_path: Path) -> None:
    path = tmp_path / "photos.parquet"
    table(40).write(path)
    whole = path.read_bytes()
    for length in range(0, len(whole), max(1, len(whole) // 60)):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match="is not a table"):
            PhotoTable.read(path)


def test_a_table_on_which_polars_panics_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which flipped bit makes Polars panic changes with its version, so the panic is put there."""

    def panic(path: Path) -> pl.DataFrame:
        raise pl.exceptions.PanicException("Thrift out of range")

    table(3).write(tmp_path / "photos.parquet")
    monkeypatch.setattr(pl, "read_parquet", panic)
    with pytest.raises(InputError, match="Thrift out of range"):
        PhotoTable.read(tmp_path / "photos.parquet")
