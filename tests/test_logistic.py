"""Converged logistic regression: against scikit-learn's, and on photos that are few or say nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax
from sklearn.linear_model import LogisticRegression

from fieldmark.features.cache import Features
from fieldmark.features.labelled import LabelledFeatures
from fieldmark.heads import logistic
from fieldmark.heads.base import LinearHead


def labelled(x_ND: np.ndarray, y_N: np.ndarray) -> LabelledFeatures:
    ids = tuple(f"p{number}" for number in range(len(y_N)))
    return LabelledFeatures(Features.of(x_ND.astype(np.float32)), y_N, ids)


def blobs(photos: int, dim: int, classes: int, seed: int = 0, apart: float = 0.7) -> LabelledFeatures:
    """Classes that overlap, on features of very different size; each class has a photo."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(classes, dim)) * apart
    y_N = np.append(np.arange(classes), random.integers(0, classes, photos - classes))
    x_ND = centres[y_N] + random.normal(size=(photos, dim))
    return labelled(x_ND * np.geomspace(0.01, 100, dim) + 3, y_N)


def probabilities(head: LinearHead, photos: LabelledFeatures) -> np.ndarray:
    return softmax(head.logits_of(photos.features).astype(np.float64), axis=1)


def spread(x_ND: np.ndarray) -> np.ndarray:
    """The standard deviations, their squares drawn to the square of the mean one by three photos' worth."""
    return np.sqrt((len(x_ND) * x_ND.var(0) + 3 * x_ND.std(0).mean() ** 2) / (len(x_ND) + 3))


def objective(head: LinearHead, photos: LabelledFeatures, strength: float) -> float:
    """What is minimised: of the head on standardised features."""
    x_ND = photos.features[slice(None)].astype(np.float64)
    log_p_NC = log_softmax(head.logits_of(photos.features).astype(np.float64), axis=1)
    w_DC = head.weight * spread(x_ND)[:, None]
    b_C = head.bias + x_ND.mean(0) @ head.weight
    penalty = strength * np.square(w_DC).sum() + np.square(b_C).sum() / len(x_ND)
    return float(-log_p_NC[np.arange(len(x_ND)), photos.labels].mean() + penalty / 2)


@pytest.mark.parametrize("strength", [0.1, 0.01])
@pytest.mark.parametrize(
    ("photos", "dim", "classes"), [(400, 12, 5), (300, 40, 2), (60, 200, 6), (12, 50, 12)]
)
def test_its_probabilities_are_scikit_learns(photos: int, dim: int, classes: int, strength: float) -> None:
    """The sum of losses / N + strength / 2 |w|^2 + |b|^2 / 2N on standardised features.

    The bias is the weight of a constant feature, as large as makes up for the other strength.
    """
    train, new = blobs(photos, dim, classes), blobs(200, dim, classes, seed=1)
    own_ND = train.features[slice(None)].astype(np.float64)
    peer = LogisticRegression(C=1 / (photos * strength), tol=1e-8, max_iter=10_000, fit_intercept=False)

    def scaled(some: LabelledFeatures) -> np.ndarray:
        constant = np.full((len(some), 1), np.sqrt(photos * strength))
        return np.append((some.features[slice(None)] - own_ND.mean(0)) / spread(own_ND), constant, axis=1)

    if classes == 2:  # a softmax of two has the weights of both, of half the size
        peer.set_params(C=2 / (photos * strength))
    peer.fit(scaled(train), train.labels)
    (head,) = logistic.fit_path(train, classes, [strength])
    expected = peer.predict_proba(scaled(new))
    np.testing.assert_allclose(probabilities(head, new), expected, atol=0.015)


