"""Classes with few photos: every method against what its paper's formula gives, worked out anew."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from fieldmark.data import cross_validation as cross
from fieldmark.data.subset import LabelledPhotos
from fieldmark.evaluation import calibration, metrics
from fieldmark.evaluation.comparison import difference
from fieldmark.evaluation.results import Evaluation
from fieldmark.experiments.recipes import RECIPES
from fieldmark.experiments.runs import Options, Recipe, Run
from fieldmark.experiments.study import StudyConfig, rare_classes, study
from fieldmark.features.cache import Features
from fieldmark.features.labelled import LabelledFeatures
from fieldmark.heads import class_imbalance
from fieldmark.heads.base import LinearHead, Scaling
from fieldmark.heads.softmax import Hyperparameters, Training, cosine, fit
from fieldmark.utils import random

pytestmark = pytest.mark.usefixtures("one_cache")


SHUFFLE = "shufflenet_v2_x0_5"
COUNTS = np.array([200, 80, 25, 10, 5])


def tailed(counts: np.ndarray = COUNTS, dim: int = 12, seed: int = 0) -> LabelledFeatures:
    """Classes near each other, the last with few photos."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(len(counts), dim)) * 0.7
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    x_ND = (centres[labels] + rng.normal(size=(len(labels), dim))).astype(np.float32)
    return LabelledFeatures(Features.of(x_ND), labels, tuple(f"p{i}" for i in range(len(labels))))


TRAIN, TEST = tailed(), tailed(np.full(5, 200), seed=1)


@pytest.mark.parametrize("changed", ["weights", "offsets"])
def test_weights_and_offsets_are_those_of_pytorchs_loss(changed: str) -> None:
    given_C = (0.5, 1.0, 1.5, 3.0, 0.25)
    hyperparameters = (
        Hyperparameters(3e-3, class_weights=given_C)
        if changed == "weights"
        else Hyperparameters(3e-3, offsets=given_C)
    )
    ours = fit(TRAIN, TEST, 5, Training(2, 32, 4, standardise=False), hyperparameters)
    layer = torch.nn.Linear(12, 5)
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    optimiser = torch.optim.AdamW(layer.parameters(), lr=3e-3, weight_decay=0.0)
    hashes, given = random.hashes(TRAIN.ids, "order", 4), torch.tensor(given_C)
    steps, step = 2 * math.ceil(len(TRAIN) / 32), 0
    for epoch in range(2):
        order = random.epoch_order(hashes, epoch)
        for start in range(0, len(order), 32):
            index = order[start : start + 32]
            optimiser.param_groups[0]["lr"] = 3e-3 * cosine(step, steps)
            logits = layer(torch.from_numpy(TRAIN.features[index]))
            y_B = torch.from_numpy(TRAIN.labels[index])
            weight = given if changed == "weights" else None
            logits = logits if changed == "weights" else logits + given
            optimiser.zero_grad()
            functional.cross_entropy(logits, y_B, weight=weight).backward()
            optimiser.step()
            step += 1
    np.testing.assert_allclose(ours.head.weight, layer.weight.detach().numpy().T, atol=1e-5)
    np.testing.assert_allclose(ours.head.bias, layer.bias.detach().numpy(), atol=1e-5)


@given(st.lists(st.floats(0, 4), min_size=1, max_size=40), st.integers(0, 50))
def test_a_photo_is_drawn_about_as_often_as_it_should_be(times: list[float], epoch: int) -> None:
    base = random.hashes([f"p{i}" for i in range(len(times))], "order", 0)
    order = random.repeated_order(base, epoch, np.array(times))
    seen = Counter(order.tolist())
    for at, want in enumerate(times):
        assert math.floor(want) <= seen[at] <= math.floor(want) + 1
    # Another order of the same photos draws the same sequence of photos.
    turned = random.repeated_order(base[::-1].copy(), epoch, np.array(times[::-1]))
    assert (len(times) - 1 - turned).tolist() == order.tolist()


def test_every_photo_once_is_drawn_once() -> None:
    base = random.hashes(TRAIN.ids, "order", 0)
    order = random.repeated_order(base, 3, np.ones(len(TRAIN)))
    assert sorted(order.tolist()) == list(range(len(TRAIN)))


