"""Each photo measured by a head that saw neither it nor its group, chosen and calibrated without it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from threading import Lock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldmark.data.cross_validation import FOLDS, folds
from fieldmark.data.photos import PhotoFile
from fieldmark.data.subset import LabelledPhotos
from fieldmark.evaluation import calibration, metrics
from fieldmark.evaluation.results import Evaluation
from fieldmark.features.cache import Features
from fieldmark.features.labelled import LabelledFeatures
from fieldmark.heads import logistic
from fieldmark.heads.base import LinearHead
from fieldmark.training.cross_fitting import HEADS_LEARNED, CrossFit, Learn
from fieldmark.training.summary import Measurement

DIM = 6


def photos_of(classes: list[int], groups: list[str | None]) -> tuple[LabelledFeatures, LabelledPhotos]:
    """Photos of these classes in these groups, with features that tell the classes apart, mostly."""
    count, labels = len(classes), np.array(classes, np.int64)
    ids = tuple(f"p{at:03}" for at in range(count))
    taxa = tuple(f"taxon {each}" for each in classes)
    centres = np.random.default_rng(99).normal(size=(max(classes) + 1, DIM))
    x_ND = centres[labels] + np.random.default_rng(1).normal(size=(count, DIM))
    features = LabelledFeatures(Features.of(x_ND.astype(np.float32)), labels, ids)
    files = tuple(PhotoFile(photo_id, Path(photo_id)) for photo_id in ids)
    return features, LabelledPhotos(ids, files, taxa, tuple(groups), ("",) * count)


def some(photos: int = 120, classes: int = 4) -> tuple[LabelledFeatures, LabelledPhotos]:
    """Groups of three photos of one class, and photos that stand alone."""
    labels = [at // 3 % classes for at in range(photos)]
    return photos_of(labels, [f"group {at // 3}" if at // 3 % 2 else None for at in range(photos)])


def fit(features: LabelledFeatures, photos: LabelledPhotos, learn: Learn | None = None) -> CrossFit:
    classes = int(features.labels.max()) + 1
    return CrossFit(features, photos, learn or (lambda got: logistic.candidates(got, classes)), 0)


class Recorder:
    """Learns heads whose logits tell which of them it was, and keeps the photos that each saw."""

    def __init__(self, classes: int) -> None:
        self.classes, self.lock = classes, Lock()  # folds are learned side by side
        self.learned: list[set[str]] = []

    def __call__(self, features: LabelledFeatures) -> Mapping[str, LinearHead]:
        with self.lock:
            self.learned.append(set(features.ids))
            number = len(self.learned) - 1
        weight = np.zeros((DIM, self.classes), np.float32)
        bias = np.full(self.classes, np.float32(number))
        bias[0] += 1  # not all the same, so that a loss can be computed
        return {"one": LinearHead(weight, bias), "two": LinearHead(weight, bias)}

    def saw(self, logits_C: np.ndarray) -> set[str]:
        """The photos that the head with these logits learned from."""
        return self.learned[round(float(logits_C[-1]))]


def by_unit(photos: LabelledPhotos) -> dict[str, set[str]]:
    """For each photo, the photos of its group, itself among them."""
    members: dict[str, set[str]] = {}
    for photo_id, group in zip(photos.ids, photos.groups, strict=True):
        members.setdefault(group or photo_id, set()).add(photo_id)
    return {
        photo_id: members[group or photo_id]
        for photo_id, group in zip(photos.ids, photos.groups, strict=True)
    }


KINDS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 8)), min_size=2, max_size=60)


@settings(max_examples=40)
@given(KINDS)
def test_no_head_saw_a_photo_that_it_measures_nor_its_group(drawn: list[tuple[int, int]]) -> None:
    """Whatever the groups, of one class or of several."""
    classes, groups = [each for each, _ in drawn], [f"g{n}" if n > 3 else None for _, n in drawn]
    features, photos = photos_of([*classes, 3], [*groups, None])
    learn, unit = Recorder(4), by_unit(photos)
    found = CrossFit(features, photos, learn, 0)
    fold_N = folds(photos, FOLDS, 0)
    measured = []
    for each in found.rounds:
        numbers, own = each.measured.numbers_M, set(fold_N[each.measured.numbers_M])
        assert len(own) == 1
        measured += numbers.tolist()
        for number, logits_C in zip(numbers, each.measured.logits_MC, strict=True):
            assert not learn.saw(logits_C) & unit[photos.ids[number]]
        # What it is chosen and calibrated by is of other folds, by heads that saw neither.
        inner = each.choice.found
        assert not own & set(fold_N[inner.numbers_M])
        fold_photos = {photos.ids[number] for number in np.flatnonzero(fold_N == own.pop())}
        for number, logits_C in zip(inner.numbers_M, inner.logits_MC, strict=True):
            assert not learn.saw(logits_C) & (unit[photos.ids[number]] | fold_photos)
    assert len(measured) == len(set(measured))
    for number, logits_C in zip(found.choice.found.numbers_M, found.choice.found.logits_MC, strict=True):
        assert not learn.saw(logits_C) & unit[photos.ids[number]]
    assert learn.saw(found.head.bias) == set(photos.ids)  # what is delivered learned from all


def test_every_photo_is_measured_once_and_the_candidates_are_learned_so_many_times() -> None:
    features, photos = some()
    learn, ticks = Recorder(4), []
    found = CrossFit(features, photos, learn, 0, lambda: ticks.append(1))
    assert len(found.rounds) == FOLDS
    assert sorted(np.concatenate([each.measured.numbers_M for each in found.rounds])) == [*range(120)]
    assert sorted(found.choice.found.numbers_M) == [*range(120)]
    assert found.head is found.heads[found.choice.name]
    assert len(learn.learned) == len(ticks) == HEADS_LEARNED


def test_a_fold_is_measured_by_the_chosen_head_of_the_other_folds() -> None:
    """Written out for one fold, with the same folds."""
    features, photos = some()
    fold_N, found = folds(photos, FOLDS, 0), fit(*some())
    each = found.rounds[2]
    heads = logistic.candidates(features.where(fold_N != 2), 4)
    expected = heads[each.choice.name].logits(features.features[fold_N == 2])
    np.testing.assert_allclose(each.measured.logits_MC, expected, atol=1e-5)
    np.testing.assert_array_equal(each.measured.numbers_M, np.flatnonzero(fold_N == 2))
    for name, loss in each.choice.losses.items():
        numbers, logits = [], []
        for other in (0, 1, 3, 4):
            head = logistic.candidates(features.where(~np.isin(fold_N, (2, other))), 4)[name]
            numbers.append(np.flatnonzero(fold_N == other))
            logits.append(head.logits(features.features[fold_N == other]))
        labels_M = features.labels[np.concatenate(numbers)]
        groups = [photos.groups[number] for number in np.concatenate(numbers)]
        heat = calibration.fit_temperature(np.concatenate(logits), labels_M, groups)
        assert loss == pytest.approx(
            metrics.negative_log_likelihood(np.concatenate(logits) / np.float32(heat), labels_M), rel=1e-4
        )
    assert each.choice.losses[each.choice.name] == min(each.choice.losses.values())


@pytest.mark.parametrize("fold", range(FOLDS))
def test_the_labels_of_a_fold_change_nothing_of_how_it_is_measured(fold: int) -> None:
    """Neither its logits, nor the choice, nor what it is calibrated by: only the other folds."""
    features, photos = some()
    inside_N = folds(photos, FOLDS, 0) == fold
    labels_N = features.labels.copy()
    labels_N[inside_N] = (labels_N[inside_N] + 1) % 4
    scrambled = replace(features, labels=labels_N)
    before, after = fit(features, photos), fit(scrambled, photos)
    one, other = before.rounds[fold], after.rounds[fold]
    np.testing.assert_array_equal(one.measured.numbers_M, other.measured.numbers_M)
    np.testing.assert_array_equal(one.measured.logits_MC, other.measured.logits_MC)
    assert one.choice.name == other.choice.name
    assert one.choice.losses == other.choice.losses
    np.testing.assert_array_equal(one.choice.found.numbers_M, other.choice.found.numbers_M)
    np.testing.assert_array_equal(one.choice.found.logits_MC, other.choice.found.logits_MC)
    assert not np.isin(one.choice.found.numbers_M, np.flatnonzero(inside_N)).any()
    # It does change the others, and what is delivered; else this shows nothing.
    elsewhere = (fold + 1) % FOLDS
    assert (
        np.abs(before.rounds[elsewhere].measured.logits_MC - after.rounds[elsewhere].measured.logits_MC).max()
        > 1e-3
    )
    assert np.abs(before.head.weight - after.head.weight).max() > 1e-3


def measurement(features: LabelledFeatures, photos: LabelledPhotos, found: CrossFit) -> Measurement:
    """What is said of the photos that were measured."""
    numbers = np.sort(np.concatenate([each.measured.numbers_M for each in found.rounds]))
    classes = tuple(f"taxon {each}" for each in range(int(features.labels.max()) + 1))
    keep_N = np.isin(np.arange(len(photos)), numbers)
    scores = np.zeros((len(numbers), len(classes)), np.float32)
    return Measurement.of(Evaluation.of(photos.where(keep_N), scores, classes), len(photos), folds=FOLDS)


def test_a_class_of_one_group_is_not_measured_and_is_named() -> None:
    """Nobody can say how well it is told: whoever measures it never saw the class."""
    features, photos = photos_of(
        [*[0] * 30, *[1] * 30, *[2] * 8, 3],
        [*(None,) * 30, *(f"group {at // 2}" for at in range(30)), *("one walk",) * 8, None],
    )
    found = fit(features, photos)
    measured = np.concatenate([each.measured.numbers_M for each in found.rounds])
    assert set(features.labels[measured]) == {0, 1}
    assert set(features.labels[found.choice.found.numbers_M]) == {0, 1}
    told = measurement(features, photos, found)
    assert told.unmeasured == ("taxon 2", "taxon 3")
    assert told.few_groups == ()
    assert (told.photos, told.groups, told.learned, told.folds) == (60, 45, 69, FOLDS)
    assert "could not be measured (their photos are all of one group): 2." in told.said
    assert told.share_learned == pytest.approx(0.8)
    assert told.least_ratio == pytest.approx(0.8)
    assert "learned from 80 % of each class on average" in told.said
    # It is learned all the same.
    own = found.head.logits_of(features.where(features.labels == 2).features)
    assert (own.argmax(1) == 2).any()


def test_classes_of_few_groups_are_named() -> None:
    features, photos = photos_of(
        [*[0] * 20, *[1] * 20, *[2] * 12], [*(None,) * 40, *(f"walk {at % 3}" for at in range(12))]
    )
    told = measurement(features, photos, fit(features, photos))
    assert (told.unmeasured, told.few_groups) == ((), ("taxon 2",))
    assert "fewer than 5 groups, of which little can be said: 1." in told.said
    assert told.share_learned == pytest.approx((0.8 + 0.8 + 2 / 3) / 3)


def test_the_low_ends_of_all_intervals_allow_for_what_the_folds_did_not_learn_from() -> None:
    scores_NC = np.random.default_rng(0).normal(0, 1, (90, 3)).astype(np.float32)
    _, photos = photos_of([at % 3 for at in range(90)], [None] * 90)
    evaluation = Evaluation.of(photos, scores_NC, ["taxon 0", "taxon 1", "taxon 2"])
    whole, folds = evaluation.summary(), evaluation.summary(share_learned=0.8)
    for name in ("top1_error", "top1_error_all_classes", "macro_error", "group_error"):
        low, high = getattr(whole, f"{name}_interval")
        assert getattr(folds, f"{name}_interval") == pytest.approx((0.8 * low, high))
        assert getattr(folds, name) == getattr(whole, name)


@pytest.mark.parametrize(("each", "measured"), [(1, 0), (2, 12), (3, 18)])
def test_one_to_three_photos_a_class(each: int, measured: int) -> None:
    """With one photo a class nothing is measured, with two each by a head that saw the other one."""
    features, photos = photos_of([at // each for at in range(6 * each)], [None] * (6 * each))
    found = fit(features, photos)
    assert sum(len(one.measured.numbers_M) for one in found.rounds) == measured
    assert found.head.weight.shape == (DIM, 6)
    assert np.isfinite(found.head.weight).all()
    assert np.isnan([*found.choice.losses.values()]).all() == (measured == 0)
    right = found.head.logits_of(features.features).argmax(1) == features.labels
    assert right.mean() > 0.6
    for one in found.rounds:
        assert np.isfinite(one.measured.logits_MC).all()


def test_photos_of_one_group_only_are_learned_and_not_measured() -> None:
    features, photos = photos_of([at % 3 for at in range(30)], ["one walk"] * 30)
    found = fit(features, photos)
    assert found.rounds == []
    assert len(found.choice.found.numbers_M) == 0
    assert found.choice.name == list(found.heads)[-1]  # nothing speaks for any: the weakest
    assert np.isfinite(found.head.weight).all()


def test_the_folds_are_a_function_of_the_seed() -> None:
    features, photos = some()
    first, again = fit(features, photos), fit(features, photos)
    np.testing.assert_array_equal(first.rounds[0].measured.numbers_M, again.rounds[0].measured.numbers_M)
    np.testing.assert_array_equal(first.head.weight, again.head.weight)
    other = CrossFit(features, photos, Recorder(4), 1)
    assert set(other.rounds[0].measured.numbers_M) != set(first.rounds[0].measured.numbers_M)


def test_what_cannot_be_known_is_measured_as_not_known() -> None:
    """Bursts of nearly the same photo, whose labels mean nothing: a photo's like gives it away."""
    chance, wrong = np.random.default_rng(5), []
    for _ in range(3):
        label_U = chance.permutation(40) % 4
        features, photos = photos_of(
            np.repeat(label_U, 4).tolist(), [f"burst {at // 4}" for at in range(160)]
        )
        x_ND = np.repeat(chance.normal(size=(40, 60)), 4, axis=0) + 0.01 * chance.normal(size=(160, 60))
        features = replace(features, features=Features.of(x_ND.astype(np.float32)))
        for torn, told in ((photos, wrong), (replace(photos, groups=(None,) * 160), [])):
            for each in fit(features, torn).rounds:
                labels_M = features.labels[each.measured.numbers_M]
                told.extend(each.measured.logits_MC.argmax(1) != labels_M)
        assert np.mean(told) < 0.1  # torn apart, they seem to be known
    assert np.mean(wrong) > 0.68


def test_the_low_end_allows_for_classes_that_a_fold_makes_rarer_than_they_are() -> None:
    """Of a class of two photos a fold takes half, of the photos in all a fifth."""
    features, photos = photos_of(np.repeat(np.arange(30), 2).tolist(), [None] * 60)
    told = measurement(features, photos, fit(features, photos))
    assert told.share_learned == pytest.approx(0.5)
    assert told.least_ratio == pytest.approx(0.5 * 0.5 / 0.8)
