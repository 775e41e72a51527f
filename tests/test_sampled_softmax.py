"""A head for very many classes, against the softmax over all of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fieldmark.features.cache import Features
from fieldmark.features.labelled import LabelledFeatures
from fieldmark.heads import default, sampled_softmax
from fieldmark.heads.base import LinearHead
from fieldmark.heads.softmax import Hyperparameters, Training, cosine, fit_sweep


def blobs(photos: int, classes: int, dim: int, seed: int) -> LabelledFeatures:
    centres = np.random.default_rng(0).normal(size=(classes, dim))
    rng = np.random.default_rng(seed)
    y_N = rng.integers(0, classes, photos)
    x_ND = (centres[y_N] + rng.normal(size=(photos, dim))).astype(np.float32)
    return LabelledFeatures(Features.of(x_ND), y_N, tuple(f"{seed}-{at}" for at in range(photos)))


@given(st.integers(1, 60), st.integers(1, 20))
def test_the_first_class_in_blocks_is_the_first_of_all(classes: int, block: int) -> None:
    rng = np.random.default_rng(classes)
    head = LinearHead(
        rng.normal(size=(4, classes)).astype(np.float32), rng.normal(size=classes).astype(np.float32)
    )
    x_BD = rng.normal(size=(7, 4)).astype(np.float32)
    which, total = sampled_softmax.first(head, x_BD, block)
    s_BC = head.logits(x_BD).astype(np.float64)
    exact = np.log(np.exp(s_BC).sum(1))
    assert np.allclose(total, exact, atol=1e-4)
    assert np.array_equal(which, s_BC.argmax(1))


def test_a_class_is_weighted_by_how_often_it_comes() -> None:
    """By the inverse of pi, the probability to be drawn or in the batch: counted over many steps."""
    count_C = np.array([50, 30, 10, 5, 3, 1, 1, 0])
    training = Training(epochs=1, batch_size=4)
    layer = sampled_softmax.Sampled(count_C, 2, training, 1e-3, drawn=3)
    rng = np.random.default_rng(0)
    q_C = np.diff(layer.ends_C, prepend=0.0)
    hit_C = np.zeros(8)
    for _ in range(4_000):
        batch = rng.choice(8, 4, p=count_C / count_C.sum())
        hit_C[np.unique(np.concatenate([batch, rng.choice(8, 3, p=q_C)]))] += 1
    assert np.allclose(np.exp(layer.log_pi_C.numpy()), hit_C / 4_000, atol=0.03)


def test_all_classes_drawn_is_the_softmax_over_all() -> None:
    train, val = blobs(600, 12, 8, 1), blobs(200, 12, 8, 2)
    training = Training(epochs=8, batch_size=32)
    full = fit_sweep(train, val, 12, training, [Hyperparameters(3e-3)])[0]
    drawn = sampled_softmax.fit_sweep(train, val, 12, training, [Hyperparameters(3e-3)], drawn=20_000)[0]
    assert drawn.curve[-1].val_loss == pytest.approx(full.curve[-1].val_loss, rel=1e-3)
    assert np.allclose(drawn.head.logits_of(val.features), full.head.logits_of(val.features), atol=0.02)


def test_few_classes_drawn_come_near_it() -> None:
    train, val = blobs(6_000, 300, 24, 1), blobs(1_500, 300, 24, 2)
    training = Training(epochs=12, batch_size=64)
    full = fit_sweep(train, val, 300, training, [Hyperparameters(1e-2)])[0].curve[-1]
    drawn = sampled_softmax.fit_sweep(train, val, 300, training, [Hyperparameters(1e-2)], drawn=40)[0].curve[
        -1
    ]
    assert full.val_error < 0.4
    assert drawn.val_error < full.val_error + 0.02
    assert drawn.val_loss < full.val_loss + 0.1


def test_training_takes_it_by_the_number_of_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    train, val = blobs(2_000, 10, 8, 1), blobs(1_000, 10, 8, 2)
    seen: list[str] = []
    monkeypatch.setattr(
        sampled_softmax,
        "fit_sweep",
        lambda *a, was=sampled_softmax.fit_sweep, **k: [seen.append("many"), was(*a, **k)][1],
    )
    plain = default.fit_best(train, val, 10)
    assert not seen
    monkeypatch.setattr(sampled_softmax, "MANY", 10)
    best = default.fit_best(train, val, 10)
    assert seen == ["many"]
    assert isinstance(best[0].head, LinearHead)
    assert (
        sampled_softmax.measure(best[0].head, val)[1] <= sampled_softmax.measure(plain[0].head, val)[1] + 0.05
    )


def test_with_no_more_classes_than_are_drawn_the_loss_is_exact() -> None:
    """Each step is then that of all classes, and equals PyTorch's own layer and optimiser."""
    rng, classes, dim = np.random.default_rng(3), 7, 5
    how = Training(epochs=1, batch_size=8)
    layer = sampled_softmax.Sampled(np.full(classes, 8), dim, how, 1e-2, drawn=classes)
    peer = torch.nn.Linear(dim, classes)
    torch.nn.init.zeros_(peer.weight)
    torch.nn.init.zeros_(peer.bias)
    optimiser = torch.optim.AdamW(peer.parameters(), 1e-2, weight_decay=0.0)
    for step in range(4):
        x_BD, y_B = rng.normal(size=(8, dim)).astype(np.float32), rng.integers(0, classes, 8)
        optimiser.param_groups[0]["lr"] = 1e-2 * cosine(step, 7)
        loss = torch.nn.functional.cross_entropy(peer(torch.from_numpy(x_BD)), torch.from_numpy(y_B))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        assert layer.update(x_BD, y_B) == pytest.approx(loss.item(), abs=1e-6)
    head = layer.head()
    np.testing.assert_allclose(head.weight, peer.weight.detach().numpy().T, atol=1e-5)
    np.testing.assert_allclose(head.bias, peer.bias.detach().numpy(), atol=1e-5)
