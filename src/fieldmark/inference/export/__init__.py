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
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fieldmark.inference import inputs
from fieldmark.inference.classifier import Classifier, stacked
from fieldmark.inference.classifier.ensemble_member import computed, running, with_networks
from fieldmark.inference.export.graph import FORMAT, assemble, describe, left_out, trunks_of
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
from fieldmark.models.runtime import EXACT, Tier
from fieldmark.models.runtime.quantise import quantise
from fieldmark.utils import io, publishing
from fieldmark.utils.choices import Compute, TierName
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

_ROUNDS, _TIMED = 7, 8  # of a comparison of speed, and the photos of each round

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
        loss: for int8, the differences from the classifier, on photos that it was not calibrated on.
        faster: for int8, its speed as a multiple of that of float32 on this machine.
    """

    path: Path
    size: int
    parity: Parity
    loss: Parity | None = None
    faster: float | None = None


def run(model: Path, path: Path, check: Sequence[Path] = (), *, compute: Compute | None = None) -> Exported:
    """Export the classifier in the folder `model`; see `export`.

    Photos and folders to check on are named in `check`; without any, those that the classifier was trained
    with are used, as far as they still exist.

    Raises:
        InputError: as `export`, or the classifier or a photo does not exist.
    """
    with publishing.writing_file(path, "--onnx"):
        classifier = Classifier.load(model)
        given = [item.path for item in inputs.find_photos(check)]
        int8 = tier_of(classifier, compute) == "int8"
        places = given or own_photos(classifier, CALIBRATED if int8 else CHECKED)
        if not places:
            logger.info("No photos to check on were found: using generated pictures.")
        return export(classifier, path, pictures(places), compute=compute)


def tier_of(classifier: Classifier, compute: Compute | None) -> TierName:
    """Return the tier of the file to write: by default int8 where the classifier is, else exact.

    Raises:
        InputError: the tier is `half`.
    """
    if compute == "half":
        raise InputError("an ONNX file is not computed in half: use --compute exact or int8.")
    if compute in (None, "auto"):
        return "int8" if all(each.tier.name == "int8" for each in classifier.networks) else "exact"
    return "int8" if compute == "int8" else "exact"


def export(
    classifier: Classifier, path: Path, photos: Sequence[ByteArray] = (), *, compute: Compute | None = None
) -> Exported:
    """Write a classifier as one ONNX file, if its predictions agree with the classifier's.

    Args:
        path: the file; it is written completely or not at all. A list of species (`favouring`) and the prior
            of one place (`at`) are in it; that of any place is left out, with a warning.
        photos: decoded photos, uint8 (H, W, 3), to check with and, for int8, to calibrate on; a dozen
            generated pictures of many shapes are added for the check.
        compute: `exact`, or `int8`: the network in 8-bit integers, which is less exact and a quarter of the
            size; None and `auto`: the tier that the classifier was trained in.

    Raises:
        InputError: the predictions differ, the network cannot be converted, `path` cannot be written,
            there are too few photos for int8, or int8 is not faster than float32 on this machine.
    """
    int8 = tier_of(classifier, compute) == "int8"
    quantised = {each.exact_key: each.tier for each in classifier.networks}
    given, members = classifier, classifier.members
    members = with_networks(members, tier=EXACT) if int8 else computed(members, "exact")
    classifier = replace(classifier, members=members)
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
    loss = faster = None
    if int8:
        plain = model
        model = _quantised(classifier, trunks, photos, quantised)
        loss = compare(model, photos[1::2], expected_of(given, photos[1::2]))
        faster = speed(model, plain, photos)
        if faster <= 1:
            raise InputError(
                f"{path} is not written: in int8 it is {faster:.2f} times as fast as in float32 on this "
                "machine: use --compute exact."
            )
    describe(model, classifier, parity, loss)
    data = model.SerializeToString()
    io.write_bytes(path, data)
    if said := left_out(classifier):
        logger.warning(said)
    return Exported(path, len(data), parity, loss, faster)


def _apart(parity: Parity) -> float:
    return max(parity.max_difference, parity.ood_difference / _OOD)


def _agrees(parity: Parity, allowed: float) -> bool:
    return _apart(parity) <= allowed and parity.agreement == 1


def _quantised(
    classifier: Classifier,
    trunks: Sequence[onnx.ModelProto],
    photos: Sequence[ByteArray],
    tiers: Mapping[str, Tier],
) -> onnx.ModelProto:
    """Return the graph with int8 networks, calibrated on every other photo.

    A graph that the classifier carries is used, if it was made for ONNX Runtime.
    """
    import onnx

    if len(photos) < 2:
        raise InputError(
            "int8 is calibrated on one half of some photos and measured on the other, and the photos "
            "that the classifier was trained with were not found: name some with --check."
        )
    crops = dict(zip(classifier.views, stacked([classifier.crop(each) for each in photos[::2]]), strict=True))
    rounded = []
    for network, trunk in zip(classifier.networks, trunks, strict=True):
        tier = tiers[network.exact_key]
        if tier.graph is not None and tier.engine == "onnxruntime":
            rounded.append(onnx.load(tier.graph))
            continue
        view = next(m.preprocess for m in classifier.members if m.network.key == network.key)
        rounded.append(quantise(trunk, crops[view], "onnxruntime"))
    return assemble(classifier, rounded)


def speed(model: onnx.ModelProto, other: onnx.ModelProto, photos: Sequence[ByteArray]) -> float:
    """Return how many times as fast as another a file is here: the median of alternating rounds."""
    runs = [running(model), running(other)]
    ratios = []
    for number in range(1 + _ROUNDS):
        seconds = [0.0, 0.0]
        for which in (0, 1) if number % 2 else (1, 0):
            start = time.perf_counter()
            for photo in photos[:_TIMED]:
                runs[which](photo)
            seconds[which] = time.perf_counter() - start
        ratios.append(seconds[1] / seconds[0])
    return statistics.median(ratios[1:])  # the first is the warm-up
