"""k nearest neighbours: the labels of the most similar training photos, weighted by similarity.

The weighting is that of Wu et al., "Unsupervised feature learning via non-parametric instance
discrimination" (2018, section 3.4): exp(cosine / T). The head stores a vector of every training photo
in float16; its size grows with their number.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fieldmark.features.cache import Features
from fieldmark.features.labelled import LabelledFeatures
from fieldmark.heads.base import FittedHead, Scaling
from fieldmark.heads.ridge import class_counts
from fieldmark.heads.scaling import subsample
from fieldmark.utils.typing import FloatArray, IntArray

NEIGHBOURS = 20
TEMPERATURES = (0.03, 0.07, 0.15, 0.3)
_BLOCK = 8192


@dataclass(frozen=True)
class NeighbourHead:
    """The labelled vectors of the training photos.

    Attributes:
        scaling: of the features before they are compared.
        vectors: v_MD of the M training photos, scaled and of length one, float16.
        labels: their classes, shape (M,).
        prior: log-shares of the classes, shape (C,), each class counted with half a photo more.
        temperature: T.
        neighbours: k.
    """

    scaling: Scaling
    vectors: np.ndarray
    labels: IntArray
    prior: FloatArray
    temperature: float
    neighbours: int = NEIGHBOURS

    def logits(self, x_ND: FloatArray) -> FloatArray:
        """Compute log-probabilities s_NC: the neighbours' votes, smoothed by the classes' shares."""
        return self.votes(*self.nearest(x_ND))

    def logits_of(self, features: Features) -> FloatArray:
        """Compute log-probabilities of cached features, read block by block; shape (N, C)."""
        scores = np.empty((len(features), len(self.prior)), np.float32)
        for start, x_BD in features.blocks(1024):
            scores[start : start + len(x_BD)] = self.logits(x_BD)
        return scores

    def nearest(self, x_ND: FloatArray) -> tuple[torch.Tensor, torch.Tensor]:
        """Return cosines and labels of each photo's k nearest, both (N, k); nearest first."""
        x = torch.from_numpy(_unit(self.scaling.apply(x_ND)))
        k = min(self.neighbours, len(self.labels))
        best, label = torch.full((len(x), k), -2.0), torch.zeros((len(x), k), dtype=torch.long)
        labels = torch.from_numpy(self.labels)
        for start in range(0, len(labels), _BLOCK):
            block = torch.from_numpy(self.vectors[start : start + _BLOCK].astype(np.float32))
            near, which = (x @ block.T).topk(min(k, len(block)), dim=1)
            both = torch.cat([best, near], 1)
            both_label = torch.cat([label, labels[start + which]], 1)
            best, place = both.topk(k, dim=1)
            label = both_label.gather(1, place)
        return best, label

    def votes(self, cosine_NK: torch.Tensor, label_NK: torch.Tensor) -> FloatArray:
        """Compute the log of each class's share of the votes, shape (N, C)."""
        weight_NK = ((cosine_NK - 1) / self.temperature).exp()
        # The classes' shares together have half the vote of the farthest neighbour.
        if cosine_NK.shape[1]:
            rest_N1 = weight_NK[:, -1:].clamp(min=1e-30) / 2
        else:  # without training photos
            rest_N1 = torch.ones(len(cosine_NK), 1)
        vote_NC = rest_N1 * torch.from_numpy(self.prior).exp()
        vote_NC.scatter_add_(1, label_NK, weight_NK)
        return np.asarray((vote_NC / vote_NC.sum(1, keepdim=True)).clamp(min=1e-30).log().numpy())

    def tensors(self) -> dict[str, Any]:
        """Return its parameters by name."""
        return {
            "mean": self.scaling.mean,
            "scale": self.scaling.scale,
            "vectors": self.vectors,
            "labels": self.labels,
            "prior": self.prior,
            "how": np.array([self.temperature, self.neighbours], np.float64),
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Any]) -> NeighbourHead:
        """Make a head from the parameters of `tensors`."""
        temperature, neighbours = tensors["how"].tolist()
        scaling = Scaling(tensors["mean"], tensors["scale"])
        vectors, labels, prior = (tensors[name] for name in ("vectors", "labels", "prior"))
        return cls(scaling, vectors, labels, prior, temperature, int(neighbours))


def fit(
    train: LabelledFeatures, val: LabelledFeatures, classes: int, seed: int = 0
) -> FittedHead[NeighbourHead]:
    """Store the training photos, in the order of their ids, and choose T by the validation loss.

    Args:
        train: training photos; those with label -1 are ignored.
        val: validation photos.
        classes: C; a class without training photos is never predicted.
        seed: not used; nothing here is random.
    """
    del seed
    start = time.perf_counter()
    train = train.where(train.labels >= 0)
    order = np.argsort(np.asarray(train.ids, dtype=object), kind="stable")
    features, count_C = train.features.take(order), class_counts(train, classes)
    scaling = Scaling.of(features)
    vectors = np.empty((len(features), features.dim), np.float16)
    for first, block in features.blocks():
        vectors[first : first + len(block)] = _unit(scaling.apply(block))
    share = (count_C + 0.5) / (count_C.sum() + 0.5 * classes)
    # A class without photos has the smallest share, so without a vote it is never the first.
    prior = np.log(share).astype(np.float32)
    heads = [
        NeighbourHead(scaling, vectors, train.labels[order], prior, temperature)
        for temperature in TEMPERATURES
    ]
    measured = subsample(val, classes)
    if not len(measured):
        return FittedHead(heads[1], float("nan"), time.perf_counter() - start)
    parts = [heads[0].nearest(block) for _, block in measured.features.blocks(1024)]
    cosine_NK, label_NK = (torch.cat(each) for each in zip(*parts, strict=True))
    rows = np.arange(len(measured))
    losses = [-head.votes(cosine_NK, label_NK)[rows, measured.labels].mean() for head in heads]
    best = int(np.argmin(losses))
    return FittedHead(heads[best], float(losses[best]), time.perf_counter() - start)


def _unit(x_ND: FloatArray) -> FloatArray:
    length = np.linalg.norm(x_ND, axis=1, keepdims=True)
    return np.asarray(x_ND / np.maximum(length, 1e-30), np.float32)
