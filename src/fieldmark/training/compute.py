"""Choose the tier of precision in which a frozen network computes features, for `TrainConfig.compute`.

`auto` measures what a tier gains and costs on the user's photos: its speed beside float32, and the error of a
ridge head on the features of both, in the same folds. A tier is taken only where the 95 % interval of the
paired difference excludes harm beyond `MOST_HARM`, so that too few photos speak for `exact`.
"""

from __future__ import annotations

import logging
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fieldmark.data.loader import decoded
from fieldmark.data.subset import LabelledPhotos
from fieldmark.evaluation.comparison import Difference, difference
from fieldmark.evaluation.results import Evaluation
from fieldmark.heads import ridge
from fieldmark.heads.cross_validation import out_of_fold_logits
from fieldmark.models import Backbone, runtime
from fieldmark.models.runtime import selection
from fieldmark.models.runtime.quantise import CALIBRATED, quantised
from fieldmark.training.config import TrainConfig
from fieldmark.training.stages import Prepared
from fieldmark.utils.errors import InputError
from fieldmark.utils.typing import ByteArray

logger = logging.getLogger(__name__)

MOST_HARM = 0.02
"""The increase of the error that must be excluded: a few of 1,000 photos change sides in any case."""
FASTER = 1.1
"""The speed from which a tier is worth its loss, as a multiple of that of `exact`."""
SAMPLE = 1024
"""Photos that the error is compared on."""

_ROUNDS = 5


@dataclass(frozen=True)
class Chosen:
    """A backbone in a tier.

    Attributes:
        backbone: computes in it.
        record: how it was chosen, for the provenance; empty for `exact` that was asked for.
    """

    backbone: Backbone
    record: Mapping[str, Any]


@dataclass(frozen=True)
class _Tried:
    """A tier that was measured: its speed as a multiple of that of `exact`, and what the error becomes."""

    backbone: Backbone
    faster: float
    difference: Difference | None = None  # None: not faster, so not measured

    @property
    def harmless(self) -> bool:
        low, high = self.difference.interval if self.difference else (1.0, 1.0)
        return low <= 0 and high <= MOST_HARM

    def __str__(self) -> str:
        told = f"{self.backbone.tier.name} is {self.faster:.2f} times as fast as exact"
        if self.difference is None:
            return f"{told}, and {FASTER} are required"
        low, high = (f"{100 * end:+.1f}" for end in self.difference.interval)
        value, photos = self.difference.value, self.difference.photos
        change = f"{100 * value:+.1f} points (95 % CI {low} to {high}) on {photos:,} photos"
        limit = "" if self.harmless else f", where more than {100 * MOST_HARM:.0f} cannot be excluded"
        limit = ", a harm" if self.difference.interval[0] > 0 else limit
        return f"{told}; the error of a ridge head changes by {change}{limit}"

    @property
    def record(self) -> dict[str, Any]:
        found = asdict(self.difference) if self.difference else None
        return {"tier": self.backbone.tier.name, "faster": self.faster, "difference": found}


def choose(data: Prepared, backbone: Backbone, config: TrainConfig) -> Chosen:
    """Return the backbone in the tier that was asked for, or that `auto` chooses; log what and why.

    Args:
        data: the photos; ranges are measured on training photos, and so is the error.
        backbone: the network in float32.
        config: `compute`, `engine` and `seed`.

    Raises:
        InputError: this machine, the engine or the network does not have the tier.
    """
    if config.compute == "exact":
        return Chosen(backbone, {})
    if config.compute == "half":
        found = backbone.computed(runtime.HALF)
        runtime.engine(found, config.engine)  # refused before photos are decoded
        return Chosen(found, {"compute": {"tier": "half"}})
    photos = data.splits.train.some(SAMPLE)
    crops = calibration_crops(data, backbone, photos)
    if config.compute == "int8":
        found = quantised(backbone, crops, config.engine)
        if (faster := _faster(backbone, found, crops, config.engine)) < 1:
            logger.warning(
                f"int8 in {found.tier.engine} is {faster:.2f} times as fast as exact here, so slower: "
                "--compute auto would not take it."
            )
        return Chosen(found, {"compute": {"tier": "int8", "engine": found.tier.engine}})
    reasons: list[str] = []
    tried = list(_tried(data, backbone, photos, crops, config, reasons))
    best = max((each for each in tried if each.harmless), key=lambda each: each.faster, default=None)
    found = best.backbone if best else backbone
    said = f"--compute auto takes {found.tier.name}: {'; '.join([*map(str, tried), *reasons])}."
    logger.info(said)
    measured = [each.record for each in tried]
    record = {"tier": found.tier.name, "engine": found.tier.engine, "said": said, "measured": measured}
    return Chosen(found, {"compute": record})


def calibration_crops(data: Prepared, backbone: Backbone, photos: LabelledPhotos) -> ByteArray:
    """Return crops of some of the photos, uint8 (N, S, S, 3); those that cannot be decoded are left out."""
    crop = data.extractor.crop_for(backbone)
    found = decoded(photos.some(CALIBRATED).files, crop, workers=data.extractor.workers)
    empty = np.empty((0, crop.size, crop.size, 3), np.uint8)
    return np.concatenate([empty, *(each[None] for each in found if isinstance(each, np.ndarray))])


def _tried(
    data: Prepared,
    backbone: Backbone,
    photos: LabelledPhotos,
    crops: ByteArray,
    config: TrainConfig,
    reasons: list[str],
) -> Iterator[_Tried]:
    """Measure each tier; why one cannot be is added to `reasons`."""
    for half in (True, False):
        try:
            found = backbone.computed(runtime.HALF) if half else quantised(backbone, crops, config.engine)
            faster = _faster(backbone, found, crops, config.engine)
        except InputError as error:
            reasons.append(str(error).partition(": use ")[0])  # advice is not what is asked for
            continue
        if faster < FASTER:
            yield _Tried(found, faster)
            continue
        scores = [evaluated(data, each, photos, config.seed) for each in (found, backbone)]
        yield _Tried(found, faster, difference(*scores, seed=config.seed))


def _faster(exact: Backbone, other: Backbone, crops: ByteArray, engine: str) -> float:
    """Return the speed of a tier as a multiple of that of float32: the median of alternating rounds."""
    engines = [runtime.engine(each, engine) for each in (other, exact)]
    some = crops[: selection.crops_a_call(exact.architecture, runtime.BATCH)]
    rates = [[selection.rate(each, some) for each in engines] for _ in range(_ROUNDS)]
    return statistics.median(mine / theirs for mine, theirs in rates)


def evaluated(data: Prepared, backbone: Backbone, photos: LabelledPhotos, seed: int) -> Evaluation:
    """Return the out-of-fold scores of a ridge head on the features of a backbone in its tier."""
    classes, extractor = data.splits.classes, data.extractor
    done = extractor.compute(photos.files, {backbone.architecture.name: backbone})
    known = photos.labels(classes) >= 0
    photos = photos.where(known & np.array([each.sha256 not in done.rejected for each in photos.files]))
    features = extractor.features(backbone, photos, classes)
    logits_NC = out_of_fold_logits(ridge.fit, features, photos, len(classes), seed)
    return Evaluation.of(photos, logits_NC, classes)