@pytest.mark.parametrize("photos", [30, 300])
def test_each_strength_of_a_path_is_what_it_is_alone(photos: int) -> None:
    """Where the next one starts saves time and changes nothing."""
    train, new = blobs(photos, 40, 5), blobs(200, 40, 5, seed=1)
    strengths = (1.0, 0.1, 0.01)
    path = logistic.fit_path(train, 5, strengths)
    for strength, head in zip(strengths, path, strict=True):
        (alone,) = logistic.fit_path(train, 5, [strength])
        np.testing.assert_allclose(probabilities(head, new), probabilities(alone, new), atol=0.015)
        assert objective(head, train, strength) == pytest.approx(objective(alone, train, strength), rel=2e-3)
    sizes = [np.square(head.weight).sum() for head in path]
    assert sizes == sorted(sizes)


def test_no_step_from_the_minimum_makes_it_better() -> None:
    train, random = blobs(200, 20, 4), np.random.default_rng(3)
    (head,) = logistic.fit_path(train, 4, [0.05])
    least = objective(head, train, 0.05)
    spread_D = spread(train.features[slice(None)].astype(np.float64))
    for size in (0.01, 0.1, 1.0):
        step_DC = random.normal(size=head.weight.shape) * size / spread_D[:, None]
        moved = LinearHead((head.weight + step_DC).astype(np.float32), head.bias)
        assert objective(moved, train, 0.05) > least - 1e-4


def test_classes_without_photos_are_never_the_answer_and_change_nothing_else() -> None:
    few = blobs(120, 10, 3)
    spread_C = np.array([1, 4, 6])  # of 8 classes
    train = LabelledFeatures(few.features, spread_C[few.labels], few.ids)
    anywhere = labelled(50 * np.random.default_rng(5).normal(size=(300, 10)), np.zeros(300, np.int64))
    for narrow, wide in zip(logistic.fit_path(few, 3), logistic.fit_path(train, 8), strict=True):
        logits_NC = wide.logits_of(anywhere.features)
        assert np.isfinite(logits_NC).all()
        assert set(logits_NC.argmax(1)) <= {1, 4, 6}
        own = softmax(wide.logits_of(few.features)[:, spread_C], axis=1)
        np.testing.assert_allclose(own, softmax(narrow.logits_of(few.features), axis=1), atol=1e-4)


@pytest.mark.parametrize("photos", [0, 1, 9])
def test_of_one_class_or_none_there_is_nothing_to_tell_apart(photos: int) -> None:
    train = blobs(80, 6, 3)
    of_one = train.where(train.labels == 2).where(np.arange((train.labels == 2).sum()) < photos)
    heads = logistic.fit_path(of_one, 3)
    assert len(heads) == len(logistic.STRENGTHS)
    for head in heads:
        logits_NC = head.logits_of(train.features)
        assert np.isfinite(logits_NC).all()
        if photos:
            assert set(logits_NC.argmax(1)) == {2}


def test_fewer_photos_than_features_and_features_that_never_vary() -> None:
    train, new = blobs(20, 300, 4, apart=1.5), blobs(100, 300, 4, seed=1, apart=1.5)

    def with_constants(photos: LabelledFeatures) -> LabelledFeatures:
        x_ND = photos.features[slice(None)].copy()
        x_ND = np.concatenate([x_ND, np.full((len(x_ND), 3), 7), np.zeros((len(x_ND), 1))], axis=1)
        return labelled(x_ND, photos.labels)

    plain = logistic.fit_path(train, 4)
    constant = logistic.fit_path(with_constants(train), 4)
    for head, more in zip(plain, constant, strict=True):
        assert (head.logits_of(new.features).argmax(1) == new.labels).mean() > 0.9
        assert (more.weight[300:] == 0).all()
        np.testing.assert_allclose(
            probabilities(more, with_constants(new)), probabilities(head, new), atol=0.01
        )


def test_features_that_are_all_alike_give_the_shares_of_the_classes() -> None:
    labels, shares = np.array([0, 0, 0, 0, 0, 1, 1, 2]), np.array([5 / 8, 2 / 8, 1 / 8])
    few, many = labelled(np.ones((8, 5)), labels), labelled(np.ones((800, 5)), np.tile(labels, 100))
    for head in logistic.fit_path(many, 3):
        np.testing.assert_allclose(probabilities(head, many)[0], shares, atol=0.01)
    for head in logistic.fit_path(few, 3):  # few photos say less about the shares
        between = probabilities(head, few)[0]
        assert (np.abs(between - 1 / 3) < np.abs(shares - 1 / 3)).all()