def test_even_sampling_shows_every_class_equally_often() -> None:
    from fieldmark.heads.softmax import _times

    for evenness, power in ((0.0, 1.0), (0.5, 0.5), (1.0, 0.0)):
        times_N = _times(TRAIN.labels, 5, evenness)
        share_C = np.bincount(TRAIN.labels, weights=times_N) / times_N.sum()
        np.testing.assert_allclose(share_C, COUNTS**power / (COUNTS**power).sum())
        assert times_N.sum() == pytest.approx(len(TRAIN))


def test_the_weights_of_classes_are_those_of_their_papers() -> None:
    for weight_C in (
        class_imbalance.inverse_frequency(COUNTS, 1.0),
        class_imbalance.effective_number(COUNTS, 0.9),
    ):
        assert (weight_C * COUNTS).sum() == pytest.approx(COUNTS.sum())
    ratio = class_imbalance.inverse_frequency(COUNTS, 1.0)
    assert ratio[4] / ratio[0] == pytest.approx(200 / 5)
    # Cui et al.: the effective number is the sum of beta^0 ... beta^(n - 1).
    effective = [sum(0.9**power for power in range(count)) for count in COUNTS]
    weight_C = class_imbalance.effective_number(COUNTS, 0.9)
    np.testing.assert_allclose(weight_C / weight_C[0], effective[0] / np.array(effective))


def test_adjusting_by_the_whole_prior_is_bayes_rule_for_even_classes() -> None:
    head = fit(TRAIN, TEST, 5, Training(5), Hyperparameters()).head
    log_prior_C = class_imbalance.prior(COUNTS)
    x_ND = TEST.features[slice(0, 50)]
    p_NC = np.exp(metrics.log_softmax(head.logits(x_ND)))
    bayes = p_NC / (COUNTS / COUNTS.sum())
    even = np.exp(metrics.log_softmax(class_imbalance.adjusted(head, log_prior_C, 1.0).logits(x_ND)))
    np.testing.assert_allclose(even, bayes / bayes.sum(1, keepdims=True), rtol=1e-4)


@pytest.mark.parametrize("epochs", [2, 300])
def test_the_prior_is_in_the_units_of_the_logits_that_it_is_taken_off(epochs: int) -> None:
    """A head that was trained too briefly or too long is far from log-probabilities."""
    photos, how, rate = tailed(dim=60), Training(epochs, 32), class_imbalance.RATES[2]
    first = np.empty(len(photos), np.bool_)  # every second one of each class
    first[np.argsort(photos.labels, kind="stable")] = np.arange(len(photos)) % 2 == 0
    mixed = np.random.default_rng(3).permutation(photos.labels)
    labels = np.where(np.arange(len(photos)) % 3 == 0, mixed, photos.labels)
    photos = LabelledFeatures(photos.features, labels, photos.ids)
    learn, rest = photos.where(first), photos.where(~first)
    plain = fit(learn, rest, 5, how, Hyperparameters(rate)).head
    temperature = calibration.fit_temperature(plain.logits_of(rest.features), rest.labels)
    assert temperature < 0.7 if epochs == 2 else temperature > 1.5  # else this shows nothing
    # It is that of heads which saw none of the photos that it is fitted on, whatever is learned from.
    for some in (learn, photos):
        alone = fit(some, rest, 5, how, Hyperparameters(rate)).head
        log_prior_C = class_imbalance.prior(np.bincount(some.labels, minlength=5))
        found = class_imbalance.fit_methods(some, 5, how, ["adjusted"], calibration=(learn, rest))
        adjusted = [each for each in found if each.method == "adjusted"]
        for each in [each for each in adjusted if each.setting[0] == rate]:
            expected_C = each.setting[1] * temperature * log_prior_C
            np.testing.assert_allclose(alone.bias - each.head.bias, expected_C, rtol=0.1)


def test_normalising_makes_the_weights_of_all_classes_equally_long() -> None:
    scaling = Scaling.of(TRAIN.features)
    head = fit(TRAIN, TEST, 5, Training(5), Hyperparameters()).head
    same = class_imbalance.normalised(head, scaling, 0.0)
    np.testing.assert_allclose(same.weight, head.weight, atol=1e-6)
    own = scaling.unfold(class_imbalance.normalised(head, scaling, 1.0)).weight
    np.testing.assert_allclose(np.linalg.norm(own, axis=0) / np.linalg.norm(own[:, 0]), 1, rtol=1e-4)


