from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldmark.data.taxonomy import RANKS, Taxon, Taxonomy

NAMES = st.text(max_size=10)
TAXA = st.lists(
    st.builds(
        Taxon,
        id=st.text(min_size=1, max_size=6),
        name=NAMES,
        common_name=NAMES,
        supercategory=st.sampled_from(["", "Birds", "Fungi"]),
        ranks=st.dictionaries(st.sampled_from(RANKS), NAMES),
    ),
    unique_by=lambda taxon: taxon.id,
    max_size=8,
)


@given(taxa=TAXA)
def test_a_taxonomy_comes_back_from_json_in_the_same_order(taxa: list[Taxon]) -> None:
    taxonomy = Taxonomy(taxa)
    again = Taxonomy.from_json(json.loads(json.dumps(taxonomy.to_json())))
    assert again == taxonomy
    assert list(again) == list(taxonomy) == taxa
    assert len(again) == len(taxa)


@given(taxa=TAXA)
def test_only_keeps_the_order_that_is_asked_for(taxa: list[Taxon]) -> None:
    taxonomy = Taxonomy(taxa)
    backwards = [taxon.id for taxon in taxa[::-1]]
    assert [taxon.id for taxon in taxonomy.only(backwards)] == backwards
    assert list(taxonomy.only([])) == []
    for taxon in taxa:
        assert taxon.id in taxonomy
        assert taxonomy[taxon.id] is taxon


def test_an_unknown_taxon_is_not_made_up() -> None:
    taxonomy = Taxonomy([Taxon("1", "Apis mellifera")])
    assert "2" not in taxonomy
    with pytest.raises(KeyError):
        taxonomy.only(["2"])


def test_a_label_is_the_common_name_with_the_scientific_one_behind_it() -> None:
    assert Taxon("1", "Apis mellifera", "honey bee").label == "honey bee (Apis mellifera)"
    assert Taxon("1", "Apis mellifera").label == "Apis mellifera"


def test_supercategories_are_those_that_occur() -> None:
    taxa = [Taxon("1", "a", supercategory="Fungi"), Taxon("2", "b"), Taxon("3", "c", "", "Birds")]
    assert Taxonomy(taxa).supercategories == ["Birds", "Fungi"]
    assert Taxonomy(taxa) != Taxonomy(taxa[:2])


def test_the_rank_of_a_label() -> None:
    ranks = {"order": "Lepidoptera", "family": "Nymphalidae", "species": "Aglais io"}
    assert Taxon("1", "Aglais io", ranks=ranks).rank == "species"
    assert Taxon("1", "Nymphalidae", ranks=ranks).rank == "family"
    assert Taxon("1", "Papilionoidea", ranks={"order": "Lepidoptera"}).rank == "unranked"
    assert Taxon("1", "some moth").rank == "species"
    assert Taxon("1", "Aglais io", ranks={"genus": "Aglais"}).rank == "species"
    assert Taxon("1", "Aglais io io", ranks={"genus": "Aglais"}).rank == "unranked"


BEASTS = Taxonomy(
    [
        Taxon("0", "Panthera leo", ranks={"kingdom": "Animalia", "genus": "Panthera"}),
        Taxon("1", "Oenanthe oenanthe", ranks={"kingdom": "Animalia", "genus": "Oenanthe"}),
        Taxon("2", "Ixodida", ranks={"kingdom": "Animalia", "order": "Ixodida"}),
        Taxon("3", "Oenanthe crocata", ranks={"kingdom": "Plantae", "genus": "Oenanthe"}),
        Taxon("4", "Panthera onca", ranks={"genus": "Panthera"}),
    ]
)


def test_levels_gather_labels_and_leave_out_those_without_the_rank() -> None:
    genus, kingdom = BEASTS.levels  # only one order occurs: that tells nothing
    assert (genus.rank, kingdom.rank) == ("genus", "kingdom")
    assert genus.column.tolist() == [0, 1, -1, 2, 0]  # Oenanthe is a bird, and a plant as well
    assert [genus.name(group) for group in range(3)] == ["Panthera", "Oenanthe", "Oenanthe"]
    assert genus.groups[2] == {"kingdom": "Plantae", "genus": "Oenanthe"}
    p = np.array([[0.4, 0.1, 0.2, 0.05, 0.25]])
    np.testing.assert_allclose(genus.sums(p), [[0.65, 0.1, 0.05]])
    assert genus.without(p[0]) == pytest.approx(0.2)
    np.testing.assert_allclose(kingdom.sums(p), [[0.7, 0.05]])
    assert kingdom.without(p[0]) == pytest.approx(0.25)


@given(taxa=TAXA, data=st.data())
def test_sums_are_those_of_a_loop_over_the_labels(taxa: list[Taxon], data: st.DataObject) -> None:
    p_C = np.array(data.draw(st.lists(st.floats(0, 1), min_size=len(taxa), max_size=len(taxa))))
    for level in Taxonomy(taxa).levels:
        sums = level.sums(p_C[None])[0]
        expected = [p_C[level.column == group].sum() for group in range(len(level.groups))]
        np.testing.assert_allclose(sums, expected)
        assert sums.sum() + level.without(p_C) == pytest.approx(p_C.sum())
        for taxon, group in zip(taxa, level.column, strict=True):
            if group < 0:
                assert not taxon.ranks.get(level.rank)
            else:
                assert taxon.ranks[level.rank] == level.name(group)


def test_the_photos_of_wild74_have_levels_with_taxa_left_out(shared: Path) -> None:
    from fieldmark.data import readers

    taxonomy = readers.read(shared / "data" / "wild74", verify=False).taxonomy
    levels = {level.rank: level for level in taxonomy.levels}
    assert list(levels) == ["genus", "family", "order", "class", "phylum", "kingdom"]
    names = [taxon.name for taxon in taxonomy]
    out = {names[at] for at in np.flatnonzero(levels["order"].column < 0)}
    assert out == {"Asteroidea"}
    assert {"Ixodida", "Papilionoidea"} <= {names[at] for at in np.flatnonzero(levels["genus"].column < 0)}
    assert (levels["kingdom"].column >= 0).all()
