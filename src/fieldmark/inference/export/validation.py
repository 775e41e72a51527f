"""Check an exported file: compare its outputs on photos with the classifier's."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fieldmark.data import images
from fieldmark.data.storage import places
from fieldmark.data.storage.places import Place
from fieldmark.inference.classifier import Classifier, stacked
from fieldmark.inference.classifier.ensemble_member import running
from fieldmark.inference.classifier.folder import part
from fieldmark.utils import random as sampling
from fieldmark.utils.errors import ImageRejected, InputError
from fieldmark.utils.typing import ByteArray, FloatArray

if TYPE_CHECKING:
    import onnx

logger = logging.getLogger(__name__)

CHECKED = 64
"""The maximum number of a classifier's own photos for the check."""

TOLERANCE = {"bicubic": 1e-4, "bilinear": 1e-3}
"""The largest difference in a probability, by the interpolation of the resize.

With `bilinear` and sizes of a simple ratio many sums are halfway between two grey levels, where the
order of summation decides (`fieldmark.data.resampling`).
"""

ROUNDED = {"bicubic": 1e-3, "bilinear": 1e-2}
"""The share of a crop's values that may be a grey level apart, by the interpolation of the resize."""

_SHAPES = (
    *((240, 320), (320, 240), (224, 224), (300, 300), (480, 360), (900, 200)),
    *((200, 900), (100, 80), (31, 47), (1, 1), (640, 427), (1200, 801)),
)


@dataclass(frozen=True)
class Parity:
    """The differences between an exported file and the classifier."""

    photos: int
    max_difference: float  # the largest of a probability
    agreement: float  # the share of photos with the same first label
    ood_difference: float = 0.0  # the largest of a score, relative where that is above 1

    def __str__(self) -> str:
        return (
            f"the same first label on {self.agreement:.1%} of {self.photos:,} pictures, the largest "
            f"difference in a probability is {self.max_difference:.1e}, in an "
            f"out-of-distribution score {self.ood_difference:.1e}"
        )


def compare(
    model: onnx.ModelProto, shapes: Sequence[ByteArray], expected: Outputs, allowed: float = 0.0
) -> Parity:
    """Run a graph on photos, uint8 (H, W, 3), and compare its outputs with the expected ones.

    First labels whose probabilities are as close as `allowed` count as the same.
    """
    return differences(_joined(map(running(model), shapes), np.stack), expected, allowed)


def differences(found: Outputs, expected: Outputs, allowed: float = 0.0) -> Parity:
    """Compare outputs for the same photos; `allowed` as for `compare`."""
    p_NC, best = found.probabilities_NC, expected.probabilities_NC
    short = best.max(axis=1) - best[np.arange(len(best)), p_NC.argmax(axis=1)]
    scale_N = np.maximum(np.abs(expected.ood_N), 1)
    return Parity(
        len(best),
        _worst(p_NC - best),
        float((short <= allowed).mean()),
        _worst((found.ood_N - expected.ood_N) / scale_N),
    )


def _worst(differences: npt.NDArray[np.floating]) -> float:
    """Return the largest difference; infinity if one is NaN."""
    return float(np.nan_to_num(np.abs(differences).max(), nan=np.inf, posinf=np.inf))


@dataclass(frozen=True)
class Outputs:
    """The outputs for photos: probabilities (N, C) and out-of-distribution scores (N,)."""

    probabilities_NC: FloatArray
    ood_N: FloatArray

    def __getitem__(self, photos: slice) -> Outputs:
        return Outputs(self.probabilities_NC[photos], self.ood_N[photos])


def expected_of(classifier: Classifier, shapes: Sequence[ByteArray], rounded: float = 0.0) -> Outputs:
    """Compute the classifier's outputs for decoded photos.

    Args:
        shapes: photos, uint8 (H, W, 3).
        rounded: the share of the values of its crops that are changed by one grey level before.
    """
    random = sampling.generator(0, "export", "rounded")

    def crop(picture: ByteArray) -> list[ByteArray]:
        crops = stacked([classifier.crop(picture)])
        if not rounded:
            return crops
        return [each ^ (random.random(each.shape, np.float32) < rounded) for each in crops]

    return _joined((classifier.outputs(crop(picture)) for picture in shapes), np.concatenate)


def _joined(parts: Iterable[Sequence[Any]], join: Callable[[Sequence[Any]], Any]) -> Outputs:
    return Outputs(*(join(part) for part in zip(*parts, strict=True)))


def pictures(paths: Sequence[Place]) -> list[ByteArray]:
    """Decode photos; those that cannot be used are logged and left out. Raises InputError if all are."""
    found = []
    for path in paths:
        try:
            found.append(images.decode(images.read_bytes(path)))
        except ImageRejected as error:
            logger.info(f"{path} is not used for the check: {error}")
    if paths and not found:
        raise InputError("None of the photos given to --check can be used: name others.")
    return found


def own_photos(classifier: Classifier, limit: int = CHECKED) -> list[Place]:
    """Return existing photos of the classifier's folder, at most `limit`, drawn by their ids.

    Photos that it was not trained on come first.
    """
    from fieldmark.data.photos import PhotoTable
    from fieldmark.data.split import Split

    folder = classifier.source
    if not isinstance(folder, Path) or not (folder / "photos.parquet").is_file():
        return []
    table = PhotoTable.read(part(folder, "photos.parquet", classifier.files))
    known = (folder / "split.parquet").is_file()
    split = part(folder, "split.parquet", classifier.files) if known else None
    seen = set(Split.read(split).ids("train")) if split else set()
    rows = table.labelled.select("id", "path").rows()
    order = sampling.order([photo_id for photo_id, _ in rows], "export").tolist()
    order.sort(key=lambda number: rows[number][0] in seen)
    there = (table.file_of(rows[number][1]) for number in order)
    return list(islice(filter(places.is_local, there), limit))


def generated_pictures() -> Iterator[ByteArray]:
    """Generate pictures of many shapes, always the same: waves of colour with some noise."""
    for height, width in _SHAPES:
        random = sampling.generator(0, "export", height, width)
        rows, columns = np.ogrid[0:height, 0:width]
        slopes, phases = random.uniform(0.01, 0.3, (2, 3)), random.uniform(0, 6, 3)
        waves = np.sin(rows[..., None] * slopes[0] + columns[..., None] * slopes[1] + phases)
        noise = random.normal(0, 20, (height, width, 3))
        yield (128 + 90 * waves + noise).clip(0, 255).astype(np.uint8)
