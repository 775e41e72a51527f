"""What every head of `HEADS` must do, whatever its kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fieldmark.features.cache import Features, FeatureStore
from fieldmark.features.labelled import LabelledFeatures
from fieldmark.heads import HEADS, class_imbalance

CLASSES, DIM = 5, 12
UNSEEN = 3


def blobs(count: int, seed: int, spread: float = 0.4, unseen: int | None = None):
    """Classes around points that lie well apart; `unseen` has no photo."""
    chance = np.random.default_rng(seed)
    centres = 2 * np.random.default_rng(99).normal(size=(CLASSES, DIM))
    labels = chance.choice([c for c in range(CLASSES) if c != unseen], count)
    x_ND = (centres[labels] + spread * chance.normal(size=(count, DIM)) + 5).astype(np.float32)
    return LabelledFeatures(Features.of(x_ND), labels, tuple(f"{seed}-{i}" for i in range(count)))


TRAIN, VAL, TEST = blobs(200, 0), blobs(60, 1), blobs(200, 2)


# One of those for rare classes speaks for all: they share what comes before and after the sweep.
@pytest.fixture(params=sorted(HEADS.keys() - (set(class_imbalance.METHODS) - {"adjusted-loss"})))
def fit(request: pytest.FixtureRequest):
    return HEADS[request.param]


def error(head, photos: LabelledFeatures) -> float:
    return float((head.logits_of(photos.features).argmax(1) != photos.labels).mean())


def loss(head, photos: LabelledFeatures) -> float:
    s_NC = head.logits_of(photos.features).astype(np.float64)
    log_p_NC = s_NC - np.log(np.exp(s_NC - s_NC.max(1, keepdims=True)).sum(1, keepdims=True))
    log_p_NC -= s_NC.max(1, keepdims=True)
    return float(-log_p_NC[np.arange(len(photos)), photos.labels].mean())


def test_it_learns_what_can_be_told_apart_and_says_how_sure_it_is(fit) -> None:
    found = fit(TRAIN, VAL, CLASSES, 0)
    assert error(found.head, TEST) <= 0.01
    assert loss(found.head, TEST) < 0.2
    assert found.val_loss == pytest.approx(loss(found.head, VAL), abs=0.01)
    assert found.seconds > 0


def test_labels_that_mean_nothing_give_no_confidence(fit) -> None:
    labels = np.random.default_rng(7).integers(0, CLASSES, 400)
    noise = LabelledFeatures(blobs(400, 3).features, labels, tuple(map(str, range(400))))
    train, val = noise.where(np.arange(400) < 200), noise.where(np.arange(400) >= 200)
    found = fit(train, val, CLASSES, 0)
    assert loss(found.head, val) < 1.5 * np.log(CLASSES)


def test_the_order_of_rows_does_not_matter(fit) -> None:
    mixed = np.random.default_rng(0).permutation(len(TRAIN))
    again = LabelledFeatures(
        TRAIN.features.take(mixed), TRAIN.labels[mixed], tuple(TRAIN.ids[i] for i in mixed)
    )
    x_ND = TEST.features[slice(None)]
    first, second = (fit(each, VAL, CLASSES, 0).head.logits(x_ND) for each in (TRAIN, again))
    np.testing.assert_allclose(first, second, rtol=1e-2, atol=1e-2)
    np.testing.assert_array_equal(first.argmax(1), second.argmax(1))


@pytest.mark.parametrize("count", [200, 8])
def test_a_class_that_was_never_seen_never_wins(fit, count: int) -> None:
    train, val = blobs(count, 0, unseen=UNSEEN), blobs(60, 1, unseen=UNSEEN)
    head = fit(train, val, CLASSES, 0).head
    anywhere = 20 * np.random.default_rng(5).normal(size=(500, DIM)).astype(np.float32)
    s_NC = head.logits(np.concatenate([TEST.features[slice(None)], anywhere]))
    assert s_NC.dtype == np.float32
    assert np.isfinite(s_NC).all()
    assert UNSEEN not in s_NC.argmax(1)


def test_photos_of_none_of_the_classes_are_passed_over(fit) -> None:
    labels = np.append(TRAIN.labels, np.full(20, -1))
    x_ND = np.concatenate([TRAIN.features[slice(None)], np.full((20, DIM), 1e3, np.float32)])
    odd = LabelledFeatures(Features.of(x_ND), labels, (*TRAIN.ids, *map(str, range(20))))
    with_odd, without = (fit(each, VAL, CLASSES, 0).head for each in (odd, TRAIN))
    x_ND = TEST.features[slice(None)]
    np.testing.assert_allclose(with_odd.logits(x_ND), without.logits(x_ND), rtol=1e-3, atol=1e-3)


def test_without_validation_photos_it_still_learns(fit) -> None:
    head = fit(TRAIN, VAL.where(np.zeros(len(VAL), np.bool_)), CLASSES, 0).head
    assert error(head, TEST) <= 0.02
    assert np.isfinite(head.logits_of(TEST.features)).all()


def wide(count: int, seed: int) -> LabelledFeatures:
    """A hundred features, one of which never varies."""
    centres = np.random.default_rng(98).normal(size=(3, 100))
    labels = np.arange(count) % 3
    x_ND = centres[labels] + np.random.default_rng(seed).normal(size=(count, 100))
    x_ND[:, 50] = 7
    ids = tuple(f"{seed}-{number}" for number in range(count))
    return LabelledFeatures(Features.of(x_ND.astype(np.float32)), labels, ids)


def test_a_feature_that_never_varies_and_fewer_photos_than_features(fit) -> None:
    val = wide(60, 1)
    head = fit(wide(30, 0), val, 3, 0).head
    assert error(head, val) <= 0.05
    assert np.isfinite(head.logits_of(val.features)).all()


def test_one_photo_of_each_class(fit) -> None:
    """Too few to choose anything by: no certainty, and not the opposite of what was seen."""
    val = blobs(12, 1)
    first = [int(np.flatnonzero(TRAIN.labels == number)[0]) for number in range(CLASSES)]
    train = TRAIN.where(np.isin(np.arange(len(TRAIN)), first))
    found = fit(train, val, CLASSES, 0)
    assert error(found.head, TEST) <= 0.1
    assert loss(found.head, TEST) < np.log(CLASSES)
    assert found.val_loss == pytest.approx(loss(found.head, val), abs=0.01)


@pytest.mark.parametrize("photos", [0, 1, 20])
def test_photos_of_one_class_or_none(fit, photos: int) -> None:
    """A fold of very few photos may hold no more: what was seen is the answer, nothing breaks."""
    of_one = TRAIN.where(TRAIN.labels == 2)
    train = of_one.where(np.arange(len(of_one)) < photos)
    for val in (VAL, VAL.where(VAL.labels == 2), VAL.where(np.zeros(len(VAL), np.bool_))):
        found = fit(train, val, CLASSES, 0)
        s_NC = found.head.logits_of(TEST.features)
        assert np.isfinite(s_NC).all()
        if photos:
            assert set(s_NC.argmax(1)) == {2}
        if len(val):
            assert found.val_loss == pytest.approx(loss(found.head, val), abs=0.01)


def test_its_tensors_are_all_there_is_to_it(fit) -> None:
    head = fit(TRAIN, VAL, CLASSES, 0).head
    kept = head.tensors()
    assert all(isinstance(tensor, np.ndarray) for tensor in kept.values())
    again = type(head).from_tensors({name: tensor.copy() for name, tensor in kept.items()})
    x_ND = TEST.features[slice(None)]
    np.testing.assert_array_equal(again.logits(x_ND), head.logits(x_ND))


def test_it_reads_features_from_the_disk(fit, tmp_path: Path) -> None:
    cache = FeatureStore(tmp_path).cache("network", "crop", DIM)
    keys = [f"{number:064x}" for number in range(len(TRAIN))]
    with cache.writing() as writer:
        writer.append(keys, TRAIN.features[slice(None)])
    there = LabelledFeatures(cache.get(keys), TRAIN.labels, TRAIN.ids)
    assert isinstance(there.features.vectors, np.memmap)
    x_ND = TEST.features[slice(None)]
    here, from_disk = (fit(each, VAL, CLASSES, 0).head.logits(x_ND) for each in (TRAIN, there))
    np.testing.assert_array_equal(here.argmax(1), from_disk.argmax(1))


def test_every_method_for_rare_classes_is_a_head() -> None:
    assert set(class_imbalance.METHODS) < set(HEADS)
