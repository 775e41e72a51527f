"""`fieldmark export`: a classifier as one ONNX file that ONNX Runtime runs alone.

    image          uint8 (H, W, 3): a decoded picture, upright, RGB, of any size
    probabilities  float32 (C,): calibrated, in the order of the class list in the metadata
    energy         float32 (): lower than `known_from` in the metadata, and the photo may be of no class

Inside are the resize, the normalisation, the network, the last layer and the temperature; of an
ensemble all of its members, with each network once. The file is written only after it
has given the classifier's own answers on photos.

    graph.py    the graph
    check.py    pictures, and how far a graph is from the classifier on them
    about.py    its metadata
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fieldmark import inference
from fieldmark.inference.classifier import Classifier, stacked
from fieldmark.inference.export.graph import OPSET, assemble, trunks_of
from fieldmark.inference.export.metadata import FORMAT, describe
from fieldmark.inference.export.validation import (
    CHECKED,
    TOLERANCE,
    Outputs,
    Parity,
    compare,
    expected_of,
    generated,
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
    "OPSET",
    "TOLERANCE",
    "Exported",
    "Outputs",
    "Parity",
    "assemble",
    "compare",
    "export",
    "generated",
    "own_photos",
    "pictures",
    "run",
    "trunks_of",
]

CALIBRATED = 256
"""At most so many of a classifier's photos are used for int8: one half sets the ranges, the other
measures the loss."""

_ENERGY = 10  # an energy is a sum of logits, each as large as the logarithms of many probabilities


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        path: the file.
        size: its bytes.
        parity: the check of the file in single precision, which every export passes.
        loss: with int8, what rounding to 8 bits cost, on photos that it was not calibrated on.
    """

    path: Path
    size: int
    parity: Parity
    loss: Parity | None = None


def run(model: Path, path: Path, check: Sequence[Path] = (), *, int8: bool = False) -> Exported:
    """Export the classifier in a folder; see `export`.

    Args:
        model: the classifier's folder.
        path: the ONNX file to write.
        check: photos and folders to check on; none: those that the classifier was made from, as far
            as they are still there.
        int8: see `export`.

    Raises:
        InputError: as `export`, or the classifier or a photo is not there.
    """
    with publishing.writing_file(path, "--onnx"):
        classifier = Classifier.load(model)
        given = [item.path for item in inference.items_of(check)]
        places = given or own_photos(classifier, CALIBRATED if int8 else CHECKED)
        if not places:
            logger.info("No photos to check on are here: generated pictures will do.")
        return export(classifier, path, pictures(places), int8=int8)


def export(
    classifier: Classifier, path: Path, photos: Sequence[ByteArray] = (), *, int8: bool = False
) -> Exported:
    """Write a classifier as one ONNX file, once it agrees with the classifier.

    Args:
        classifier: what to write.
        path: the file; it is wholly written or not at all.
        photos: decoded pictures, uint8 (H, W, 3), to check with and, for int8, to calibrate on; a
            dozen generated pictures of many shapes are added for the check.
        int8: compute the network in 8-bit whole numbers: a quarter of the size, and less exact.

    Raises:
        InputError: the file would give other answers, the network cannot be converted, `path`
            cannot be written to, or there are too few photos for int8.
    """
    trunks = trunks_of(classifier)
    model = assemble(classifier, trunks)
    shapes = [*photos, *generated()]
    expected = expected_of(classifier, shapes)
    allowed = max(TOLERANCE[view.interpolation] for view in classifier.views)
    parity = compare(model, shapes, expected, allowed)
    apart = max(parity.max_difference, parity.energy_difference / _ENERGY)
    if apart > allowed or parity.agreement < 1:
        raise InputError(
            f"{path} is not written: the graph disagrees with the classifier ({parity}; at most "
            f"{allowed:g} is allowed, and {_ENERGY} times that in an energy): "
            "use the classifier's folder, or train with another network."
        )
    loss = None
    if int8:
        model, loss = _quantised(classifier, trunks, photos, expected.first(len(photos)))
    describe(model, classifier, parity, loss)
    data = model.SerializeToString()
    io.write_bytes(path, data)
    return Exported(path, len(data), parity, loss)


def _quantised(
    classifier: Classifier,
    trunks: Sequence[onnx.ModelProto],
    photos: Sequence[ByteArray],
    expected: Outputs,
) -> tuple[onnx.ModelProto, Parity]:
    """The graph with its networks in 8 bits, and what that costs on the other half of the photos."""
    if len(photos) < 2:
        raise InputError(
            "int8 is calibrated on one half of some photos and measured on the other, and the "
            "photos that the classifier was made from are not here: name some with --check."
        )
    crops = dict(
        zip(classifier.views, stacked([classifier.crop(each) for each in photos[::2]]), strict=True)
    )
    rounded = []
    for network, trunk in zip(classifier.networks, trunks, strict=True):
        view = next(m.preprocess for m in classifier.members if m.network.key == network.key)
        rounded.append(int8_.quantise(trunk, crops[view]))
    model = assemble(classifier, rounded)
    return model, compare(model, photos[1::2], expected.every_other())
