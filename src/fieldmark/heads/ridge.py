"""Ridge regression on one-hot targets: a head in closed form, from one pass over the features.

The pass sums x^T x, a D x D matrix, and the features of each class; neither grows with the number of
photos. One eigendecomposition of x^T x serves every regularisation strength. With fewer photos than
features, the N x N products of the photos are decomposed instead.

Least squares on one-hot targets (Hastie, Tibshirani and Friedman, "The elements of statistical
learning", 2009, section 4.2) gives scores, not logits, and small ones for rare classes. So each class's
column is scaled to length one; then one factor, and the weight of the classes' log-shares, are fitted on
the validation photos or, where those are few, on the training photos' leave-one-out scores, which need
no second fit (the same book, equation 7.64).
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from fieldmark.features.labelled import LabelledFeatures
from fieldmark.heads.base import FittedHead, LinearHead, Scaling
from fieldmark.heads.scaling import Weights, fit_weights, subsample
from fieldmark.utils.typing import IntArray

STRENGTHS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Regularisation strengths to try, as multiples of the mean eigenvalue of x^T x."""

FEWEST_VALIDATION = 50
"""With fewer validation photos than this, leave-one-out scores choose the strength."""


def fit(
    train: LabelledFeatures, val: LabelledFeatures, classes: int, seed: int = 0
) -> FittedHead[LinearHead]:
    """Fit several regularisation strengths and return the best, with its logits calibrated.

    Args:
        train: training photos; those with label -1 are ignored.
        val: validation photos: they choose the strength and the scale of the logits.
        classes: C; a class without training photos is never predicted.
        seed: not used; nothing here is random.
    """
    del seed
    start = time.perf_counter()
    train = train.where(train.labels >= 0)
    if np.count_nonzero(class_counts(train, classes)) < 2:
        return single_class_head(train, val, classes)
    sums = RidgeStatistics.of(train, classes)
    measured = subsample(val, classes)
    leave_one_out = len(measured) < FEWEST_VALIDATION
    photos = subsample(train, classes) if leave_one_out else measured
    head, weights = _RegularisationSearch(sums, photos, leave_one_out).best()
    head, loss = head.exclude_unseen(sums.count_C.numpy()), weights.loss
    if leave_one_out and len(measured):
        loss = _loss(head, measured)
    return FittedHead(head, loss, time.perf_counter() - start)


def single_class_head(train: LabelledFeatures, val: LabelledFeatures, classes: int) -> FittedHead[LinearHead]:
    """Return the layer for training photos of one class or none: it predicts that class."""
    even = LinearHead(np.zeros((train.features.dim, classes), np.float32), np.zeros(classes, np.float32))
    head = even.exclude_unseen(class_counts(train, classes))
    return FittedHead(head, _loss(head, subsample(val, classes)))


def _loss(head: LinearHead, photos: LabelledFeatures) -> float:
    """Compute the mean cross-entropy in nats; NaN without photos."""
    s_NC = torch.from_numpy(head.logits_of(photos.features))
    return float(functional.cross_entropy(s_NC, torch.from_numpy(photos.labels)))


@dataclass(frozen=True)
class RidgeStatistics:
    """Sums over N photos, on features of zero mean and unit variance.

    Attributes:
        scaling: of the features.
        values: the E non-zero eigenvalues of x^T x, E <= D.
        vectors: its eigenvectors, shape (D, E).
        sum_DC: the sum of each class's features.
        count_C: each class's number of photos.
    """

    scaling: Scaling
    values: torch.Tensor
    vectors: torch.Tensor
    sum_DC: torch.Tensor
    count_C: torch.Tensor

    @classmethod
    def of(cls, train: LabelledFeatures, classes: int) -> RidgeStatistics:
        """Compute the sums in one pass."""
        features, y_N = train.features, torch.from_numpy(train.labels)
        dim, count = features.dim, len(features)
        count_C = torch.bincount(y_N, minlength=classes)
        # Relative to a point near the mean, so that no digits are lost when the mean is subtracted.
        near_D = features[slice(0, 4096)].mean(0)
        square = torch.zeros((dim, dim), dtype=torch.float64) if count > dim else None
        sum_CD = torch.zeros((classes, dim), dtype=torch.float64)
        square_D = torch.zeros(dim, dtype=torch.float64)
        for start, block in features.blocks():
            x_BD = torch.from_numpy(block - near_D)
            sum_CD.index_add_(0, y_N[start : start + len(block)], x_BD.double())
            if square is None:
                square_D += x_BD.double().square().sum(0)
            else:
                square += x_BD.T @ x_BD
        if square is not None:
            square_D = square.diagonal()
        mean_D = sum_CD.sum(0) / count
        scaling = Scaling.from_moments(near_D + mean_D.numpy(), (square_D / count - mean_D**2).numpy())
        scale_D = torch.from_numpy(scaling.scale).double()
        sum_DC = ((sum_CD - count_C[:, None] * mean_D) * scale_D).T
        if square is None:
            x_ND = torch.from_numpy(scaling.apply(features[slice(None)])).double()
            values, vectors = torch.linalg.eigh(x_ND @ x_ND.T)
            keep = values > 1e-9 * values[-1].clamp(min=1e-30)
            values = values[keep]
            vectors = x_ND.T @ vectors[:, keep] / values.sqrt()
        else:
            square = (square - count * torch.outer(mean_D, mean_D)) * torch.outer(scale_D, scale_D)
            values, vectors = torch.linalg.eigh(square)
            values = values.clamp(min=0)
        return cls(scaling, values.float(), vectors.float(), sum_DC.float(), count_C)


