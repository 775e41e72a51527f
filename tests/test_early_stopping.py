"""Early stopping: when a sweep ends, and whose weights come out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fieldmark.features.cache import Features
from fieldmark.features.labelled import LabelledFeatures
from fieldmark.heads.early_stopping import EarlyStopping
from fieldmark.heads.softmax import Hyperparameters, Training, by_loss, fit_sweep

LOSSES = st.lists(st.tuples(*[st.integers(0, 9)] * 2), min_size=1, max_size=20)


@given(LOSSES, st.integers(1, 4))
def test_it_ends_when_no_arm_got_better_and_each_goes_back_to_its_best(
    losses: list[tuple[int, int]], patience: int
) -> None:
    weight = torch.zeros(2, 3, 4)
    stopping = EarlyStopping([weight], patience)
    for number, pair in enumerate(losses, 1):
        weight += 1  # what an epoch leaves is its number
        over = stopping.after_epoch([float(each) for each in pair])
        so_far = losses[:number]
        best = [
            min(range(number), key=lambda at: so_far[at][hyperparameters]) + 1 for hyperparameters in (0, 1)
        ]
        assert stopping.best_epoch == best
        assert over == (number - max(best) >= patience)
        if over:
            break
    stopping.restore_best()
    for hyperparameters, epoch in enumerate(stopping.best_epoch):
        assert (weight[hyperparameters] == epoch).all()


def noisy(count: int, seed: int) -> LabelledFeatures:
    """Classes that overlap, so that learning by heart costs something."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    x_ND = 0.5 * np.eye(3, 20)[labels] + rng.normal(size=(count, 20))
    ids = tuple(f"{seed}-{at}" for at in range(count))
    return LabelledFeatures(Features.of(x_ND.astype(np.float32)), labels, ids)


def test_without_photos_to_stop_by_all_epochs_are_done() -> None:
    none = noisy(80, 1).where(np.zeros(80, np.bool_))
    how = Training(epochs=12, batch_size=20, patience=2)
    (found,) = fit_sweep(noisy(60, 0), none, 3, how, [Hyperparameters(3e-3)])
    (plain,) = fit_sweep(noisy(60, 0), none, 3, Training(epochs=12, batch_size=20), [Hyperparameters(3e-3)])
    assert len(found.curve) == 12
    assert found.best_epoch is None
    np.testing.assert_array_equal(found.head.weight, plain.head.weight)


def test_a_head_that_broke_down_is_not_the_best() -> None:
    how = Training(epochs=3, batch_size=20)
    broken, whole = fit_sweep(
        noisy(60, 0), noisy(80, 1), 3, how, [Hyperparameters(float("nan")), Hyperparameters(3e-3)]
    )
    assert np.isnan(broken.val_loss)
    assert min((broken, whole), key=by_loss) is whole


def test_a_head_that_was_stopped_has_the_lowest_loss_of_its_curve() -> None:
    train, val = noisy(60, 0), noisy(80, 1)
    how = Training(epochs=100, batch_size=20, patience=4)
    fast, slow = fit_sweep(train, val, 3, how, [Hyperparameters(3e-2), Hyperparameters(3e-3)])
    assert len(fast.curve) == len(slow.curve) < 100
    assert len(slow.curve) == max(fast.best_epoch or 0, slow.best_epoch or 0) + 4
    for each in (fast, slow):
        assert each.val_loss == min(epoch.val_loss for epoch in each.curve)
        logits = torch.from_numpy(each.head.logits_of(val.features))
        loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(val.labels))
        assert float(loss) == pytest.approx(each.val_loss, abs=1e-5)
    (whole,) = fit_sweep(train, val, 3, Training(epochs=100, batch_size=20), [Hyperparameters(3e-2)])
    assert fast.val_loss < whole.val_loss
    assert (whole.best_epoch, len(whole.curve)) == (None, 100)
