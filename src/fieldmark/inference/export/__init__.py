"""`fieldmark export`: a classifier as one ONNX file that ONNX Runtime runs alone.

    image          uint8 (H, W, 3): a decoded photo, upright, RGB, of any size
    probabilities  float32 (C,): calibrated, in the order of the class list in the metadata
    ood_score      float32 (): below `known_from` in the metadata, the photo may show no known class

It contains the resize, the normalisation, the network, the last layer and the temperature; of an
ensemble all members, with each network once. The file is written only after it has given the
classifier's own predictions on photos.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fieldmark import inference
from fieldmark.inference.classifier import Classifier, stacked
from fieldmark.inference.export.graph import FORMAT, assemble, describe, trunks_of
from fieldmark.inference.export.validation import (
    CHECKED,
    ROUNDED,
    TOLERANCE,
    Outputs,
    Parity,
    compare,
    differences,
    expected_of,
    generated_pictures,
    own_photos,
    pictures,
)
from fieldmark.models.runtime import int8 as int8_
from fieldmark.utils import io, publishing
from fieldmark.utils.errors import InputError
from fieldmark.utils.typing import ByteArray

if TYPE_CHECKING:
    import onnx

logger = logging.getLogger(__name__)

__all__ = [
    "FORMAT",
    "TOLERANCE",
    "Exported",
    "Outputs",
    "Parity",
    "assemble",
    "compare",
    "differences",
    "expected_of",
    "export",
    "generated_pictures",
    "own_photos",
    "pictures",
    "run",
    "trunks_of",
]

CALIBRATED = 256
"""The maximum number of a classifier's photos for int8: one half sets the ranges, the other measures
the loss."""

_OOD = 10  # tolerance of an out-of-distribution score, as a multiple of that of a probability


_OWN = 4
"""The graph may differ by so many times what the classifier changes by itself when a few values of its crops
are rounded in the other direction. Random weights may give all photos nearly the same features, so that
float32 carries no more of their differences: two engines, or two batches, then differ as much."""


@dataclass(frozen=True)
class Exported:
    """An exported file.

    Attributes:
        parity: the check of the float32 graph, which every export passes.
        loss: for int8, the differences due to rounding, on photos that it was not calibrated on.
    """

    path: Path
    size: int
    parity: Parity
    loss: Parity | None = None


def run(model: Path, path: Path, check: Sequence[Path] = (), *, int8: bool = False) -> Exported:
    """Export the classifier in the folder `model`; see `export`.

    Photos and folders to check on are named in `check`; without any, those that the classifier was trained
    with are used, as far as they still exist.

    Raises:
        InputError: as `export`, or the classifier or a photo does not exist.
    """
    with publishing.writing_file(path, "--onnx"):
        classifier = Classifier.load(model)
        given = [item.path for item in inference.find_photos(check)]
        places = given or own_photos(classifier, CALIBRATED if int8 else CHECKED)
        if not places:
            logger.info("No photos to check on were found: using generated pictures.")
        return export(classifier, path, pictures(places), int8=int8)


def export(
    classifier: Classifier, path: Path, photos: Sequence[ByteArray] = (), *, int8: bool = False
) -> Exported:
    """Write a classifier as one ONNX file, if its predictions agree with the classifier's.

    Args:
        path: the file; it is written completely or not at all.
        photos: decoded photos, uint8 (H, W, 3), to check with and, for int8, to calibrate on; a dozen
            generated pictures of many shapes are added for the check.
        int8: compute the network in 8-bit integers: a quarter of the size, and less exact.

    Raises:
        InputError: the predictions differ, the network cannot be converted, `path` cannot be written,
            or there are too few photos for int8.
    """
    trunks = trunks_of(classifier)
    model = assemble(classifier, trunks)
    shapes = [*photos, *generated_pictures()]
    expected = expected_of(classifier, shapes)
    allowed = max(TOLERANCE[view.interpolation] for view in classifier.views)
    parity = compare(model, shapes, expected, allowed)
    if not _agrees(parity, allowed):
        share = max(ROUNDED[view.interpolation] for view in classifier.views)
        own = differences(expected_of(classifier, shapes, share), expected)
        allowed = max(allowed, _OWN * _apart(own))
        parity = compare(model, shapes, expected, allowed)
    if not _agrees(parity, allowed):
        raise InputError(
            f"{path} is not written: the graph disagrees with the classifier ({parity}; at most "
            f"{allowed:g} is allowed, and {_OOD} times that in an out-of-distribution score): "
            "use the classifier's folder, or train with another network."
        )
    loss = None
    if int8:
        model, loss = _quantised(classifier, trunks, photos, expected[: len(photos)])
    describe(model, classifier, parity, loss)
    data = model.SerializeToString()
    io.write_bytes(path, data)
    return Exported(path, len(data), parity, loss)


def _apart(parity: Parity) -> float:
    return max(parity.max_difference, parity.ood_difference / _OOD)


def _agrees(parity: Parity, allowed: float) -> bool:
    return _apart(parity) <= allowed and parity.agreement == 1


def _quantised(
    classifier: Classifier, trunks: Sequence[onnx.ModelProto], photos: Sequence[ByteArray], expected: Outputs
) -> tuple[onnx.ModelProto, Parity]:
    """Return the graph with int8 networks, and the differences on the other half of the photos."""
    if len(photos) < 2:
        raise InputError(
            "int8 is calibrated on one half of some photos and measured on the other, and the photos "
            "that the classifier was trained with were not found: name some with --check."
        )
    crops = dict(zip(classifier.views, stacked([classifier.crop(each) for each in photos[::2]]), strict=True))
    rounded = []
    for network, trunk in zip(classifier.networks, trunks, strict=True):
        view = next(m.preprocess for m in classifier.members if m.network.key == network.key)
        rounded.append(int8_.quantise(trunk, crops[view]))
    model = assemble(classifier, rounded)
    return model, compare(model, photos[1::2], expected[1::2])
