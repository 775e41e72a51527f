"""How large the logits of a head are to be, and how much each class's share counts, fitted in a moment.

The fit is convex (a softmax regression with one or two weights), so that Newton's method finds the
one minimum in a few steps. A weak prior keeps it from running off where all photos are named rightly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fieldmark.features.labelled import LabelledFeatures
from fieldmark.utils import random

_SCORES = 1 << 24
"""How many logits are held at once: 64 MiB in float32, whatever the number of photos."""


@dataclass(frozen=True)
class Weights:
    """Weights w_F of parts u_F that sum to logits, and the mean cross-entropy they reach in nats."""

    values: tuple[float, ...]
    loss: float


def subsample(photos: LabelledFeatures, classes: int, scores: int = _SCORES) -> LabelledFeatures:
    """As many of the photos as logits can be held for, drawn by their ids; all of them if they fit.

    Photos of none of the classes are left out.

    Args:
        photos: N labelled photos.
        classes: C.
        scores: how many logits in all; at least 64 photos are taken.
    """
    known = photos.where(photos.labels >= 0)
    limit = max(64, scores // max(1, classes))
    if len(known) <= limit:
        return known
    keep = np.zeros(len(known), np.bool_)
    keep[np.argsort(random.hashes(known.ids, "few"), kind="stable")[:limit]] = True
    return known.where(keep)


def fit_weights(
    parts: Sequence[torch.Tensor],
    y_N: torch.Tensor,
    expected: Sequence[tuple[float, float]],
    rounds: int = 30,
) -> Weights:
    """The weights of some scores for which the softmax of their sum has the least cross-entropy.

    Args:
        parts: F scores, each of shape (N, C) or one that broadcasts to it.
        y_N: the right classes.
        expected: mean and standard deviation of each weight before any photo is seen; counts as
            much as one photo.
        rounds: at most so many steps of Newton's method.

    Returns:
        The weights; the expected ones where there is no photo.
    """
    middle = torch.tensor([mean for mean, _ in expected], dtype=torch.float64)
    precision = torch.tensor([deviation**-2 for _, deviation in expected], dtype=torch.float64)
    precision /= max(1, len(y_N))
    if not len(y_N):
        return Weights(tuple(middle.tolist()), float("nan"))

    def loss_at(weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, float]:
        logits = sum(float(w) * u for w, u in zip(weights, parts, strict=True))
        log_p_NC = torch.as_tensor(logits).log_softmax(1)
        loss = -log_p_NC.gather(1, y_N[:, None]).mean(dtype=torch.float64)
        prior = (precision * (weights - middle) ** 2).sum() / 2
        return loss + prior, log_p_NC, float(loss)

    weights = middle.clone()
    total, log_p_NC, loss = loss_at(weights)
    for _ in range(rounds):
        step = _newton(parts, log_p_NC.exp_(), y_N, precision, weights - middle)
        for _ in range(20):
            next_total, next_log_p_NC, next_loss = loss_at(weights - step)
            if next_total <= total:
                break
            step = step / 2
        else:
            break
        weights, gain = weights - step, float(total - next_total)
        total, log_p_NC, loss = next_total, next_log_p_NC, next_loss
        if gain < 1e-7:
            break
    return Weights(tuple(weights.tolist()), loss)


def _newton(
    parts: Sequence[torch.Tensor],
    p_NC: torch.Tensor,
    y_N: torch.Tensor,
    precision: torch.Tensor,
    off: torch.Tensor,
) -> torch.Tensor:
    """The gradient by the weights, multiplied by the inverse of their second derivatives."""
    even = [u_NC.expand(p_NC.shape) for u_NC in parts]
    mean_FN = torch.stack([(p_NC * u_NC).sum(1) for u_NC in even]).double()
    right_FN = torch.stack([u_NC.gather(1, y_N[:, None]).squeeze(1) for u_NC in even]).double()
    gradient = (mean_FN - right_FN).mean(1) + precision * off
    curvature = torch.diag(precision) - mean_FN @ mean_FN.T / len(y_N)
    for i, u_NC in enumerate(even):
        weighted_NC = p_NC * u_NC
        for j, v_NC in enumerate(even):
            curvature[i, j] += (weighted_NC * v_NC).sum(1).double().mean()
    curvature += 1e-9 * torch.eye(len(parts), dtype=torch.float64)
    return torch.as_tensor(torch.linalg.solve(curvature, gradient))