def test_every_method_gives_heads_and_helps_rare_classes() -> None:
    found = class_imbalance.fit_methods(TRAIN, 5, Training(10))
    assert {each.method for each in found} == {class_imbalance.PLAIN, *class_imbalance.METHODS}

    def tail_error(head: LinearHead) -> float:
        wrong = head.logits_of(TEST.features).argmax(1) != TEST.labels
        return float(wrong[TEST.labels >= 2].mean())

    plain = min(tail_error(each.head) for each in found if each.method == class_imbalance.PLAIN)
    for method in class_imbalance.METHODS:
        assert min(tail_error(each.head) for each in found if each.method == method) < plain, method


def test_photos_that_are_watched_have_a_curve_and_no_say() -> None:
    plain = class_imbalance.fit_methods(TRAIN, 5, Training(3))
    monitored = class_imbalance.fit_methods(TRAIN, 5, Training(3), monitored=TEST)
    for one, other in zip(plain, monitored, strict=True):
        np.testing.assert_array_equal(one.head.weight, other.head.weight)
        assert not one.curve
    last = next(each for each in monitored if each.method == class_imbalance.PLAIN)
    p_NC = metrics.log_softmax(last.head.logits_of(TEST.features))
    assert last.curve[-1].val_loss == pytest.approx(-p_NC[np.arange(len(TEST)), TEST.labels].mean(), rel=1e-4)


def test_the_choice_takes_no_help_that_costs_too_much() -> None:
    labels = np.repeat([0, 1], [90, 10])
    tail_C = np.array([False, True])

    def answers(head: int, tail: int) -> np.ndarray:
        wrong = np.zeros(100, np.bool_)
        wrong[:head], wrong[90 : 90 + tail] = True, True
        return wrong

    plain = answers(40, 8)
    dear, good, weak = answers(50, 0), answers(44, 4), answers(41, 7)
    assert class_imbalance.choose_trial([dear, weak, good], plain, labels, tail_C) == 2
    assert class_imbalance.choose_trial([dear, answers(60, 0)], plain, labels, tail_C) == 0
    assert class_imbalance.choose_trial([weak, good], plain, labels, np.array([False, False])) == 1


def test_bands_and_their_errors() -> None:
    counts = {"a": 200, "b": 99, "c": 30, "d": 29}
    labels = np.array([0, 0, 1, 2, 3, 3, 3, 3])
    scores = np.full((8, 4), 0.0, np.float32)
    scores[np.arange(8), [0, 1, 1, 2, 3, 0, 0, 3]] = 1
    ids, none = tuple("12345678"), (None,) * 8
    one = Evaluation(scores, labels, ids, tuple("abcd"), none, ("",) * 8)
    found = one.banded(counts)
    assert {name: (band["classes"], band["photos"]) for name, band in found.items()} == {
        "tail": (1, 4),
        "medium": (2, 2),
        "head": (1, 2),
    }
    assert (found["tail"]["error"], found["medium"]["error"], found["head"]["error"]) == (0.5, 0, 0.5)
    right = np.full((8, 4), 0.0, np.float32)
    right[np.arange(8), labels] = 1
    better = Evaluation(right, labels, ids, tuple("abcd"), none, ("",) * 8)
    assert difference(better, one, classes={"d"}, macro=True).value == -0.5
    assert difference(better, one, macro=True).value == pytest.approx(-(0.5 + 0.5) / 4)
    assert difference(better, one, classes={"a", "d"}).photos == 6


