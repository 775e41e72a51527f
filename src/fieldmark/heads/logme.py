"""LogME: how well features suit labels, by the evidence of a linear model, without training one.

You et al., "LogME: practical assessment of pre-trained models for transfer learning", 2021. Each class
is a regression of its 0/1 target on the features, with a Gaussian prior on the weights (precision
alpha) and Gaussian noise (precision beta); both are set where the evidence (their equation 2) is
highest, and the score is its logarithm a photo, in the mean over classes: higher is better.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fieldmark.heads.base import LabelledFeatures

FloatArray = npt.NDArray[np.float64]

_ROUNDS = 500
_LEAST = 1e-12


def logme(photos: LabelledFeatures, classes: int) -> float:
    """The score of some photos' features for their labels; -infinity where there is nothing to see.

    Args:
        photos: labels of -1 are passed over.
        classes: C; classes without a photo are left out.
    """
    photos = photos.where(photos.labels >= 0)
    if not len(photos):
        return float("-inf")
    count, dim = len(photos), photos.features.dim
    values_E, target_EC, square_C = _decomposed(photos, classes)
    scores = [
        evidence(values_E, target_EC[:, at], float(square_C[at]), count, dim) / count
        for at in np.flatnonzero(square_C)
    ]
    return float(np.mean(scores))


def _decomposed(
    photos: LabelledFeatures, classes: int
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The squared singular values of x_ND that are not zero, the targets along them, and y'y."""
    x_ND = photos.features[slice(None)].astype(np.float64)
    y_NC = np.eye(classes)[photos.labels]
    if len(x_ND) > x_ND.shape[1]:
        values, vectors = np.linalg.eigh(x_ND.T @ x_ND)
        keep = values > 1e-10 * values[-1]
        values = values[keep]
        target = vectors[:, keep].T @ (x_ND.T @ y_NC) / np.sqrt(values)[:, None]
    else:
        values, vectors = np.linalg.eigh(x_ND @ x_ND.T)
        keep = values > 1e-10 * values[-1]
        values, target = values[keep], vectors[:, keep].T @ y_NC
    return values, target, y_NC.sum(0)


def evidence(
    values_E: FloatArray, target_E: FloatArray, square: float, count: int, dim: int
) -> float:
    """The highest log-evidence of one regression, by the fixed point of their section 4.3.

    Args:
        values_E: squared singular values of the N x D features that are not zero.
        target_E: the target along the singular vectors.
        square: the target's squared length.
        count, dim: N and D.
    """
    alpha, beta, last = 1.0, 1.0, -np.inf
    square_E = target_E**2
    outside = max(square - float(square_E.sum()), 0.0)
    for _ in range(_ROUNDS):
        known_E = beta * values_E / (alpha + beta * values_E)
        length = float((known_E**2 * square_E / values_E).sum())
        rest = float(((1 - known_E) ** 2 * square_E).sum()) + outside
        logs = float(np.log(alpha + beta * values_E).sum()) + (dim - len(values_E)) * np.log(alpha)
        found = (count * np.log(beta) + dim * np.log(alpha) - count * np.log(2 * np.pi)) / 2 - (
            beta * rest + alpha * length + logs
        ) / 2
        if abs(found - last) < 1e-7 * count:
            break
        last, free = found, float(known_E.sum())
        alpha = free / max(length, _LEAST)
        beta = max(count - free, _LEAST) / max(rest, _LEAST)
    return float(found)
