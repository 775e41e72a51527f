"""Heads: against PyTorch's own training, against scikit-learn, and many at once against one."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn import functional

from fieldmark.features.cache import Features
from fieldmark.features.labelled import LabelledFeatures
from fieldmark.heads import default, layers_in_training, ridge
from fieldmark.heads.base import LinearHead, Scaling
from fieldmark.heads.scaling import fit_weights, subsample
from fieldmark.heads.selection import schedule
from fieldmark.heads.softmax import Hyperparameters, Training, cosine, fit, fit_sweep
from fieldmark.utils import random


def blobs(count: int, dim: int = 12, classes: int = 5, seed: int = 0) -> LabelledFeatures:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(classes, dim))
    labels = rng.integers(0, classes, count)
    x_ND = (centres[labels] + rng.normal(size=(count, dim)) * 0.9).astype(np.float32)
    return LabelledFeatures(Features.of(x_ND), labels, tuple(f"p{i}" for i in range(count)))


TRAIN, VAL = blobs(300), blobs(100, seed=1)


def test_scaling_folds_into_a_plain_linear_layer() -> None:
    rng = np.random.default_rng(3)
    x = (rng.normal(size=(50, 4)) * [1, 100, 0.01, 0] + [5, -3, 0, 7]).astype(np.float32)
    scaling = Scaling.of(Features.of(x))
    scaled = scaling.apply(x)
    np.testing.assert_allclose(scaled[:, :3].std(0), 1.0, rtol=1e-3)
    assert (scaled[:, 3] == 0).all()  # a feature that never varies says nothing
    head = LinearHead(rng.normal(size=(4, 3)).astype(np.float32), np.ones(3, np.float32))
    np.testing.assert_allclose(scaling.fold(head).logits(x), head.logits(scaled), atol=1e-3)


def test_the_update_is_pytorchs_adamw() -> None:
    hyperparameters = Hyperparameters(learning_rate=3e-3, weight_decay=0.1, label_smoothing=0.1)
    training = Training(epochs=3, batch_size=32, seed=4, standardise=False)
    ours = fit(TRAIN, VAL, 5, training, hyperparameters)
    layer = torch.nn.Linear(12, 5)
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    optimiser = torch.optim.AdamW(layer.parameters(), lr=3e-3, weight_decay=0.1)
    hashes = random.hashes(TRAIN.ids, "order", 4)
    steps, step = 3 * math.ceil(300 / 32), 0
    for epoch in range(3):
        order = random.epoch_order(hashes, epoch)
        for start in range(0, 300, 32):
            index = order[start : start + 32]
            for group in optimiser.param_groups:
                group["lr"] = 3e-3 * cosine(step, steps)
            logits = layer(torch.from_numpy(TRAIN.features[index]))
            loss = functional.cross_entropy(
                logits, torch.from_numpy(TRAIN.labels[index]), label_smoothing=0.1
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            step += 1
    np.testing.assert_allclose(ours.head.weight, layer.weight.detach().numpy().T, atol=1e-5)
    np.testing.assert_allclose(ours.head.bias, layer.bias.detach().numpy(), atol=1e-5)
    with torch.no_grad():
        scores = layer(torch.from_numpy(VAL.features[slice(None)]))
        loss = functional.cross_entropy(scores, torch.from_numpy(VAL.labels))
    assert ours.curve[-1].val_loss == pytest.approx(float(loss), abs=1e-5)


def test_many_at_once_are_what_each_is_alone() -> None:
    settings = [
        Hyperparameters(1e-3),
        Hyperparameters(1e-2, 0.1),
        Hyperparameters(3e-3, classes=(0, 2, 4)),
        Hyperparameters(3e-3, label_smoothing=0.2, classes=(1, 2)),
    ]
    training = Training(epochs=2, batch_size=50)
    together = fit_sweep(TRAIN, VAL, 5, training, settings)
    for hyperparameters, found in zip(settings, together, strict=True):
        alone = fit(TRAIN, VAL, 5, training, hyperparameters)
        np.testing.assert_allclose(found.head.weight, alone.head.weight, atol=1e-4)
        # Adam makes a step of a gradient that is zero but for rounding, so that a bias can differ.
        np.testing.assert_allclose(
            [each.val_loss for each in found.curve], [e.val_loss for e in alone.curve], atol=1e-3
        )


def test_blocks_of_large_layers_in_threads_are_one_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    """However few cores there are: the blocks depend on the layer alone."""
    settings = [Hyperparameters(1e-3, 0.1), Hyperparameters(1e-2, label_smoothing=0.1)]
    how = Training(epochs=2, batch_size=50)
    train, val = blobs(100, 150), blobs(40, 150, seed=1)  # three blocks of rows
    whole = fit_sweep(train, val, 5, how, settings)
    monkeypatch.setattr(layers_in_training, "_SMALL", 0)
    monkeypatch.setattr(layers_in_training, "_BLOCK", 5 * 64)
    monkeypatch.setattr(layers_in_training, "_COLUMNS", 2)
    monkeypatch.setattr("fieldmark.utils.cpu.cores", lambda: 3)
    several = fit_sweep(train, val, 5, how, settings)
    monkeypatch.setattr("fieldmark.utils.cpu.cores", lambda: 1)
    one = fit_sweep(train, val, 5, how, settings)
    for first, second, third in zip(whole, several, one, strict=True):
        np.testing.assert_allclose(second.head.weight, first.head.weight, atol=1e-4)
        np.testing.assert_array_equal(second.head.weight, third.head.weight)
        assert second.curve == third.curve


def test_a_class_that_is_not_learned_is_never_the_answer() -> None:
    found = fit(TRAIN, VAL, 5, Training(epochs=3), Hyperparameters(1e-2, classes=(0, 2, 4)))
    logits = found.head.logits_of(VAL.features)
    assert set(logits.argmax(1)) <= {0, 2, 4}
    assert np.isneginf(logits[:, [1, 3]]).all()
    seen = np.isin(VAL.labels, (0, 2, 4))
    error = (logits[seen].argmax(1) != VAL.labels[seen]).mean()
    assert found.curve[-1].val_error == pytest.approx(error)


def test_it_is_as_good_as_scikit_learns_solver() -> None:
    x, y = TRAIN.features[slice(None)], TRAIN.labels
    peer = LogisticRegression(C=1.0, max_iter=1000).fit(x, y)
    p = peer.predict_log_proba(VAL.features[slice(None)])
    peer_loss = -p[np.arange(len(VAL)), VAL.labels].mean()
    assert default.fit(TRAIN, VAL, 5).val_loss < peer_loss * 1.05


def test_the_same_seed_gives_the_same_head_and_the_order_of_rows_does_not_matter() -> None:
    shuffle = np.random.default_rng(0).permutation(len(TRAIN))
    mixed = LabelledFeatures(
        TRAIN.features.take(shuffle), TRAIN.labels[shuffle], tuple(TRAIN.ids[i] for i in shuffle)
    )
    first = fit(TRAIN, VAL, 5, Training(epochs=2), Hyperparameters())
    again = fit(mixed, VAL, 5, Training(epochs=2), Hyperparameters())
    np.testing.assert_allclose(first.head.weight, again.head.weight, atol=1e-5)
    other = fit(TRAIN, VAL, 5, Training(epochs=2, seed=1), Hyperparameters())
    assert np.abs(first.head.weight - other.head.weight).max() > 1e-4


def test_training_starts_from_a_given_layer() -> None:
    start = fit(TRAIN, VAL, 5, Training(epochs=5), Hyperparameters(1e-2)).head
    stay = fit(TRAIN, VAL, 5, Training(epochs=1), Hyperparameters(learning_rate=0.0, initial=start)).head
    x = VAL.features[slice(None)]
    np.testing.assert_allclose(stay.logits(x), start.logits(x), atol=1e-3)


@pytest.mark.parametrize(("count", "dim"), [(300, 12), (40, 60)])
def test_ridges_sums_are_the_decomposition_of_the_scaled_features(count: int, dim: int) -> None:
    photos = blobs(count, dim)
    x_ND = Scaling.of(photos.features).apply(photos.features[slice(None)]).astype(np.float64)
    sums = ridge.RidgeStatistics.of(photos, 5)
    rebuilt = (sums.vectors * sums.values) @ sums.vectors.T
    np.testing.assert_allclose(rebuilt.numpy(), x_ND.T @ x_ND, atol=1e-2)
    for number in range(5):
        own = x_ND[photos.labels == number].sum(0)
        np.testing.assert_allclose(sums.sum_DC[:, number], own, atol=1e-3)
    assert sums.count_C.tolist() == np.bincount(photos.labels, minlength=5).tolist()


def test_ridges_sums_lose_no_digits_to_a_large_mean() -> None:
    photos = blobs(300)
    far = Features.of(photos.features[slice(None)].astype(np.float64) + 1e4)
    moved = LabelledFeatures(far, photos.labels, photos.ids)
    values = [ridge.RidgeStatistics.of(each, 5).values.numpy() for each in (photos, moved)]
    np.testing.assert_allclose(values[0], values[1], rtol=1e-2)


def test_ridges_leave_one_out_scores_are_those_of_a_fit_without_the_photo() -> None:
    photos, strength = blobs(60), 0.3
    choice = ridge._RegularisationSearch(ridge.RidgeStatistics.of(photos, 5), photos, leave_one_out=True)
    weight_EC, _, inverse_E = choice._columns(strength)
    found = choice.x_NE @ weight_EC
    choice._leave_one_out(found, inverse_E)
    x_ND = choice.sums.scaling.apply(photos.features[slice(None)]).astype(np.float64)
    y_NC = np.eye(5)[photos.labels]
    penalty = strength * np.trace(x_ND.T @ x_ND) / 12 * np.eye(12)
    for out in (0, 17, 59):
        rest = np.delete(np.arange(60), out)
        x, y = x_ND[rest], y_NC[rest]
        middle, share = x.mean(0), y.mean(0)
        centred = (x - middle).T @ (x - middle)
        weight = np.linalg.solve(centred + penalty, (x - middle).T @ (y - share))
        expected = (x_ND[out] - middle) @ weight + share - y_NC.mean(0)
        np.testing.assert_allclose(found[out], expected, atol=1e-4)


def test_ridge_names_classes_with_few_photos_too() -> None:
    keep = (TRAIN.labels != 4) | (np.arange(300) % 12 == 0)
    rare = TRAIN.where(keep)
    assert 0 < (rare.labels == 4).sum() < 12
    head = ridge.fit(rare, VAL, 5).head
    fours = VAL.where(VAL.labels == 4)
    assert (head.logits_of(fours.features).argmax(1) == 4).mean() > 0.5


def test_the_fitted_factor_is_the_best_there_is() -> None:
    chance = np.random.default_rng(0)
    s_NC, y_N = chance.normal(size=(200, 4)).astype(np.float32), chance.integers(0, 4, 200)
    s_NC[np.arange(200), y_N] += 1
    scores, labels = torch.from_numpy(s_NC), torch.from_numpy(y_N)
    found = fit_weights((scores,), labels, ((1.0, 1.0),))
    tried = np.linspace(0.1, 3, 300)
    losses = [float(functional.cross_entropy(scores * factor, labels)) for factor in tried]
    assert found.loss == pytest.approx(min(losses), abs=1e-4)
    assert found.values[0] == pytest.approx(tried[np.argmin(losses)], abs=0.03)


def test_a_handful_of_photos_does_not_make_a_head_certain() -> None:
    scores, labels = torch.eye(3), torch.arange(3)
    assert fit_weights((scores,), labels, ((1.0, 1.0),)).values[0] < 5


def test_few_takes_the_same_photos_in_any_order() -> None:
    many = blobs(300)
    mixed = np.random.default_rng(0).permutation(300)
    again = LabelledFeatures(many.features.take(mixed), many.labels[mixed], tuple(many.ids[i] for i in mixed))
    classes = (1 << 24) // 100
    assert len(subsample(many, classes)) == 100
    assert set(subsample(many, classes).ids) == set(subsample(again, classes).ids)


@pytest.mark.parametrize(("photos", "dim", "classes"), [(0, 12, 3), (50, 12, 3), (20_000, 2_048, 1_000)])
def test_small_data_gets_as_many_updates_as_it_needs(photos: int, dim: int, classes: int) -> None:
    training, settings = schedule(photos), default.default_settings(photos, dim, classes)
    updates = training.epochs * math.ceil(photos / training.batch_size)
    assert photos == 0 or updates >= 150
    assert len(settings) >= 3


def test_the_default_stays_within_memory_at_a_million_photos() -> None:
    training, settings = schedule(1_000_000), default.default_settings(1_000_000, 2_048, 10_000)
    assert len(settings) * 2_048 * 10_000 * 16 <= 1 << 30
    assert training.epochs <= 4


def test_the_best_comes_first_and_its_loss_is_that_of_the_head() -> None:
    fits = default.fit_best(TRAIN, VAL, 5, epochs=3)
    losses = [fit.val_loss for fit in fits]
    assert losses == sorted(losses)
    assert len(fits[0].curve) == 3
    scores = torch.from_numpy(fits[0].head.logits_of(VAL.features))
    loss = functional.cross_entropy(scores, torch.from_numpy(VAL.labels))
    assert losses[0] == pytest.approx(float(loss), abs=1e-4)


def test_a_head_is_kept_as_it_was_before_its_logits_were_scaled() -> None:
    """So that a classifier has the temperature, and a page can show what calibrating changed."""
    one = next(fit for fit in default.fit_best(TRAIN, VAL, 5, epochs=3) if fit.averaged == 1)
    scores = torch.from_numpy(one.unscaled.logits_of(VAL.features))
    loss = functional.cross_entropy(scores, torch.from_numpy(VAL.labels))
    assert float(loss) == pytest.approx(one.curve[-1].val_loss, abs=1e-4)
    assert one.scale != pytest.approx(1, abs=1e-3)


def test_the_mean_of_the_best_three_is_tried_too() -> None:
    fits = default.fit_best(TRAIN, VAL, 5, epochs=3)
    (mean,) = (fit for fit in fits if fit.averaged == 3)
    best = [fit.head for fit in fits if fit.averaged == 1][:3]
    x_ND = VAL.features[slice(None)]
    together = sum(head.logits(x_ND) for head in best)
    ours = mean.head.logits(x_ND)
    factor = (together * ours).sum() / (together**2).sum()
    np.testing.assert_allclose(ours, factor * together, atol=1e-3)
