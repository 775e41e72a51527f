"""Weights of ensembles: properties, and an independent optimiser."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldmark.evaluation import ensemble, metrics


def own(members: int, photos: int, seed: int) -> np.ndarray:
    """Probabilities of the right class, of members of different worth; a few are hopeless."""
    random = np.random.default_rng(seed)
    skill = random.uniform(0.2, 3.0, (members, 1))
    return np.asarray(random.beta(skill, 1.0, (members, photos)))


ensembles = st.builds(own, st.integers(1, 6), st.integers(1, 60), st.integers(0, 10**6))


def loss(own_MN: np.ndarray, weights_M: np.ndarray) -> float:
    return float(ensemble.losses(own_MN, weights_M).mean())


@settings(max_examples=60, deadline=None)
@given(ensembles, st.sampled_from(sorted(ensemble.WEIGHTINGS)))
def test_weights_lie_on_the_simplex(own_MN: np.ndarray, way: str) -> None:
    found = ensemble.WEIGHTINGS[way](own_MN)
    assert found.shape == (len(own_MN),)
    assert (found >= 0).all()
    assert found.sum() == pytest.approx(1)


@settings(max_examples=60, deadline=None)
@given(ensembles)
def test_never_worse_on_its_own_photos(own_MN: np.ndarray) -> None:
    best = min(loss(own_MN, row) for row in np.eye(len(own_MN)))
    fitted = loss(own_MN, ensemble.weights(own_MN))
    assert fitted <= min(best, loss(own_MN, ensemble.mean(own_MN))) + 2e-5
    chosen = loss(own_MN, ensemble.greedy(own_MN))
    assert fitted - 2e-5 <= chosen <= best + 1e-9


@settings(max_examples=40, deadline=None)
@given(ensembles, st.integers(0, 10**6), st.sampled_from(sorted(ensemble.WEIGHTINGS)))
def test_the_order_of_members_and_photos_does_not_count(own_MN: np.ndarray, seed: int, way: str) -> None:
    random = np.random.default_rng(seed)
    members, photos = random.permutation(own_MN.shape[0]), random.permutation(own_MN.shape[1])
    found, other = (ensemble.WEIGHTINGS[way](own_MN), ensemble.WEIGHTINGS[way](own_MN[members][:, photos]))
    assert loss(own_MN, found) == pytest.approx(loss(own_MN[members], other), abs=2e-5)
    if way != "weights":  # where the least loss is flat, EM may stop at another place of it
        np.testing.assert_allclose(found[members], other, atol=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_the_weights_are_those_of_an_independent_optimiser(seed: int) -> None:
    from scipy.optimize import minimize

    own_MN = own(5, 400, seed)
    start = np.full(5, 0.2)
    found = minimize(
        lambda w: -np.log(w @ own_MN).mean(),
        start,
        jac=lambda w: -(own_MN / (w @ own_MN)).mean(axis=1),
        method="SLSQP",
        bounds=[(0, 1)] * 5,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": lambda _: np.ones(5)},
        options={"ftol": 1e-12, "maxiter": 500},
    )
    ours = ensemble.weights(own_MN)
    assert loss(own_MN, ours) == pytest.approx(found.fun, abs=2e-5)
    np.testing.assert_allclose(ours, found.x, atol=0.02)


def test_a_member_that_rules_the_right_class_out_is_not_the_end() -> None:
    own_MN = np.array([[0.0, 0.9, 0.9], [0.5, 0.5, 0.5]])
    assert np.isfinite(loss(own_MN, ensemble.weights(own_MN)))
    assert 0 < ensemble.weights(own_MN)[1] < 1


def test_of_two_that_are_the_same_greedy_takes_one() -> None:
    row = own(1, 50, 0)
    assert (ensemble.greedy(np.concatenate([row, row])) == [1, 0]).all()


def test_without_photos_all_members_count_the_same() -> None:
    for way in ensemble.WEIGHTINGS.values():
        np.testing.assert_allclose(way(np.empty((4, 0))), 0.25)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(2, 6), st.integers(0, 10**6))
def test_the_mixture_is_the_mean_of_probabilities(members: int, classes: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    scores = random.normal(0, 30, (members, 7, classes)).astype(np.float32)
    log_p_MNC = [metrics.log_softmax(each) for each in scores]
    weights = random.dirichlet(np.ones(members))
    mixed = ensemble.log_mixture(log_p_MNC, weights)
    expected = np.tensordot(weights, np.exp(np.stack(log_p_MNC)), axes=1)
    np.testing.assert_allclose(np.exp(mixed), expected, atol=1e-12)
    assert np.isfinite(mixed).all()
    labels = random.integers(0, classes, 7)
    rows = [ensemble.label_probabilities(each, labels) for each in scores]
    found, p_N = ensemble.losses(np.stack(rows), weights), expected[np.arange(7), labels]
    likely = p_N > 1e-9  # what is less likely costs a bounded loss
    np.testing.assert_allclose(found[likely], -np.log(p_N[likely]), atol=0.01)
    assert (found < 28).all()


def test_a_member_earns_its_place_where_the_others_miss_what_it_knows() -> None:
    random = np.random.default_rng(0)
    half = np.arange(400) % 2 == 0
    knows = np.where(half, 0.9, 0.05) * random.uniform(0.8, 1, 400)
    other = np.where(half, 0.05, 0.9) * random.uniform(0.8, 1, 400)
    own_MN = np.stack([knows, other, other])  # the third adds nothing to the second
    weights = np.array([0.5, 0.25, 0.25])
    first, second, third = ensemble.contributions(own_MN, weights)
    assert first.improves
    assert first.loss > 0.5
    assert second.loss == pytest.approx(third.loss)
    assert not ensemble.contributions(own_MN, np.array([0.5, 0.5, 0.0]))[2].improves
    without = ensemble.losses(own_MN, [0, 0.5, 0.5]) - ensemble.losses(own_MN, weights)
    assert first.loss == pytest.approx(without.mean())
    assert first.interval[0] < first.loss < first.interval[1]


def test_worth_draws_groups_together() -> None:
    own_MN = own(3, 200, 3)
    weights = ensemble.mean(own_MN)
    alone = ensemble.contributions(own_MN, weights)[0].interval
    groups = [f"{number // 50}" for number in range(200)]
    together = ensemble.contributions(own_MN, weights, groups)[0].interval
    assert alone != together


@settings(max_examples=30, deadline=None)
@given(ensembles, st.integers(1, 4))
def test_of_few_at_most_so_many_have_a_weight(own_MN: np.ndarray, count: int) -> None:
    found = ensemble.weights_of_best(count)(own_MN)
    assert (found > 0).sum() <= count
    assert found.sum() == pytest.approx(1)
    assert loss(own_MN, found) <= min(loss(own_MN, row) for row in np.eye(len(own_MN))) + 2e-5


def test_the_best_pair_is_that_whose_mean_has_the_least_loss() -> None:
    own_MN = np.array([[0.9, 0.1, 0.5], [0.1, 0.9, 0.4], [0.5, 0.5, 0.5], [0.45, 0.45, 0.6]])
    by_hand = min(
        itertools.combinations(range(4), 2),
        key=lambda pair: float(-np.log(own_MN[list(pair)].mean(axis=0)).mean()),
    )
    found = ensemble.best_pair(own_MN)
    assert tuple(np.flatnonzero(found)) == by_hand
    assert found.sum() == 1
    assert ensemble.best_pair(np.empty((3, 0))).tolist() == pytest.approx([1 / 3] * 3)