def test_the_same_photo_under_two_names_is_a_toss_up() -> None:
    train = labelled(np.array([[1.0, 2], [1, 2], [-1, 0], [-1, 0]]), np.array([0, 1, 2, 2]))
    for head in logistic.fit_path(train, 3):
        p_NC = probabilities(head, train)
        np.testing.assert_allclose(p_NC[0, 0], p_NC[0, 1], atol=0.01)


def test_photos_of_none_of_the_classes_are_passed_over() -> None:
    train = blobs(100, 10, 4)
    odd_N = np.arange(100) % 3 == 2
    odd = LabelledFeatures(train.features, np.where(odd_N, -1, train.labels), train.ids)
    for one, other in zip(logistic.fit_path(odd, 4), logistic.fit_path(train.where(~odd_N), 4), strict=True):
        np.testing.assert_array_equal(one.weight, other.weight)


@settings(max_examples=30)
@given(st.integers(1, 25), st.integers(1, 8), st.integers(2, 5), st.integers(0, 2**16))
def test_whatever_the_photos_the_answer_is_a_number(photos: int, dim: int, classes: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    x_ND = random.choice([-1e4, 0.0, 1.0, 1e4], (photos, dim))
    train = labelled(x_ND, random.integers(0, classes, photos))
    for head in logistic.fit_path(train, classes):
        logits_NC = head.logits_of(train.features)
        assert logits_NC.shape == (photos, classes)
        assert np.isfinite(logits_NC).all()
        loss = -log_softmax(logits_NC.astype(np.float64), axis=1)[np.arange(photos), train.labels].mean()
        assert loss <= np.log(classes) + 1e-3


def test_the_candidates_are_the_strengths_by_name() -> None:
    train = blobs(60, 8, 3)
    found = logistic.candidates(train, 3)
    assert list(found) == [f"logistic regression, strength {each:g}" for each in logistic.STRENGTHS]
    for named, head in zip(found.values(), logistic.fit_path(train, 3), strict=True):
        np.testing.assert_array_equal(named.weight, head.weight)


def test_the_strength_is_chosen_by_the_validation_photos() -> None:
    """Labels that mean nothing want the strongest; classes far apart the weakest."""
    train, val = blobs(100, 30, 3, apart=3), blobs(100, 30, 3, seed=1, apart=3)
    path = logistic.fit_path(train, 3)
    found = logistic.fit(train, val, 3)
    np.testing.assert_array_equal(found.head.weight, path[-1].weight)
    noise = LabelledFeatures(val.features, np.random.default_rng(0).permutation(val.labels), val.ids)
    assert logistic.fit(train, noise, 3).head.weight == pytest.approx(path[0].weight)
    assert found.val_loss < logistic.fit(train, noise, 3).val_loss


def test_few_photos_are_not_told_apart_by_what_hardly_varies_among_them() -> None:
    """As rectified features are: most are near zero in all of a few photos, and may be large in the next."""
    random = np.random.default_rng(5)
    centres = random.normal(size=(5, 30))

    def seen(y_N: np.ndarray) -> LabelledFeatures:
        rare = random.random((len(y_N), 300)) < 0.05
        some = np.where(rare, random.exponential(1.0, rare.shape), random.uniform(0, 1e-3, rare.shape))
        return labelled(np.append(centres[y_N] + random.normal(size=(len(y_N), 30)) / 2, some, axis=1), y_N)

    new = seen(np.arange(500) % 5)
    for head in logistic.fit_path(seen(np.arange(5)), 5):
        logits_NC = head.logits_of(new.features)
        assert (logits_NC.argmax(1) != new.labels).mean() < 0.25
        assert np.abs(logits_NC).max() < 15
