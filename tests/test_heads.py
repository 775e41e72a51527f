"""Heads: against PyTorch's own training, against scikit-learn, and many at once against one."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn import functional

from fieldmark import sampling
from fieldmark.features import Features
from fieldmark.heads.base import LabelledFeatures, LinearHead, Scaling
from fieldmark.heads.softmax import Arm, Training, cosine, fit, fit_sweep


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
    arm = Arm(learning_rate=3e-3, weight_decay=0.1, label_smoothing=0.1)
    training = Training(epochs=3, batch_size=32, seed=4, standardise=False)
    ours = fit(TRAIN, VAL, 5, training, arm)
    layer = torch.nn.Linear(12, 5)
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    optimiser = torch.optim.AdamW(layer.parameters(), lr=3e-3, weight_decay=0.1)
    hashes = sampling.hashes(TRAIN.ids, "order", 4)
    steps, step = 3 * math.ceil(300 / 32), 0
    for epoch in range(3):
        order = sampling.epoch_order(hashes, epoch)
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
    arms = [
        Arm(1e-3),
        Arm(1e-2, 0.1),
        Arm(3e-3, classes=(0, 2, 4)),
        Arm(3e-3, label_smoothing=0.2, classes=(1, 2)),
    ]
    training = Training(epochs=2, batch_size=50)
    together = fit_sweep(TRAIN, VAL, 5, training, arms)
    for arm, found in zip(arms, together, strict=True):
        alone = fit(TRAIN, VAL, 5, training, arm)
        np.testing.assert_allclose(found.head.weight, alone.head.weight, atol=1e-4)
        np.testing.assert_allclose(
            [each.val_loss for each in found.curve], [e.val_loss for e in alone.curve], atol=1e-5
        )


def test_a_class_that_is_not_learned_is_never_the_answer() -> None:
    found = fit(TRAIN, VAL, 5, Training(epochs=3), Arm(1e-2, classes=(0, 2, 4)))
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
    arms = [Arm(rate, decay) for rate in (1e-2, 3e-2, 1e-1) for decay in (0.0, 0.1)]
    best = min(f.val_loss for f in fit_sweep(TRAIN, VAL, 5, Training(epochs=20), arms))
    assert best < peer_loss * 1.05


def test_the_same_seed_gives_the_same_head_and_the_order_of_rows_does_not_matter() -> None:
    shuffle = np.random.default_rng(0).permutation(len(TRAIN))
    mixed = LabelledFeatures(
        TRAIN.features.take(shuffle), TRAIN.labels[shuffle], tuple(TRAIN.ids[i] for i in shuffle)
    )
    first = fit(TRAIN, VAL, 5, Training(epochs=2), Arm())
    again = fit(mixed, VAL, 5, Training(epochs=2), Arm())
    np.testing.assert_allclose(first.head.weight, again.head.weight, atol=1e-5)
    other = fit(TRAIN, VAL, 5, Training(epochs=2, seed=1), Arm())
    assert np.abs(first.head.weight - other.head.weight).max() > 1e-4


def test_training_starts_from_a_given_layer() -> None:
    start = fit(TRAIN, VAL, 5, Training(epochs=5), Arm(1e-2)).head
    stay = fit(TRAIN, VAL, 5, Training(epochs=1), Arm(learning_rate=0.0, initial=start)).head
    x = VAL.features[slice(None)]
    np.testing.assert_allclose(stay.logits(x), start.logits(x), atol=1e-3)
