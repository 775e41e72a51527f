"""Multinomial logistic regression with L2 regularisation, trained until it has converged.

Where photos are few, some passes of gradient steps stop far from the minimum; L-BFGS (SciPy) reaches it.
The features are brought to zero mean and about unit variance and rotated to the eigenvectors of their
covariance, where the curvature is nearly diagonal: scaled by it, tens of iterations suffice. The
strengths of a path go from the strongest to the weakest, each started where the one before ended.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from fieldmark.features.labelled import LabelledFeatures
from fieldmark.heads.base import FittedHead, LinearHead, Scaling
from fieldmark.heads.ridge import class_counts, single_class_head
from fieldmark.utils.typing import BoolArray, DoubleArray, FloatArray, IntArray

STRENGTHS = (0.1, 0.01)
"""Regularisations: multiples of half the squared weights, beside the mean cross-entropy. On photos of two
data sets, with 1 to 60 a class, errors and log-losses of strengths from 0.3 to 0.0003 hardly differ."""

DRAWN = 3.0
"""Photos' worth of the mean standard deviation to which that of each feature is drawn. Without it few photos
are told apart by features that hardly vary among them: with one photo of each of five species of wild74 the
error was 45 % instead of 9 %, with two 13 % instead of 5 %, with five 7 % instead of 3 %, and photos of other
things had probabilities near 1. From 1 to 30 hardly differ; with 74 species it makes no difference. The mean
variance would be that of a few features, the median one that of mostly zero ones."""

_ITERATIONS = 200
_TOLERANCE = 3e-6  # of the loss: errors and log-losses on other photos then tie with those of 1e-6
_MEMORY = 10  # pairs of steps and gradients that L-BFGS keeps


def fit_path(
    train: LabelledFeatures,
    classes: int,
    strengths: Sequence[float] = STRENGTHS,
    *,
    towards: LinearHead | None = None,
) -> list[LinearHead]:
    """Fit one head for each strength.

    Args:
        train: photos to learn from; labels of -1 are ignored.
        classes: C; a class without a training photo is never the answer.
        strengths: the regularisations, the strongest first.
        towards: a head that weights are drawn to instead of to zero, for all classes; they may then lack
            photos.

    Returns:
        A linear head on the features as they are for each strength.
    """
    train = train.where(train.labels >= 0)
    count_C = class_counts(train, classes)
    if towards is not None:
        return _from_head(train, towards, strengths)
    if np.count_nonzero(count_C) < 2:
        return [single_class_head(train, train, classes).head for _ in strengths]
    problem = _Problem.of(train, count_C > 0)
    return [head.exclude_unseen(count_C) for head in problem.path(strengths)]


def _from_head(train: LabelledFeatures, head: LinearHead, strengths: Sequence[float]) -> list[LinearHead]:
    """Fit what is added to a head, for each strength; without photos nothing is."""
    if not len(train):
        return [head for _ in strengths]
    problem = _Problem.of(train, np.ones(len(head.bias), np.bool_))
    problem = replace(problem, base_NC=torch.from_numpy(head.logits_of(train.features)))
    added = problem.path(strengths)
    return [LinearHead(head.weight + each.weight, head.bias + each.bias) for each in added]


def fit(
    train: LabelledFeatures, val: LabelledFeatures, classes: int, seed: int = 0
) -> FittedHead[LinearHead]:
    """Fit the head with the strength that has the least loss on validation photos.

    Args:
        train: photos to learn from; labels of -1 are ignored.
        val: photos to choose the strength by; without any, the middle one is taken.
        classes: C.
        seed: not used; nothing here is random.
    """
    del seed
    start = time.perf_counter()
    known = val.where(val.labels >= 0)
    heads = fit_path(train, classes)
    if not len(known):
        return FittedHead(heads[len(heads) // 2], float("nan"), time.perf_counter() - start)
    losses = [_loss(head, known) for head in heads]
    best = int(np.argmin(losses))
    return FittedHead(heads[best], losses[best], time.perf_counter() - start)


def candidates(train: LabelledFeatures, classes: int) -> dict[str, LinearHead]:
    """Fit a head for each strength, by name; see `fit_path`."""
    names = (f"logistic regression, strength {strength:g}" for strength in STRENGTHS)
    return dict(zip(names, fit_path(train, classes), strict=True))


def work(photos: int, dim: int, classes: int) -> float:
    """Compute how much one pass over the photos takes: products of a feature and a weight."""
    return float(photos) * min(photos, dim) * classes


def _loss(head: LinearHead, photos: LabelledFeatures) -> float:
    logits_NC = torch.from_numpy(head.logits_of(photos.features))
    loss = torch.nn.functional.cross_entropy(logits_NC, torch.from_numpy(photos.labels))
    return float(loss)


def _eigenvectors(x_ND: torch.Tensor) -> torch.Tensor:
    """The eigenvectors of x^T x whose eigenvalue is not zero; shape (D, E)."""
    if x_ND.shape[0] >= x_ND.shape[1]:
        basis_DE: torch.Tensor = torch.linalg.eigh(x_ND.T @ x_ND)[1]
        return basis_DE
    wide_ND = x_ND.double()
    values, basis_NE = torch.linalg.eigh(wide_ND @ wide_ND.T)
    kept = values > 1e-10 * values[-1]
    found_DE: torch.Tensor = wide_ND.T @ basis_NE[:, kept] / values[kept].sqrt()
    return found_DE.float()


@dataclass(frozen=True)
class _Problem:
    """The training photos in the basis of the eigenvectors of their covariance.

    Attributes:
        scaling: brings features to zero mean and unit variance.
        basis_DE: the eigenvectors, E <= min(N, D).
        x_NE: the photos.
        y_N: their classes among those that have a photo.
        variance_E: the variance in each direction.
        classes: how many classes have a photo.
        column_C: the number of each class among those; -1 for a class without a photo.
        base_NC: logits that the head's are added to; None: zero.
    """

    scaling: Scaling
    basis_DE: torch.Tensor
    x_NE: torch.Tensor
    y_N: torch.Tensor
    variance_E: torch.Tensor
    classes: int
    column_C: IntArray
    base_NC: torch.Tensor | None = None

    @classmethod
    def of(cls, train: LabelledFeatures, seen: BoolArray) -> _Problem:
        scaling = Scaling.of(train.features, drawn=DRAWN)
        x_ND = torch.from_numpy(scaling.apply(train.features[slice(None)]))
        basis_DE = _eigenvectors(x_ND)
        x_NE = x_ND @ basis_DE
        column_C = np.where(seen, np.cumsum(seen) - 1, -1)
        y_N = torch.from_numpy(column_C[train.labels])
        return cls(scaling, basis_DE, x_NE, y_N, x_NE.square().mean(0), int(seen.sum()), column_C)

    def path(self, strengths: Sequence[float]) -> list[LinearHead]:
        """The head of each strength, each started where the one before ended."""
        heads, weights = [], np.zeros((self.x_NE.shape[1] + 1, self.classes))
        for strength in strengths:
            weights = self.minimise(weights, strength)
            heads.append(self.head(weights))
        return heads

    def minimise(self, start: DoubleArray, strength: float) -> DoubleArray:
        """The weights and, as the last row, the bias of the minimum; shape (E + 1, C)."""
        from scipy.optimize import minimize

        # The curvature of the cross-entropy is about p (1 - p) times the variance.
        curvature = self.variance_E.double().numpy() / self.classes
        unit = 1 / np.sqrt(np.append(curvature + strength, 1 / self.classes))[:, None]
        shape = start.shape

        def objective(flat: DoubleArray) -> tuple[float, DoubleArray]:
            loss, gradient = self._loss(unit * flat.reshape(shape), strength)
            return loss, (unit * gradient).ravel()

        found = minimize(
            objective,
            (start / unit).ravel(),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": _ITERATIONS, "ftol": _TOLERANCE, "gtol": 1e-8, "maxcor": _MEMORY},
        )
        return np.asarray(unit * found.x.reshape(shape))

    def _loss(self, weights: DoubleArray, strength: float) -> tuple[float, DoubleArray]:
        """The regularised mean cross-entropy, and its gradient."""
        w_EC = torch.from_numpy(weights[:-1].astype(np.float32))
        b_C = torch.from_numpy(weights[-1].astype(np.float32))
        logits_NC = torch.addmm(b_C, self.x_NE, w_EC)
        log_p_NC = (logits_NC if self.base_NC is None else logits_NC + self.base_NC).log_softmax(1)
        loss = -log_p_NC.gather(1, self.y_N[:, None]).mean(dtype=torch.float64)
        off_NC = log_p_NC.exp_()
        off_NC[torch.arange(len(self.y_N)), self.y_N] -= 1
        off_NC /= len(self.y_N)
        gradient = np.empty_like(weights)
        gradient[:-1] = (self.x_NE.T @ off_NC).numpy() + strength * weights[:-1]
        # The bias has a prior of unit variance, worth one photo: with one or two photos a class it says
        # nothing, and left free it drifts (at one photo a class the error on wild74 was 1.3 points higher).
        weak = 1 / len(self.y_N)
        gradient[-1] = off_NC.sum(0).numpy() + weak * weights[-1]
        penalty = strength * float((weights[:-1] ** 2).sum()) + weak * float((weights[-1] ** 2).sum())
        return float(loss) + penalty / 2, gradient

    def head(self, weights: DoubleArray) -> LinearHead:
        """The layer on the features as they are, of all classes."""
        seen = self.column_C >= 0
        w_DK = self.basis_DE.numpy() @ weights[:-1].astype(np.float32)
        weight: FloatArray = np.zeros((len(w_DK), len(seen)), np.float32)
        bias: FloatArray = np.zeros(len(seen), np.float32)
        weight[:, seen], bias[seen] = w_DK, weights[-1].astype(np.float32)
        return self.scaling.fold(LinearHead(weight, bias))
