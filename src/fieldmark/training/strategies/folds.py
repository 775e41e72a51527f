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
from fieldmark.evaluation.calibration import fit_temperature
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
from fieldmark.utils.typing import FloatArray, IntArray

_MOST_WORK = 5e9
"""Up to so many products of a feature and a weight, learning all heads of the folds takes minutes."""


def divided(data: Prepared, backbones: Sequence[Backbone], config: TrainConfig, *, by_user: bool) -> Prepared:
    """Return the photos in groups, as they are measured: in folds if that takes minutes, else on a test part.

    Args:
        data: whose features are computed.
        backbones: whose last layers are to be learned; the first one's features find near-duplicates.
        config: every choice.
        by_user: whether the user set the test part apart, where it stays.
    """
    grouped = data if by_user or config.groups == "none" else data.grouped(backbones[0])
    if not config.in_folds:
        return grouped if grouped is data else grouped.divided_anew(config, config.seed)
    split = grouped.split.pooled() if by_user else grouped.split
    pool = replace(grouped, dataset=replace(grouped.dataset, split=split))
    photos, classes = len(pool.splits.train), len(pool.splits.classes)
    if sum(logistic.work(photos, each.architecture.feature_dim, classes) for each in backbones) <= _MOST_WORK:
        return pool
    return grouped if by_user else grouped.divided_anew(config, config.seed)


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

    labels_N = measured.labels(splits.classes)
    chosen = [each.choice for each in every]
    calibration, heats = _calibration_set(chosen, measured, labels_N)
    members = tuple(
        FittedMember(
            Member(Network.of(backbone), data.extractor.crop_for(backbone), head, heat, 1 / len(backbones)),
            backbone,
            data.extractor,
        )
        for backbone, head, heat in zip(backbones, heads, heats, strict=True)
    )
    best = chosen[0]
    return Fitted(
        members,
        data,
        (Fit(Hyperparameters(), heads[0], scaled_loss=best.losses[best.name]),),
        time.perf_counter() - start,
        calibration,
        tuple(_measured_fold(each, measured, labels_N) for each in zip(*rounds, strict=True)),
        details={"rare": None, **_record(backbones, chosen)},
    )


def _calibration_set(
    choices: Sequence[Choice], photos: LabelledPhotos, labels_N: IntArray
) -> tuple[CalibrationSet, list[float]]:
    """The photos by which the choices were made, and the temperature of each network's probabilities before
    they are averaged; of one network alone 1."""
    numbers_M, found = choices[0].found.numbers_M, [each.found.logits_MC for each in choices]
    labels_M, groups = labels_N[numbers_M], [photos.groups[number] for number in numbers_M]
    heats = [1.0] if len(found) == 1 else [fit_temperature(each, labels_M, groups) for each in found]
    return CalibrationSet(_scaled(found, heats), labels_M, groups), heats


def _measured_fold(rounds: Sequence[Round], photos: LabelledPhotos, labels_N: IntArray) -> MeasuredFold:
    """One fold by the heads of each network, calibrated by the other folds."""
    calibration, heats = _calibration_set([each.choice for each in rounds], photos, labels_N)
    logits = _scaled([each.measured.logits_MC for each in rounds], heats)
    return MeasuredFold(rounds[0].measured.numbers_M, logits, calibration)


def _scaled(logits_MNC: Sequence[FloatArray], heats: Sequence[float]) -> list[FloatArray]:
    return [each / np.float32(heat) for each, heat in zip(logits_MNC, heats, strict=True)]


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
