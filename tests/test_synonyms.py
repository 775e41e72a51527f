"""Accepted names: labels become what the table says, and a table that cannot be followed is refused."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from fieldmark.data import synonyms
from fieldmark.data.photos import PhotoTable, build_frame
from fieldmark.data.taxonomy import Taxon, Taxonomy
from fieldmark.utils.errors import InputError

CAT = {"kingdom": "Animalia", "family": "Felidae", "genus": "Felis", "species": "Felis concolor"}


def table_of(*taxa: Taxon) -> PhotoTable:
    rows = [
        {"id": f"{taxon.id}-{n}", "path": f"{taxon.id}-{n}", "taxon_id": taxon.id}
        for taxon in taxa
        for n in range(2)
    ]
    columns = {name: [row[name] for row in rows] for name in ("id", "path", "taxon_id")}
    return PhotoTable(build_frame(columns), Taxonomy(taxa), Path("/photos"), "test")


def listed(tmp_path: Path, text: str) -> synonyms.Accepted:
    path = tmp_path / "names.csv"
    path.write_text(text)
    return synonyms.read(path)


def test_a_label_gets_its_accepted_name_and_the_ranks_that_follow(tmp_path: Path) -> None:
    table = table_of(Taxon("7", "Felis concolor", "puma", "Mammals", CAT))
    found = listed(tmp_path, "name,accepted\nfelis  Concolor,Puma concolor\n").apply(table)
    (taxon,) = found.taxonomy
    assert (taxon.id, taxon.name, taxon.common_name) == ("Puma concolor", "Puma concolor", "puma")
    assert taxon.ranks["genus"] == "Puma"
    assert taxon.ranks["species"] == "Puma concolor"
    assert taxon.ranks["family"] == "Felidae"
    assert set(found.frame["taxon_id"]) == {"Puma concolor"}


def test_names_of_one_taxon_become_one_class(tmp_path: Path) -> None:
    taxa = Taxon("1", "Parus ater"), Taxon("2", "Periparus ater"), Taxon("3", "Parus major")
    found = listed(tmp_path, "name,accepted\n1,Periparus ater\n").apply(table_of(*taxa))
    assert [taxon.id for taxon in found.taxonomy] == ["2", "3"]
    assert found.frame.group_by("taxon_id").len().sort("taxon_id")["len"].to_list() == [4, 2]


def test_what_the_table_says_of_the_accepted_name_is_taken(tmp_path: Path) -> None:
    text = "name,accepted,family,common_name\nA b,C d,Dees,the dee\nE f,C d,Dees,\n"
    found = listed(tmp_path, text).apply(table_of(Taxon("A b", "A b"), Taxon("E f", "E f")))
    (taxon,) = found.taxonomy
    assert taxon.ranks["family"] == "Dees"
    assert taxon.common_name == "the dee"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name,accepted\nA a,B b\nB b,C c\n", "itself a synonym of 'C c'"),
        ("name,accepted\nA a,B b\nB b,A a\n", "each a synonym of the other"),
        ("name,accepted\nA a,B b\na A,C c\n", "a name that was split"),
        ("name,accepted\nA a,\n", "line 2: a name without its counterpart"),
        ("name,accepted,family\nA a,C c,Ceae\nB b,C c,Cidae\n", "use one value"),
        ("old,new\nA a,B b\n", "no column 'name'"),
        ("", "is empty"),
    ],
)
def test_a_table_that_cannot_be_followed_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        listed(tmp_path, text)


def test_a_name_may_stay_as_it_is_and_no_table_changes_nothing(tmp_path: Path) -> None:
    table = table_of(Taxon("A a", "A a"))
    found = listed(tmp_path, "name,accepted\nA a,A a\n").apply(table)
    assert found.frame.equals(table.frame)
    assert synonyms.read(None).apply(table) is table
    with pytest.raises(InputError, match="not found"):
        synonyms.read(tmp_path / "none.csv")


def test_rejected_and_unlabelled_photos_keep_their_rows(tmp_path: Path) -> None:
    table = table_of(Taxon("A a", "A a")).reject(["A a-0"], "corrupt")
    table = table.with_frame(
        table.frame.with_columns(taxon_id=pl.when(pl.col("id") != "A a-1").then("taxon_id"))
    )
    found = listed(tmp_path, "name,accepted\nA a,B b\n").apply(table)
    assert found.reasons() == {"corrupt": 1}
    assert found.frame["taxon_id"].to_list() == ["B b", None]
