"""Merging: a taxon is one class, a photo one row, and what belongs together stays so."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldmark.data.merge import merge
from fieldmark.data.photos import PhotoTable, build_frame
from fieldmark.data.storage.places import root_of
from fieldmark.data.taxonomy import Taxon, Taxonomy
from fieldmark.utils.errors import InputError

COLUMNS = ("id", "path", "sha256", "taxon_id", "group", "split")


def table_of(root: str, taxa: list[Taxon], *rows: dict[str, Any]) -> PhotoTable:
    columns = {name: [row.get(name) for row in rows] for name in COLUMNS}
    return PhotoTable(build_frame(columns), Taxonomy(taxa), root_of(root), "test")


def photo(name: str, taxon: str | None, byte: int, **more: Any) -> dict[str, Any]:
    return {"id": name, "path": f"{name}.jpg", "taxon_id": taxon, "sha256": f"{byte:064x}", **more}


BEE = Taxon("1", "Apis mellifera", "honey bee", "", {"kingdom": "Animalia"})


def test_taxa_are_matched_by_their_scientific_names_and_complete_each_other() -> None:
    other = Taxon("Apis mellifera", "Apis mellifera", "", "Insects", {"genus": "Apis"})
    a = table_of("/a", [BEE], photo("x", "1", 1))
    b = table_of("/b", [other], photo("y", "Apis mellifera", 2))
    found = merge([a, b])
    (taxon,) = found.taxonomy
    assert (taxon.id, taxon.common_name, taxon.supercategory) == ("1", "honey bee", "Insects")
    assert taxon.ranks == {"kingdom": "Animalia", "genus": "Apis"}
    assert found.frame["taxon_id"].to_list() == ["1", "1"]
    assert [str(found.file_of(path)) for path in found.frame["path"]] == ["/a/x.jpg", "/b/y.jpg"]


def test_one_name_in_two_kingdoms_and_one_id_for_two_taxa_stay_apart() -> None:
    bird = Taxon("1", "Prunella", "", "", {"kingdom": "Animalia"})
    plant = Taxon("1", "Prunella", "", "", {"kingdom": "Plantae"})
    found = merge(
        [
            table_of("/a", [bird], photo("x", "1", 1)),
            table_of("/b", [plant], photo("x", "1", 2)),
            table_of("/c", [Taxon("1", "Parus major")], photo("x", "1", 3)),
        ]
    )
    assert len(found.taxonomy) == 3
    assert found.frame["taxon_id"].n_unique() == 3
    assert found.frame["id"].to_list() == ["x", "x~2", "x~3"]


def test_a_photo_counts_once_and_conflicting_labels_are_left_out() -> None:
    taxa = [BEE, Taxon("2", "Bombus terrestris")]
    a = table_of("/a", taxa, photo("x", "1", 1), photo("y", None, 2), photo("z", "1", 3))
    b = table_of("/b", taxa, photo("p", "1", 1, split="test"), photo("q", "2", 2), photo("r", "2", 3))
    found = merge([a, b])
    assert set(found.kept["id"]) == {"p", "q"}  # the one to test on; the one with a label
    assert found.reasons() == {"ambiguous-label": 2, "duplicate": 2}


def test_photos_of_a_first_table_that_stays_give_way_to_none() -> None:
    taxa = [BEE, Taxon("2", "Bombus terrestris")]
    a = table_of("/a", taxa, photo("x", "1", 1), photo("y", "1", 1), photo("z", None, 2))
    b = table_of("/b", taxa, photo("p", "1", 1, split="test"), photo("q", "2", 2), photo("r", "2", 1))
    found = merge([a, b], keep_first=True)
    assert set(found.kept["id"]) == {"x", "y", "z"}
    assert found.reasons() == {"ambiguous-label": 2, "duplicate": 1}


def test_groups_that_share_a_photo_become_one() -> None:
    a = table_of("/a", [BEE], photo("x", "1", 1, group="g"), photo("y", "1", 2, group="g"))
    b = table_of("/b", [BEE], photo("p", "1", 1, group="h"), photo("q", "1", 3, group="h"))
    c = table_of("/c", [BEE], photo("u", "1", 3), photo("v", "1", 4))
    found = merge([a, b, c])
    groups = dict(found.frame.select("id", "group").iter_rows())
    assert len({groups[name] for name in "xypqu"}) == 1
    assert groups["v"] is None


def test_places_that_one_table_cannot_name_are_refused() -> None:
    far = table_of("https://example.org/photos", [BEE], photo("x", "1", 1))
    with pytest.raises(InputError, match="download them first"):
        merge([far, table_of("/b", [BEE], photo("y", "1", 2))])


NAMES = st.sampled_from(["Apis mellifera", "Bombus terrestris", "Danaus plexippus"])
SOURCES = st.lists(
    st.lists(st.tuples(NAMES, st.integers(0, 9), st.booleans()), min_size=1, max_size=6),
    min_size=1,
    max_size=4,
)


@given(SOURCES)
def test_nothing_is_lost_and_no_photo_is_kept_twice(sources: list[list[tuple[str, int, bool]]]) -> None:
    tables = []
    for number, rows in enumerate(sources):
        taxa = [Taxon(f"{number}{name}", name) for name in {name for name, *_ in rows}]
        photos = [
            photo(f"{at}", f"{number}{name}", byte, group="g" if grouped else None)
            for at, (name, byte, grouped) in enumerate(rows)
        ]
        tables.append(table_of(f"/{number}", taxa, *photos))
    found = merge(tables)
    assert len(found) == sum(map(len, sources))
    assert not found.frame["id"].is_duplicated().any()
    assert not found.kept["sha256"].is_duplicated().any()
    truth: dict[int, set[str]] = {}
    for rows in sources:
        for name, byte, _ in rows:
            truth.setdefault(byte, set()).add(name)
    certain = {f"{byte:064x}" for byte, said in truth.items() if len(said) == 1}
    assert set(found.kept["sha256"]) == certain
    assert len(found.taxonomy) == len({name for rows in sources for name, *_ in rows})