def test_a_setting_is_chosen_by_heads_that_never_saw_the_fold_it_is_chosen_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Heads that are right wherever they saw fold 0 show who saw it: neither those of a photo in it, nor
    those that choose for it."""
    ids = tuple(f"p{at}" for at in range(40))
    photos = LabelledPhotos(ids, (), ("a", "b") * 20, (None,) * 40, ("",) * 40)
    labels = photos.labels(("a", "b"))
    labelled = LabelledFeatures(Features.of(np.eye(2, dtype=np.float32)[labels]), labels, ids)
    folds = cross.folds(photos, cross.FOLDS, 0)
    first = {ids[at] for at in np.flatnonzero(folds == 0)}
    calls = []

    def telling(learn: LabelledFeatures, *_: object) -> list[class_imbalance.ImbalanceTrial]:
        calls.append(set(learn.ids))
        right = np.eye(2) if first & set(learn.ids) else 1 - np.eye(2)
        head = LinearHead(right.astype(np.float32), np.zeros(2, np.float32))
        return [class_imbalance.ImbalanceTrial(class_imbalance.PLAIN, (1e-3, 0.0), head)]

    monkeypatch.setattr(class_imbalance, "fit_methods", telling)
    run = Run("tail", "Plain", SHUFFLE, mode="tail", head="plain", part="cross")
    work: Any = SimpleNamespace(
        seed=0,
        runs=[run],
        data=SimpleNamespace(
            parts=SimpleNamespace(train=photos, val=LabelledPhotos((), (), (), (), ())),
            classes=lambda _: ("a", "b"),
        ),
        networks=SimpleNamespace(of=lambda _: None),
        view=lambda _: SimpleNamespace(features=lambda *_: labelled),
        trials={},
        sweep_key=lambda run: (run.backbone, run.epochs, ("a", "b")),
    )
    found = rare_classes.trials_of(work, run)
    for fold in range(cross.FOLDS):
        unseen = (folds == 0) | (fold == 0)
        np.testing.assert_array_equal(found.wrong_FMN[fold, 0], unseen)
    np.testing.assert_array_equal(found.own_MN[0], folds == 0)
    assert len(calls) == cross.FOLDS * (cross.FOLDS + 1) // 2


def test_the_recipe_measures_every_row_in_folds_and_beside_the_first(insects: Path, tmp_path: Path) -> None:
    made = RECIPES["better"](Options(epochs=2, long_epochs=4))
    assert len({run.id for run in made.runs}) == len(made.runs)
    small = Recipe(
        "small",
        "Small",
        tuple(
            replace(run, backbone=run.backbone and SHUFFLE)
            for run in made.runs
            if (run.table in ("heads", "views", "tail", "tail-test", "prune") or run.mode == "early")
            and run.prune_below in (None, 30)
        ),
    )
    network = replace(small.runs[0], table="networks", backbone=SHUFFLE)
    ridge = replace(network, head="ridge", label="Ridge")
    together = next(run for run in made.runs if run.combine == "weights")
    config = StudyConfig(
        groups="none", options=Options(epochs=2), engine="torch", prune_below=2, bands=(12, 14)
    )
    runs = [replace(run, prune_below=13) if run.pruned else run for run in small.runs]
    made = Recipe("small", "Small", (*runs, network, ridge, together))
    found = study(insects, made, config, out=tmp_path, command="c")
    rows = {row["id"]: row for row in found["rows"]}
    photos = found["data"]["split"]["train"] + found["data"]["split"]["val"]
    for row in found["rows"]:
        assert row["photos"] == (found["data"]["split"]["test"] if row["part"] == "test" else photos)
        assert sum(band["classes"] for band in row["bands"].values()) == row["classes"]
    whole = Evaluation.load(tmp_path / next(r for r in found["rows"])["scores"])
    assert len(set(whole.photo_ids)) == photos
    for each in found["differences"]:
        assert each["interval"][0] <= each["value"] <= each["interval"][1]
        assert each["tie"] == (each["interval"][0] <= 0 <= each["interval"][1])
        if each["over"] == "all":
            key = "val_top1_error_all_classes"
            expected = rows[each["row"]][key] - rows[each["reference"]][key]
            assert each["value"] == pytest.approx(expected)
    page = (tmp_path / "report.html").read_text()
    for said in (
        "Rare classes, on the test photos",
        "Pruning rare classes, at several",
        "Ensembles of networks",
    ):
        assert said in page
    (early,) = (row for row in found["rows"] if row["mode"] == "early")
    assert len(early["stopped"]) == cross.FOLDS
    assert all(1 <= each["kept"] <= each["epochs"] <= 4 for each in early["stopped"])
    assert len(early["curve"]) == min(each["epochs"] for each in early["stopped"])
    named = {row["label"]: row for row in found["rows"] if row["table"] in ("tail", "heads")}
    plain, softmax = named["Plain softmax"], named["Softmax, the default"]
    assert [each["epoch"] for each in plain["curve"]] == [1, 2]
    assert all(each["val_loss"] > 0 for each in plain["curve"])
    assert len(softmax["curve"]) == softmax["epochs"]
    assert not named["Ridge"]["curve"]
    assert named["Ridge"]["epochs"] is None
    by_height = named["Default, least expected height"]
    assert by_height["val_log_loss"] is None
    assert softmax["taxonomic"]["height"] >= 0
    assert by_height["key"] != softmax["key"]
    mixed = next(row for row in found["rows"] if row["mode"] == "ensemble")
    assert sum(mixed["member_weights"].values()) == pytest.approx(1)
