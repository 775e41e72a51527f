"""The out-of-distribution score of a photo: high for photos like those that a classifier learned from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from fieldmark.inference.classifier import validation
from fieldmark.utils import io
from fieldmark.utils.typing import FloatArray

FILE = "ood.safetensors"
MOST_PHOTOS = 20_000
"""Most training photos whose vectors a classifier's folder holds."""

OodKind = Literal["class means", "nearest photos", "energy"]
"""What a photo is compared with: each class's mean feature vector; each training photo (Sun et al.,
"Out-of-distribution detection with deep nearest neighbors", 2022); or nothing, by the energy of the logits
(Liu et al., "Energy-based out-of-distribution detection", 2020)."""


@dataclass(frozen=True, eq=False)
class OodDetector:
    """Tells photos that may show none of the classes.

    Attributes:
        kind: what a photo is compared with.
        threshold: a photo with a lower score is flagged.
        vectors_KD: the feature vectors to compare with, of length 1 and rounded to float16; the score is the
            highest cosine of the first member's features to one of them. Without rows for the energy.
    """

    kind: OodKind
    threshold: float
    vectors_KD: FloatArray

    def scores(self, features_ND: FloatArray, energy_N: FloatArray) -> FloatArray:
        """Compute the score of photos, shape (N,).

        Args:
            features_ND: of the first member.
            energy_N: of the classifier's logits.
        """
        if self.kind == "energy":
            return energy_N
        return nearest_cosine(features_ND, self.vectors_KD)

    @property
    def digest(self) -> str:
        """A digest of all that a score and the flag depend on."""
        return io.digest([self.kind, self.threshold, io.sha256(self.vectors_KD.tobytes())])

    def to_json(self) -> dict[str, Any]:
        """Return all but the vectors as a JSON object."""
        return {"kind": self.kind, "threshold": self.threshold}

    def save(self, folder: Path) -> None:
        """Write the vectors, where there are any."""
        from safetensors.numpy import save as as_bytes

        if len(self.vectors_KD):
            io.write_bytes(folder / FILE, as_bytes({"vectors": self.vectors_KD.astype(np.float16)}))

    @classmethod
    def load(
        cls, about: Any, folder: Path, digests: Mapping[str, object], dim: int, classes: int
    ) -> OodDetector:
        """Read what `to_json` and `save` wrote.

        Raises:
            KeyError, OSError, ValueError, SafetensorError: something is missing or cannot be.
        """
        kind, threshold = about["kind"], about["threshold"]
        if (
            kind not in get_args(OodKind)
            or type(threshold) not in (int, float)
            or not -1e6 <= threshold <= 1e6
        ):
            raise ValueError("ood is not a known score with a threshold")
        if kind == "energy":
            return cls(kind, float(threshold), np.empty((0, dim), np.float32))
        most = dim * max(classes, MOST_PHOTOS)
        vectors = validation.tensors(folder / FILE, digests[FILE], most)["vectors"]
        if vectors.dtype != np.float16 or vectors.ndim != 2 or vectors.shape[1] != dim or not len(vectors):
            raise ValueError(f"{FILE} does not hold vectors of {dim} numbers")
        if not np.isfinite(vectors).all():
            raise ValueError(f"{FILE} holds values that are not finite")
        return cls(kind, float(threshold), vectors.astype(np.float32))


def unit(x_ND: npt.NDArray[np.floating]) -> FloatArray:
    """Scale vectors to length 1; a zero vector stays."""
    x_ND = np.asarray(x_ND, np.float32)
    lengths = np.linalg.norm(x_ND, axis=1, keepdims=True)
    return np.asarray(x_ND / np.maximum(lengths, np.finfo(np.float32).tiny), np.float32)


def nearest_cosine(x_ND: FloatArray, vectors_KD: FloatArray, block: int = 2048) -> FloatArray:
    """Compute the highest cosine of each row to one of the unit vectors, shape (N,)."""
    found_N = np.empty(len(x_ND), np.float32)
    for start in range(0, len(x_ND), block):
        found_N[start : start + block] = (unit(x_ND[start : start + block]) @ vectors_KD.T).max(axis=1)
    return found_N
