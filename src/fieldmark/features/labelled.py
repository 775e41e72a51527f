"""Feature vectors with their labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fieldmark.features.cache import Features
from fieldmark.utils.typing import BoolArray, IntArray


@dataclass(frozen=True)
class LabelledFeatures:
    """The features of training or evaluation photos.

    Attributes:
        features: their vectors, x_ND.
        labels: their classes, y_N, each in 0 .. C-1, or -1 for a photo of none of the classes.
        ids: their ids, which the order of training depends on.
    """

    features: Features
    labels: IntArray
    ids: tuple[str, ...]

    def __post_init__(self) -> None:
        if not len(self.features) == len(self.labels) == len(self.ids):
            raise ValueError("features, labels and ids must be of one length")

    def __len__(self) -> int:
        return len(self.labels)

    def where(self, keep: BoolArray) -> LabelledFeatures:
        """Return the photos for which `keep`, shape (N,), is true."""
        if keep.all():
            return self
        index = np.flatnonzero(keep)
        ids = tuple(self.ids[number] for number in index)
        return LabelledFeatures(self.features.take(index), self.labels[index], ids)
