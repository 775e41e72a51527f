"""What every head is: a function from features to scores, learned from labelled features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from fieldmark.features.cache import Features
from fieldmark.utils.typing import FloatArray, IntArray


class Head(Protocol):
    """What every kind of head can do once it is learned."""

    def logits(self, x_ND: FloatArray) -> FloatArray:
        """Unnormalised scores s_NC of feature vectors."""

    def logits_of(self, features: Features) -> FloatArray:
        """The same for features that lie on disk, read block by block; shape (N, C)."""

    def tensors(self) -> dict[str, FloatArray]:
        """What to keep of it, by name; the class method `from_tensors` reads it back."""


class HeadFit(Protocol):
    """What learning gives, whatever the kind of head."""

    @property
    def head(self) -> Head:
        """The head, on the features as they are."""

    @property
    def val_loss(self) -> float:
        """Mean cross-entropy on the validation photos, in nats."""

    @property
    def seconds(self) -> float:
        """How long learning took."""


@dataclass(frozen=True)
class LinearHead:
    """A last layer: s = x W + b.

    Attributes:
        weight: W_DC, float32.
        bias: b_C, float32.
    """

    weight: FloatArray
    bias: FloatArray

    def logits(self, x_ND: FloatArray) -> FloatArray:
        """Unnormalised scores s_NC of feature vectors."""
        return x_ND @ self.weight + self.bias

    def logits_of(self, features: Features) -> FloatArray:
        """The same for features that lie on disk, read block by block; shape (N, C)."""
        scores = np.empty((len(features), len(self.bias)), np.float32)
        for start, x_BD in features.blocks():
            scores[start : start + len(x_BD)] = self.logits(x_BD)
        return scores

    def tensors(self) -> dict[str, FloatArray]:
        """What to keep of it, by name."""
        return {"weight": self.weight, "bias": self.bias}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Any]) -> LinearHead:
        """Read back what `tensors` gave."""
        return cls(tensors["weight"], tensors["bias"])

    def times(self, scale: float) -> LinearHead:
        """The head whose logits are `scale` times these."""
        return LinearHead(self.weight * np.float32(scale), self.bias * np.float32(scale))

    def exclude_unseen(self, count_C: IntArray) -> LinearHead:
        """The head that never answers a class without a training photo, with finite logits.

        The logits of the classes that were seen are moved to a mean of zero for every photo, which
        changes none of their probabilities: the best of them is then never below zero, where the
        logit of a class that was not seen is fixed. That one is the logarithm of the share that half
        a photo would be.
        """
        seen = count_C > 0
        if seen.all() or not seen.any():
            return self
        weight = np.where(seen, self.weight - self.weight[:, seen].mean(1, keepdims=True), 0.0)
        unseen = np.log(0.5 / (count_C.sum() + 0.5 * len(count_C)))
        bias = np.where(seen, self.bias - self.bias[seen].mean(), unseen)
        return LinearHead(weight.astype(np.float32), bias.astype(np.float32))


@dataclass(frozen=True)
class FittedHead:
    """What the heads that need no gradient steps give; see `Fitted`."""

    head: LinearHead
    val_loss: float
    seconds: float = field(default=0.0, compare=False)


@dataclass(frozen=True)
class Scaling:
    """Features brought to zero mean and unit variance, as part of the linear layer behind them.

    Attributes:
        mean: of each feature, shape (D,).
        scale: one over its standard deviation, shape (D,); 0 for a feature that never varies.
    """

    mean: FloatArray
    scale: FloatArray

    @classmethod
    def of(cls, features: Features) -> Scaling:
        """The statistics of some features, in one pass and in double precision."""
        total, square = np.zeros(features.dim), np.zeros(features.dim)
        for _, x_BD in features.blocks():
            total += x_BD.sum(0, dtype=np.float64)
            square += np.square(x_BD, dtype=np.float64).sum(0)
        count = max(1, len(features))
        mean = total / count
        deviation = np.sqrt(np.maximum(square / count - mean**2, 0.0))
        varies = deviation > 1e-6 * np.maximum(1.0, np.abs(mean))
        scale = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=varies)
        return cls(mean.astype(np.float32), scale.astype(np.float32))

    def unfold(self, head: LinearHead) -> LinearHead:
        """The head on scaled features that equals `head` on unscaled ones; inverse of `fold`."""
        undo = np.divide(1.0, self.scale, out=np.zeros_like(self.scale), where=self.scale > 0)
        return LinearHead(head.weight * undo[:, None], head.bias + self.mean @ head.weight)

    @classmethod
    def none(cls, dim: int) -> Scaling:
        """Leave the features as they are."""
        return cls(np.zeros(dim, np.float32), np.ones(dim, np.float32))

    def apply(self, x_ND: FloatArray) -> FloatArray:
        """Scaled features, same shape."""
        return (x_ND - self.mean) * self.scale

    def fold(self, head: LinearHead) -> LinearHead:
        """The head on unscaled features that equals `head` on scaled ones."""
        weight = head.weight * self.scale[:, None]
        return LinearHead(weight, head.bias - self.mean @ weight)
