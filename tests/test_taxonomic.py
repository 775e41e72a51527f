"""How far off mistakes are: heights of the lowest common ancestor, and the decision for the least of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldmark.data.taxonomy import Taxon, Taxonomy
from fieldmark.evaluation.taxonomic import class_heights, expected_heights, heights, taxonomic_error

TAXA = Taxonomy(
    Taxon(str(number), name, ranks={"family": family, "genus": name.split()[0]})
    for number, (name, family) in enumerate(
        [
            ("Panthera leo", "Felidae"),
            ("Panthera tigris", "Felidae"),
            ("Felis catus", "Felidae"),
            ("Canis lupus", "Canidae"),
        ]
    )
)
LEVELS = TAXA.levels
EVERY = np.arange(4)


def test_the_height_is_that_of_the_lowest_common_ancestor() -> None:
    expected = [[0, 1, 2, 3], [1, 0, 2, 3], [2, 2, 0, 3], [3, 3, 3, 0]]
    np.testing.assert_array_equal(heights(EVERY[:, None], EVERY, LEVELS), expected)


def test_a_class_without_a_rank_shares_none() -> None:
    bare = Taxonomy([*TAXA, Taxon("4", "Unknown one"), Taxon("5", "Unknown two")])
    assert heights(np.array([4]), np.array([5]), bare.levels) == [len(bare.levels) + 1]


@given(st.lists(st.floats(0.01, 1), min_size=4, max_size=4))
def test_the_expected_height_is_the_mean_over_the_probabilities(weights: list[float]) -> None:
    p_1C = np.array([weights], np.float32) / np.float32(sum(weights))
    by_hand = [sum(p_1C[0, c] * heights(c, k, LEVELS) for c in EVERY) for k in EVERY]
    np.testing.assert_allclose(expected_heights(p_1C, class_heights(4, LEVELS))[0], by_hand, atol=1e-5)


def test_the_decision_leaves_an_isolated_favourite() -> None:
    """The dog is the likeliest by itself, but a cat of any kind is likelier, and closer to the others."""
    p_NC = np.array([[0.3, 0.25, 0.05, 0.4]], np.float32)
    found = taxonomic_error(p_NC, np.array([0]), LEVELS)
    assert found is not None
    assert (found.height, found.height_of_mistakes) == (3, 3)
    assert (found.least_height, found.least_height_error) == (0, 0)
    assert [(each.rank, each.photos, each.error) for each in found.ranks] == [
        ("genus", 1, 1.0),
        ("family", 1, 1.0),
    ]


def test_what_cannot_be_measured_is_none() -> None:
    p_NC = np.eye(4, dtype=np.float32)
    assert taxonomic_error(p_NC, np.full(4, -1), LEVELS) is None
    assert taxonomic_error(p_NC, EVERY, ()) is None
    found = taxonomic_error(p_NC, EVERY, LEVELS, decide=False)
    assert found is not None
    assert found.height == 0
    assert found.height_of_mistakes is found.least_height is found.least_height_error is None


@given(st.integers(0, 2**32 - 1))
def test_no_other_decision_has_a_lower_expected_height(seed: int) -> None:
    """On photos drawn from the probabilities themselves."""
    rng = np.random.default_rng(seed)
    p_NC = rng.dirichlet(np.ones(4), 50).astype(np.float32)
    expected_NC = p_NC @ heights(EVERY[:, None], EVERY, LEVELS)
    taken_N = expected_heights(p_NC, class_heights(p_NC.shape[1], LEVELS)).argmin(axis=1)
    assert expected_NC[np.arange(50), taken_N].mean() <= expected_NC[np.arange(50), p_NC.argmax(1)].mean()
    assert expected_NC[np.arange(50), taken_N] == pytest.approx(expected_NC.min(axis=1), abs=1e-5)
