"""What is said of a trained classifier: its measures, how it was made, and that in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from fieldmark.data.photos import PhotoTable
from fieldmark.data.subset import DataSplits
from fieldmark.evaluation import calibration, metrics
from fieldmark.evaluation.results import Evaluation
from fieldmark.inference.classifier import Classifier
from fieldmark.utils.typing import BoolArray


def measured(evaluation: Evaluation, classifier: Classifier, parts: DataSplits) -> dict[str, Any]:
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

    def share(given_N: BoolArray, right_N: BoolArray) -> dict[str, Any]:
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


def photo_line(table: PhotoTable, parts: DataSplits) -> str:
    """Say how many photos were found, kept and rejected, and how they are divided."""
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in table.reasons().items())
    rejected = f", {len(table) - table.kept.height:,} rejected ({reasons})" if reasons else ""
    return (
        f"{len(table):,} photos found, {table.kept.height:,} kept{rejected}; "
        f"{len(parts.classes):,} classes; {len(parts.train):,} training, {len(parts.val):,} "
        f"validation, {len(parts.test):,} test photos"
    )


def sentence(summary: Mapping[str, Any]) -> str:
    """Say how large the error is on the test photos."""
    if not summary["photos"]:
        return "Top-1 error not measured: there are no labelled test photos."
    low, high = summary["top1_error_all_classes_interval"]
    return (
        f"Top-1 error {100 * summary['top1_error_all_classes']:.1f} % on {summary['photos']:,} test "
        f"photos (95 % CI {100 * low:.1f}-{100 * high:.1f} %)."
    )
