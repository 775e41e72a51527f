"""What is said of a trained classifier: its measures, how it was made, and that in words."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fieldmark import (
    calibration,
    metrics,
)
from fieldmark.backbones import Backbone
from fieldmark.classifier import Classifier
from fieldmark.evaluate import Evaluation
from fieldmark.experiment import (
    Bench,
    Parts,
    versions,
    weights_line,
)
from fieldmark.heads.softmax import Fit, by_loss
from fieldmark.photos import PhotoTable
from fieldmark.split import Split
from fieldmark.train.config import TrainConfig


def measured(evaluation: Evaluation, classifier: Classifier, parts: Parts) -> dict[str, Any]:
    """The measures of the calibrated scores on the test part, and of the thresholds there."""
    scaled_NC = evaluation.scores_NC / np.float32(classifier.temperature)
    even = replace(evaluation, scores_NC=metrics.log_softmax32(scaled_NC))
    summary = even.summary(train_counts=parts.train_counts())
    summary["calibration_error_before"] = evaluation.summary(replicates=1)["calibration_error"]
    summary["answered"] = answered(even, classifier)
    confidence = metrics.confidence(scaled_NC).astype(np.float32)
    summary["coverage_curve"] = calibration.coverage_curve(confidence, ~even.wrong_N())
    return summary


def answered(even: Evaluation, classifier: Classifier) -> dict[str, Any]:
    """What came of the thresholds on photos that did not set them, rank by rank and in all.

    A photo of a class that was not learned counts as answered wrongly, where it is answered.

    Args:
        even: calibrated log-probabilities.
        classifier: its thresholds and ranks.
    """
    p_NC, labels = np.exp(even.scores_NC), even.labels_N
    found = calibration.answers(p_NC, labels, classifier.taxonomy.levels, classifier.thresholds)

    def share(given_N: npt.NDArray[np.bool_], right_N: npt.NDArray[np.bool_]) -> dict[str, Any]:
        photos = int(given_N.sum())
        return {
            "photos": photos,
            "coverage": photos / len(even) if len(even) else 0.0,
            "precision": float(right_N[given_N].mean()) if photos else None,
        }

    given_N = np.zeros(len(even), np.bool_)
    good_N = np.zeros(len(even), np.bool_)
    for named_N, right_N in found.values():
        given_N, good_N = given_N | named_N, good_N | (named_N & right_N)
    by_rank = {rank: share(*each) for rank, each in found.items()}
    return {"all": share(given_N, good_N), **by_rank}


def provenance(
    photos: Path,
    table: PhotoTable,
    split: Split,
    parts: Parts,
    backbone: Backbone,
    fits: Sequence[Fit],
    config: TrainConfig,
) -> dict[str, Any]:
    """How a classifier was made, as JSON values."""
    fit = min(fits, key=by_loss)
    return {
        "name": photos.resolve().name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "backbone": config.network,
        "weights": weights_line(backbone),
        "weights_complete": backbone.account.complete,
        "licence": backbone.architecture.licence,
        "transfer": config.transfer,
        "bfloat16": config.bfloat16,
        "head": config.head,
        "photos": {
            "train": len(parts.train),
            "val": len(parts.val),
            "test": len(parts.test),
            "rejected": table.reasons(),
        },
        "classes": len(parts.classes),
        "data_digest": table.digest(),
        "split": {"way": split.way, "seed": split.seed, "digest": split.digest},
        "epochs": len(fit.curve),
        "chosen": {"learning_rate": fit.arm.learning_rate, "weight_decay": fit.arm.weight_decay},
        "tried": [
            {
                "learning_rate": each.arm.learning_rate,
                "weight_decay": each.arm.weight_decay,
                "val_loss": each.val_loss if math.isfinite(each.val_loss) else None,
            }
            for each in fits
        ],
        "curve": [epoch.told() for epoch in fit.curve],
        "versions": versions(),
    }


def outcome(
    classifier: Classifier, summary: Mapping[str, Any], bench: Bench, training: float, start: float
) -> dict[str, Any]:
    """What came of training, as JSON values of a classifier's provenance.

    Args:
        classifier: calibrated.
        summary: its measures on the test part, and `unknown`.
        bench: where its features were computed.
        training: seconds that its heads took.
        start: when all of it began, by `time.perf_counter`.
    """
    return {
        "test": sentence(summary),
        "temperature": classifier.temperature,
        "threshold": asdict(classifier.threshold) if classifier.threshold else None,
        "measured": {name: summary[name] for name in ("answered", "coverage_curve", "unknown")},
        "thresholds": {rank: asdict(each) for rank, each in classifier.thresholds.items()},
        "seconds": {
            "features": sum(bench.extraction.seconds.values()),
            "training": training,
            "in all": time.perf_counter() - start,
        },
    }


def photo_line(table: PhotoTable, parts: Parts) -> str:
    """What was found, kept and rejected, and how it was divided, in one line."""
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in table.reasons().items())
    return (
        f"{len(table):,} photos found, {table.kept.height:,} kept"
        + (f", {len(table) - table.kept.height:,} rejected ({reasons})" if reasons else "")
        + f"; {len(parts.classes):,} classes; {len(parts.train):,} photos to train, "
        f"{len(parts.val):,} to choose by, {len(parts.test):,} to measure on"
    )


def sentence(summary: Mapping[str, Any]) -> str:
    """How good it is, for a person."""
    if not summary["photos"]:
        return "How often the first name is wrong was not measured: no labelled photo was held out."
    error, (low, high) = (
        summary["top1_error_all_classes"],
        summary["top1_error_all_classes_interval"],
    )
    return (
        f"On {summary['photos']:,} photos that training never saw, the first name was wrong for "
        f"{error:.1%} (95 % interval {low:.1%} to {high:.1%})."
    )