class _RegularisationSearch:
    """Photos in the basis of the eigenvectors, and the loss of each regularisation on them."""

    def __init__(self, sums: RidgeStatistics, photos: LabelledFeatures, leave_one_out: bool) -> None:
        self.sums, self.leave_one_out = sums, leave_one_out
        self.y_N = torch.from_numpy(photos.labels)
        x_ND = torch.from_numpy(sums.scaling.apply(photos.features[slice(None)]))
        self.x_NE = x_ND @ sums.vectors
        self.sum_EC = sums.vectors.T @ sums.sum_DC
        count_C = sums.count_C.float()
        share = (count_C + 0.5) / (count_C.sum() + 0.5 * len(count_C))
        self.prior_C = share.log()

    def best(self) -> tuple[LinearHead, Weights]:
        """Return the layer with the lowest loss on these photos."""
        tried = [(strength, self.at(strength)) for strength in STRENGTHS]
        strength, (weights, unit) = min(tried, key=lambda each: each[1][0].loss)
        weight_EC, length_C, _ = self._columns(strength)
        factor, share = weights.values
        weight_DC = self.sums.vectors @ (weight_EC * (factor * unit / length_C))
        bias_C = share * self.prior_C
        return self.sums.scaling.fold(LinearHead(weight_DC.numpy(), bias_C.numpy())), weights

    def at(self, strength: float) -> tuple[Weights, float]:
        """Return the calibration of one regularisation with its loss, and the unit of its scores."""
        weight_EC, length_C, inverse_E = self._columns(strength)
        s_NC = self.x_NE @ weight_EC
        if self.leave_one_out:
            self._leave_one_out(s_NC, inverse_E)
        s_NC /= length_C
        unit = 1 / max(float(s_NC.std(unbiased=False)), 1e-30)
        expected = ((5.0, 5.0), (0.0, 1.0))
        parts = (s_NC.mul_(unit), self.prior_C[None])
        found = fit_weights(parts, self.y_N, expected)
        if found.values[0] > 0:
            return found, unit
        # A class's only photo, left out, has the lowest score; the sign of the scores must not flip.
        loss = float(functional.cross_entropy(s_NC, self.y_N))
        return Weights((1.0, 0.0), loss), unit

    def _columns(self, strength: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        values = self.sums.values
        # The mean over all D eigenvalues, with the zero ones that were left out.
        mean = values.sum() / len(self.sums.vectors)
        inverse_E = 1 / (values + strength * mean.clamp(min=1e-30))
        weight_EC = inverse_E[:, None] * self.sum_EC
        return weight_EC, weight_EC.norm(dim=0).clamp(min=1e-30), inverse_E

    def _leave_one_out(self, s_NC: torch.Tensor, inverse_E: torch.Tensor) -> None:
        """Turn the scores of training photos into those of a fit without the photo, in place."""
        count = int(self.sums.count_C.sum())
        lever_N1 = ((self.x_NE**2) @ inverse_E + 1 / count).clamp(max=0.999)[:, None]
        share_C = self.sums.count_C / count
        s_NC += share_C
        s_NC.sub_(lever_N1 * functional.one_hot(self.y_N, len(share_C)))
        s_NC /= 1 - lever_N1
        s_NC -= share_C


def class_counts(photos: LabelledFeatures, classes: int) -> IntArray:
    """Count the photos of each class, shape (C,)."""
    return np.bincount(photos.labels[photos.labels >= 0], minlength=classes).astype(np.int64)
