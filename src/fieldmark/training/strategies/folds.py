"""Last layers that are measured in folds and learn from all photos: of one network, or of several."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fieldmark.data.cross_validation import together
from fieldmark.data.subset import LabelledPhotos
from fieldmark.evaluation import calibration
from fieldmark.features.labelled import LabelledFeatures
from fieldmark.heads import logistic
from fieldmark.heads.base import LinearHead
from fieldmark.heads.softmax import Fit, Hyperparameters
from fieldmark.inference.classifier import Member, Network
from fieldmark.models import Backbone
from fieldmark.training.config import TrainConfig
from fieldmark.training.cross_fitting import HEADS_LEARNED, Choice, CrossFit, Round
from fieldmark.training.stages import CalibrationSet, Fitted, FittedMember, MeasuredFold, Prepared
from fieldmark.utils.logging import progress_bar
from fieldmark.utils.typing import IntArray

_MOST_WORK = 5e9
"""Up to so many products of a feature and a weight, learning all heads of the folds takes minutes."""


def undivided(
    data: Prepared, backbones: Sequence[Backbone], config: TrainConfig, *, anew: bool, divided: bool
) -> Prepared:
    """Return the photos as they are measured: in folds if that takes minutes, else with a test part.

    Args:
        data: whose groups are known.
        backbones: whose last layers are to be learned.
        config: every choice.
        anew: whether the groups came after the photos were divided.
        divided: whether the user set the test part apart, where it stays.
    """
    if not config.in_folds:
        return data.divided_anew(config, config.seed) if anew else data
    split = data.split.pooled() if divided else data.split
    pool = replace(data, dataset=replace(data.dataset, split=split))
    photos, classes = len(pool.splits.train), len(pool.splits.classes)
    if sum(logistic.work(photos, each.architecture.feature_dim, classes) for each in backbones) <= _MOST_WORK:
        return pool
    return data if divided else data.divided_anew(config, config.seed)


def cross_fitted(
    data: Prepared,
    backbones: Sequence[Backbone],
    config: TrainConfig,
    candidates: Callable[[LabelledFeatures, int], Mapping[str, LinearHead]] = logistic.candidates,
) -> Fitted:
    """Fit a last layer of each network on all training photos, and measure the photos in folds.

    The probabilities of several networks are averaged with equal weights, so that nothing but their
    temperatures is fitted, which is done without the photos that are measured.

    Args:
        data: whose features are computed.
        backbones: the networks.
        config: every choice.
        candidates: learns the heads to choose from, from photos and a number of classes.
    """
    start, splits = time.perf_counter(), data.splits
    measured = together(splits.train, splits.hard)
    classes = len(splits.classes)
    with progress_bar("training the last layer", HEADS_LEARNED * len(backbones), unit="folds") as stage:
        every = [
            CrossFit(
                data.extractor.features(backbone, measured, splits.classes),
                measured,
                lambda some: candidates(some, classes),
                config.seed,
                stage.advance,
                learned_N=np.arange(len(measured)) < len(splits.train),
            )
            for backbone in backbones
        ]
        rounds, heads = [each.rounds for each in every], [each.head for each in every]

    chosen = [each.choice for each in every]
    members = tuple(
        FittedMember(
            Member(Network.of(backbone), data.extractor.crop_for(backbone), head, heat, 1 / len(backbones)),
            backbone,
            data.extractor,
        )
        for backbone, head, heat in zip(
            backbones, heads, _heats(chosen, measured, splits.classes), strict=True
        )
    )
    best = chosen[0]
    return Fitted(
        members,
        data,
        (Fit(Hyperparameters(), heads[0], scaled_loss=best.losses[best.name]),),
        time.perf_counter() - start,
        _calibration_set(chosen, measured, splits.classes),
        tuple(_measured_fold(each, measured, splits.classes) for each in zip(*rounds, strict=True)),
        details={"rare": None, **_record(backbones, chosen)},
    )


def _of(
    photos: LabelledPhotos, numbers_M: IntArray, classes: tuple[str, ...]
) -> tuple[IntArray, list[str | None]]:
    """The labels and groups of some photos, in the order of their numbers."""
    return photos.labels(classes)[numbers_M], [photos.groups[number] for number in numbers_M]


def _heats(choices: Sequence[Choice], photos: LabelledPhotos, classes: tuple[str, ...]) -> list[float]:
    """The temperature of each network's probabilities before they are averaged; of one alone 1."""
    if len(choices) == 1:
        return [1.0]
    found = [each.found for each in choices]
    return [
        calibration.fit_temperature(each.logits_MC, *_of(photos, each.numbers_M, classes)) for each in found
    ]


def _calibration_set(
    choices: Sequence[Choice], photos: LabelledPhotos, classes: tuple[str, ...]
) -> CalibrationSet:
    """The photos by which the choices were made."""
    heats = map(np.float32, _heats(choices, photos, classes))
    logits = [each.found.logits_MC / heat for each, heat in zip(choices, heats, strict=True)]
    return CalibrationSet(logits, *_of(photos, choices[0].found.numbers_M, classes))


def _measured_fold(rounds: Sequence[Round], photos: LabelledPhotos, classes: tuple[str, ...]) -> MeasuredFold:
    """One fold by the heads of each network, calibrated by the other folds."""
    choices = [each.choice for each in rounds]
    heats = map(np.float32, _heats(choices, photos, classes))
    logits = [each.measured.logits_MC / heat for each, heat in zip(rounds, heats, strict=True)]
    return MeasuredFold(rounds[0].measured.numbers_M, logits, _calibration_set(choices, photos, classes))


def _record(backbones: Sequence[Backbone], choices: Sequence[Choice]) -> dict[str, Any]:
    """The candidates and the choice of each network, for the provenance."""
    several = len(backbones) > 1
    tried = [
        {
            **({"network": backbone.architecture.name} if several else {}),
            "head": name,
            "out_of_fold_loss": None if math.isnan(loss) else loss,
        }
        for backbone, choice in zip(backbones, choices, strict=True)
        for name, loss in choice.losses.items()
    ]
    names = [f"head of {each.architecture.name}" if several else "head" for each in backbones]
    return {"chosen": {name: each.name for name, each in zip(names, choices, strict=True)}, "tried": tried}
