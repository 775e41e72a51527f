"""How a classifier was made: the record that is kept with it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from fieldmark.data.images.boxes import MARGIN
from fieldmark.data.photos import PhotoTable
from fieldmark.heads.softmax import Fit, by_loss
from fieldmark.training.config import TrainConfig
from fieldmark.training.summary import sentence
from fieldmark.utils.versions import versions

if TYPE_CHECKING:
    from fieldmark.training.stages import Outcome


_MEASURED = ("answered", "coverage_curve", "measurement", "taxonomic", "unknown")


def _boxes(table: PhotoTable) -> Mapping[str, Any]:
    """Return how photos were cut to boxes, if they were."""
    if table.box_threshold is None:
        return {}
    return {"boxes": {"threshold": table.box_threshold, "margin": MARGIN}}


@dataclass(frozen=True)
class Seconds:
    """What training took, in seconds.

    Attributes:
        features: in networks, for features.
        training: for heads, or for the network itself.
        total: from the first photo to the last measure.
    """

    features: float
    training: float
    total: float

    def to_dict(self) -> dict[str, float]:
        """Return JSON values."""
        return {"features": self.features, "training": self.training, "in all": self.total}


@dataclass(frozen=True)
class PhotoCounts:
    """How many photos are in each part, and how many were rejected for each reason."""

    train: int
    val: int
    test: int
    rejected: Mapping[str, int]


@dataclass(frozen=True)
class SplitRecord:
    """How the photos were divided: the way, the seed, a digest of the result, and whether all photos of a
    location stayed together."""

    way: str
    seed: int
    digest: str
    by_place: bool = False


@dataclass(frozen=True)
class Tried:
    """One setting of the last layer that was tried; `val_loss` is None where it did not converge."""

    learning_rate: float
    weight_decay: float
    val_loss: float | None

    @classmethod
    def of(cls, fit: Fit) -> Tried:
        """Return the record of one fit."""
        setting = fit.hyperparameters
        loss = fit.val_loss if math.isfinite(fit.val_loss) else None
        return cls(setting.learning_rate, setting.weight_decay, loss)


@dataclass(frozen=True)
class Provenance:
    """How a classifier was made.

    Attributes:
        name: of the data set.
        created: the time in UTC, ISO 8601.
        backbone: the networks' names.
        weights: where their weights came from, with digests.
        weights_complete: whether no part of the weights is random.
        licence: of the weights.
        transfer: which layers were trained.
        bfloat16: whether the network itself was trained in half precision.
        groups: `auto` where bursts and near-duplicates were looked for, else `none`.
        head: how the last layer was asked to be learned; None: by the number of classes.
        photos: how many were used.
        classes: how many.
        data_digest: a digest of photos and labels.
        split: how the photos were divided.
        epochs: passes over the training photos.
        chosen: the last layer that was taken: its name or setting, or `how` an ensemble was chosen.
        tried: the settings of the last layer, or the options, that were tried, with their losses.
        curve: the learning curve, a record an epoch.
        versions: of what the numbers depend on.
        command: what was typed; "" from Python.
        test: the error on the test part, in a sentence.
        temperature: of the scores.
        threshold: when the first label is given as the answer, or None.
        measured: what the thresholds came to on the test part.
        thresholds: from which score on an answer is given, for each rank.
        seconds: what training took.
        details: what only some strategies have: `rare`, `ensemble`, `tried` options, `grown` and so on.
    """

    name: str
    created: str
    backbone: str
    weights: str
    weights_complete: bool
    licence: str
    transfer: str
    bfloat16: bool
    groups: str
    head: str | None
    photos: PhotoCounts
    classes: int
    data_digest: str
    split: SplitRecord
    epochs: int
    chosen: Mapping[str, float | str]
    tried: tuple[Mapping[str, Any], ...]
    curve: tuple[Mapping[str, Any], ...]
    versions: Mapping[str, str]
    command: str
    test: str
    temperature: float
    threshold: Mapping[str, Any] | None
    measured: Mapping[str, Any]
    thresholds: Mapping[str, Mapping[str, Any]]
    seconds: Seconds
    details: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls, outcome: Outcome, config: TrainConfig, seconds: Seconds, command: str, details: Mapping[str, Any]
    ) -> Provenance:
        """Record how an outcome came about."""
        fitted, splits = outcome.fitted, outcome.splits
        classifier, summary = outcome.classifier, outcome.summary.to_dict()
        backbones = {each.backbone.key: each.backbone for each in fitted.members}.values()
        data, best = fitted.data, min(fitted.fits, key=by_loss)
        setting = best.hyperparameters
        return cls(
            name=data.dataset.name,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            backbone=classifier.architecture,
            weights="; ".join(dict.fromkeys(each.weights_info.line for each in backbones)),
            weights_complete=all(each.weights_info.complete for each in backbones),
            licence="; ".join(dict.fromkeys(each.architecture.licence for each in backbones)),
            transfer=config.transfer,
            bfloat16=config.bfloat16,
            groups=config.groups,
            head=config.head,
            photos=PhotoCounts(len(splits.train), len(splits.val), len(splits.test), data.table.reasons()),
            classes=len(splits.classes),
            data_digest=data.table.digest(),
            split=SplitRecord(
                *(data.split.way, data.split.seed, data.split.digest), by_place=config.split == "location"
            ),
            epochs=len(best.curve),
            chosen={"learning_rate": setting.learning_rate, "weight_decay": setting.weight_decay},
            tried=tuple(asdict(Tried.of(each)) for each in fitted.fits),
            curve=tuple(epoch.to_dict() for epoch in best.curve),
            versions=versions(),
            command=command,
            test=sentence(outcome.summary),
            temperature=classifier.temperature,
            threshold=asdict(classifier.threshold) if classifier.threshold else None,
            measured={name: summary[name] for name in _MEASURED},
            thresholds={rank: asdict(each) for rank, each in classifier.thresholds.items()},
            seconds=seconds,
            details={**details, **_boxes(data.table)},
        )

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values; the `details` stand beside the other keys."""
        told: dict[str, Any] = asdict(self)
        told["seconds"] = self.seconds.to_dict()
        told["tried"] = list(told["tried"])
        told["curve"] = list(told["curve"])
        details: dict[str, Any] = told.pop("details")
        return told | details
