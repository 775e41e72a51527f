"""Fit the scale of a head's logits, and the weight of the classes' log-shares.

The fit is convex (a softmax regression with one or two weights), so Newton's method finds the minimum in
a few steps. A weak prior keeps the weights finite where all photos are classified correctly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fieldmark.features.labelled import LabelledFeatures
from fieldmark.utils import random

_SCORES = 1 << 24
"""Logits in memory at once: 64 MiB in float32, independent of the number of photos."""


@dataclass(frozen=True)
class Weights:
    """Weights w_F of terms u_F that sum to logits, and their mean cross-entropy in nats."""

    values: tuple[float, ...]
    loss: float


def subsample(photos: LabelledFeatures, classes: int, scores: int = _SCORES) -> LabelledFeatures:
    """Draw so many photos, by their ids, that their logits fit in memory.

    Args:
        photos: N labelled photos; those with label -1 are left out.
        classes: C.
        scores: the number of logits; at least 64 photos are drawn.
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
    """Fit the weights of terms so that the softmax of their sum has the lowest cross-entropy.

    Args:
        parts: F terms, each of shape (N, C) or one that broadcasts to it.
        y_N: the labels.
        expected: mean and standard deviation of each weight's prior, which counts as one photo.
        rounds: the maximum number of Newton steps.

    Returns:
        The weights; the means of the priors where there is no photo.
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
    """Compute the Newton step: the gradient multiplied by the inverse of the Hessian."""
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
