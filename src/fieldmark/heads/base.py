"""The interface of heads: functions from features to logits, fitted on labelled features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import numpy as np

from fieldmark.utils.typing import DoubleArray, FloatArray, IntArray

if TYPE_CHECKING:
    from fieldmark.features.cache import Features


class Head(Protocol):
    """A fitted head of any kind."""

    def logits(self, x_ND: FloatArray) -> FloatArray:
        """Compute the logits s_NC of feature vectors."""

    def logits_of(self, features: Features) -> FloatArray:
        """Compute the logits of cached features, read block by block; shape (N, C)."""

    def tensors(self) -> dict[str, FloatArray]:
        """Return its parameters by name; the class method `from_tensors` reads them back."""


class HeadFit(Protocol):
    """The result of fitting a head of any kind."""

    @property
    def head(self) -> Head:
        """The head, on unscaled features."""

    @property
    def val_loss(self) -> float:
        """Mean cross-entropy on the validation photos, in nats."""

    @property
    def seconds(self) -> float:
        """The time that fitting took."""


H_co = TypeVar("H_co", bound=Head, covariant=True)


@dataclass(frozen=True)
class FittedHead(Generic[H_co]):
    """The result of fitting a head without gradient steps; see `HeadFit`."""

    head: H_co
    val_loss: float
    seconds: float = field(default=0.0, compare=False)


@dataclass(frozen=True)
class LinearHead:
    """A linear layer: s = x W + b.

    Attributes:
        weight: W_DC, float32.
        bias: b_C, float32.
    """

    weight: FloatArray
    bias: FloatArray

    def logits(self, x_ND: FloatArray) -> FloatArray:
        """Compute the logits s_NC of feature vectors."""
        return x_ND @ self.weight + self.bias

    def logits_of(self, features: Features) -> FloatArray:
        """Compute the logits of cached features, read block by block; shape (N, C)."""
        scores = np.empty((len(features), len(self.bias)), np.float32)
        for start, x_BD in features.blocks():
            scores[start : start + len(x_BD)] = self.logits(x_BD)
        return scores

    def tensors(self) -> dict[str, FloatArray]:
        """Return its parameters by name."""
        return {"weight": self.weight, "bias": self.bias}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Any]) -> LinearHead:
        """Make a head from the parameters of `tensors`."""
        return cls(tensors["weight"], tensors["bias"])

    def times(self, scale: float) -> LinearHead:
        """Return the head with its logits multiplied by `scale`."""
        return LinearHead(self.weight * np.float32(scale), self.bias * np.float32(scale))

    def exclude_unseen(self, count_C: IntArray) -> LinearHead:
        """Return the head that never predicts a class without training photos; its logits are finite.

        The logits of the other classes are shifted to a mean of zero for every photo, which changes
        none of their probabilities; so the highest of them is never below zero. The logit of a class
        without photos is fixed below zero: the logarithm of the share of half a photo.

        Args:
            count_C: the training photos of each class.
        """
        seen = count_C > 0
        if seen.all() or not seen.any():
            return self
        weight = np.where(seen, self.weight - self.weight[:, seen].mean(1, keepdims=True), 0.0)
        unseen = np.log(0.5 / (count_C.sum() + 0.5 * len(count_C)))
        bias = np.where(seen, self.bias - self.bias[seen].mean(), unseen)
        return LinearHead(weight.astype(np.float32), bias.astype(np.float32))


@dataclass(frozen=True)
class Scaling:
    """Standardisation of features to zero mean and unit variance.

    Attributes:
        mean: of each feature, shape (D,).
        scale: one over its standard deviation, shape (D,); 0 for a constant feature.
    """

    mean: FloatArray
    scale: FloatArray

    @classmethod
    def of(cls, features: Features, *, drawn: float = 0.0) -> Scaling:
        """Compute the statistics of features, in one pass in float64.

        Args:
            features: N vectors.
            drawn: to the square of the mean standard deviation each variance is drawn, as if so many of the
                vectors had it: with few vectors many features hardly vary by chance.
        """
        total, square = np.zeros(features.dim), np.zeros(features.dim)
        for _, x_BD in features.blocks():
            total += x_BD.sum(0, dtype=np.float64)
            square += np.square(x_BD, dtype=np.float64).sum(0)
        count = max(1, len(features))
        mean = total / count
        variance = square / count - mean**2
        if drawn:
            usual = np.sqrt(np.maximum(variance, 0.0)).mean() ** 2
            variance = (count * variance + drawn * usual) / (count + drawn)
        return cls.from_moments(mean, variance)

    @classmethod
    def from_moments(cls, mean: DoubleArray, variance: DoubleArray) -> Scaling:
        """Make the scaling from each feature's mean and variance."""
        deviation = np.sqrt(np.maximum(variance, 0.0))
        varies = deviation > 1e-6 * np.maximum(1.0, np.abs(mean))
        scale = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=varies)
        return cls(mean.astype(np.float32), scale.astype(np.float32))

    def unfold(self, head: LinearHead) -> LinearHead:
        """Return the head on scaled features that equals `head` on unscaled ones."""
        undo = np.divide(1.0, self.scale, out=np.zeros_like(self.scale), where=self.scale > 0)
        return LinearHead(head.weight * undo[:, None], head.bias + self.mean @ head.weight)

    @classmethod
    def none(cls, dim: int) -> Scaling:
        """Return the identity."""
        return cls(np.zeros(dim, np.float32), np.ones(dim, np.float32))

    def apply(self, x_ND: FloatArray) -> FloatArray:
        """Scale features; the shape stays."""
        return (x_ND - self.mean) * self.scale

    def fold(self, head: LinearHead) -> LinearHead:
        """Return the head on unscaled features that equals `head` on scaled ones."""
        weight = head.weight * self.scale[:, None]
        return LinearHead(weight, head.bias - self.mean @ weight)
