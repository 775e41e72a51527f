from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldmark.taxonomy import RANKS, Taxon, Taxonomy

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
