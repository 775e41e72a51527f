"""Which photos to label next: those that the classifier doubts, and not many that are alike.

Doubt is the margin between the two most probable labels (Scheffer and others, "Active hidden Markov models
for information extraction", 2001) or the entropy of the probabilities. Diversity is that of the gradients
that the last layer would have if the first answer were right: a photo's features times the difference between
its answer and its probabilities, chosen by k-means++ (BADGE: Ash and others, "Deep batch active learning by
diverse, uncertain gradient lower bounds", 2020), or the greedy k-centre rule among doubtful photos (Sener and
Savarese, "Active learning for convolutional neural networks", 2018). `benchmarks/next.py` measures them.
"""

from __future__ import annotations

import numpy as np

from fieldmark.utils.typing import FloatArray, IntArray

_DOUBTFUL = 10
"""Of so many times the photos that are asked for, the most doubtful ones, the centres are chosen."""


def margins(p_NC: FloatArray) -> FloatArray:
    """Return the difference between the two largest probabilities of each photo, shape (N,)."""
    top_N2 = np.partition(p_NC, -2, axis=1)[:, -2:]
    return np.asarray(top_N2[:, 1] - top_N2[:, 0])


def entropies(p_NC: FloatArray) -> FloatArray:
    """Return the entropy of each photo's probabilities in nats, shape (N,)."""
    p_NC = np.clip(p_NC, 1e-12, 1.0)
    return np.asarray(-(p_NC * np.log(p_NC)).sum(axis=1))


def by_margin(p_NC: FloatArray, _x_ND: FloatArray, count: int, _seed: int) -> IntArray:
    """Return the numbers of the photos with the smallest margins, the smallest first."""
    return np.argsort(margins(p_NC), kind="stable")[:count]


def by_entropy(p_NC: FloatArray, _x_ND: FloatArray, count: int, _seed: int) -> IntArray:
    """Return the numbers of the photos with the largest entropies, the largest first."""
    return np.argsort(-entropies(p_NC), kind="stable")[:count]


def by_centres(p_NC: FloatArray, x_ND: FloatArray, count: int, seed: int) -> IntArray:
    """Return doubtful photos that are far from each other: greedy k-centre among those of small margins."""
    doubtful = by_margin(p_NC, x_ND, _DOUBTFUL * count, seed)
    unit_ND = _unit(x_ND[doubtful])
    chosen = [0]
    nearest_N = unit_ND @ unit_ND[0]
    while len(chosen) < min(count, len(doubtful)):
        nearest_N[chosen] = np.inf
        chosen.append(int(nearest_N.argmin()))
        nearest_N = np.maximum(nearest_N, unit_ND @ unit_ND[chosen[-1]])
    return doubtful[chosen]


def by_gradients(p_NC: FloatArray, x_ND: FloatArray, count: int, seed: int) -> IntArray:
    """Return photos whose gradients are large and differ: k-means++ on them, the most doubtful one first.

    The gradient of a photo is (p - first answer) x features, of C times D numbers; squared distances follow
    from the products of both factors, so that it is never computed.
    """
    rng = np.random.default_rng(seed)
    answer_NC = np.array(p_NC, np.float32)
    answer_NC[np.arange(len(p_NC)), p_NC.argmax(axis=1)] -= 1.0
    unit_ND = _unit(x_ND)
    square_N = (answer_NC**2).sum(axis=1)
    chosen = [int(square_N.argmax())]
    nearest_N = np.full(len(p_NC), np.inf, np.float32)
    while len(chosen) < min(count, len(p_NC)):
        last = chosen[-1]
        product_N = (answer_NC @ answer_NC[last]) * (unit_ND @ unit_ND[last])
        nearest_N = np.minimum(nearest_N, np.maximum(square_N + square_N[last] - 2 * product_N, 0.0))
        nearest_N[chosen] = 0.0
        total = float(nearest_N.sum(dtype=np.float64))
        if total <= 0:  # what is left is equal to what was chosen
            left = np.setdiff1d(np.arange(len(p_NC)), chosen)
            chosen.append(int(rng.choice(left)))
            continue
        drawn = rng.uniform(0.0, total)
        at = int(np.searchsorted(nearest_N.cumsum(dtype=np.float64), drawn, side="right"))
        chosen.append(min(at, len(p_NC) - 1))
    return np.array(chosen)


def at_random(p_NC: FloatArray, _x_ND: FloatArray, count: int, seed: int) -> IntArray:
    """Return photos at random: what the others are compared with."""
    return np.random.default_rng(seed).permutation(len(p_NC))[:count]


def _unit(x_ND: FloatArray) -> FloatArray:
    return np.asarray(x_ND / np.maximum(np.linalg.norm(x_ND, axis=1, keepdims=True), 1e-12), np.float32)
