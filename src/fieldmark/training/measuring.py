"""Calibrate what a strategy fitted, and measure it: in folds, or once on the test part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fieldmark.data import cross_validation
from fieldmark.data.cross_validation import FOLDS, together
from fieldmark.data.subset import DataSplits
from fieldmark.evaluation import calibration, metrics
from fieldmark.evaluation.results import Evaluation
from fieldmark.features.labelled import LabelledFeatures
from fieldmark.inference.classifier import Classifier
from fieldmark.inference.classifier.ood import nearest_cosine
from fieldmark.training import out_of_distribution
from fieldmark.training.config import TrainConfig
from fieldmark.training.finetune import distributed
from fieldmark.training.out_of_distribution import Chosen, KnownPhotos
from fieldmark.training.stages import CalibrationSet, Fitted, Outcome
from fieldmark.training.summary import Answers, Measurement, measured
from fieldmark.utils.typing import BoolArray, FloatArray


@dataclass(frozen=True)
class _Measured:
    """What is measured, before it is summed up.

    Attributes:
        evaluation: the scores, before the classifier's temperature.
        how: how they came about.
        answers: what the thresholds came to at each rank.
        features: the first member's features of the photos; None: those of the folds.
        rows_N: in folds, which of the training photos and the hard ones they are.
    """

    evaluation: Evaluation
    how: Measurement
    answers: Answers
    features: LabelledFeatures | None = None
    rows_N: BoolArray | None = None


def measure(fitted: Fitted, config: TrainConfig) -> Outcome:
    """Calibrate the classifier, and measure it in folds or on the test part."""
    splits = fitted.data.splits.measurable()
    classes = splits.classes
    taxonomy = fitted.data.table.taxonomy.only(classes)
    raw = Classifier(tuple(each.member for each in fitted.members), taxonomy)
    classifier = calibrate(raw, fitted.calibration or _validation(fitted, splits), config)
    test_logits = [each.logits(splits.test, classes) for each in fitted.members]
    folds = _in_folds(fitted, splits, raw, classifier, config) if fitted.folds is not None else None
    found = (
        folds if folds and not len(splits.test) else _on_test(fitted, splits, raw, classifier, test_logits)
    )
    photos = _known_photos(fitted, splits, config)
    chosen = _choose_detector(photos, fitted, len(classes), config.seed)
    unknown_N = _unknown(found, chosen, fitted.lead.features(splits.hard, classes))
    classifier = replace(classifier, ood=chosen.detector)
    answers = {rank: (given_N & ~unknown_N, right_N) for rank, (given_N, right_N) in found.answers.items()}
    summary = measured(found.evaluation, classifier, splits, found.how, answers, chosen.record)
    return Outcome(fitted, splits, classifier, test_logits, found.evaluation, summary)


def _on_test(
    fitted: Fitted,
    splits: DataSplits,
    raw: Classifier,
    classifier: Classifier,
    test_logits: Sequence[FloatArray],
) -> _Measured:
    """Measure the test part, once."""
    evaluation = Evaluation.of(splits.test, raw.combined(test_logits)[0], splits.classes)
    learned = len(splits.train) if fitted.learned is None else len(fitted.learned)
    hard_N = np.isin(evaluation.photo_ids, fitted.data.table.hard)
    how = Measurement.of(evaluation, learned, hard_N)
    log_p_NC = metrics.log_softmax32(evaluation.scores_NC / np.float32(classifier.temperature))
    levels, thresholds = classifier.taxonomy.levels, classifier.thresholds
    answers = calibration.answers(np.exp(log_p_NC), evaluation.labels_N, levels, thresholds)
    features = fitted.lead.features(splits.test, splits.classes)
    return _Measured(evaluation, how, answers, features)


def _in_folds(
    fitted: Fitted, splits: DataSplits, raw: Classifier, classifier: Classifier, config: TrainConfig
) -> _Measured:
    """Measure each fold with the temperature and the thresholds that were set without it.

    The scores are times the classifier's temperature, so that they are calibrated when they are divided
    by it.
    """
    photos, heat = together(splits.train, splits.hard), np.float32(classifier.temperature)
    labels_N, levels = photos.labels(splits.classes), classifier.taxonomy.levels
    scores_NC = np.zeros((len(photos), len(splits.classes)), np.float32)
    measured_N = np.zeros(len(photos), np.bool_)
    answers: dict[str, tuple[BoolArray, BoolArray]] = {}
    for fold in fitted.folds or ():
        rows_M, own = fold.numbers_M, calibrate(raw, fold.calibration, config)
        log_p_MC = metrics.log_softmax32(own.combined(fold.logits_MNC)[0])
        scores_NC[rows_M], measured_N[rows_M] = log_p_MC * heat, True
        for rank, found in calibration.answers(
            np.exp(log_p_MC), labels_N[rows_M], levels, own.thresholds
        ).items():
            both = answers.setdefault(rank, (np.zeros_like(measured_N), np.zeros_like(measured_N)))
            for whole_N, part_M in zip(both, found, strict=True):
                whole_N[rows_M] = part_M
    evaluation = Evaluation.of(photos.where(measured_N), scores_NC[measured_N], splits.classes)
    hard_N = np.isin(evaluation.photo_ids, splits.hard.ids)
    how = Measurement.of(evaluation, len(splits.train), hard_N, folds=FOLDS)
    kept = {rank: (given_N[measured_N], right_N[measured_N]) for rank, (given_N, right_N) in answers.items()}
    return _Measured(evaluation, how, kept, rows_N=measured_N)


def _known_photos(fitted: Fitted, splits: DataSplits, config: TrainConfig) -> KnownPhotos:
    """The photos that others are compared with, held out in folds or in the validation part."""
    learned = fitted.lead.features(splits.train, splits.classes)
    if fitted.folds is not None:
        fold_N = cross_validation.folds(splits.train, FOLDS, config.seed)
        return KnownPhotos(learned, None, fold_N, fitted.unseen_classes)
    held_out = fitted.lead.features(splits.val, splits.classes)
    nowhere = np.zeros(len(learned), np.int64)
    return KnownPhotos(learned, held_out.where(held_out.labels >= 0), nowhere, fitted.unseen_classes)


def _choose_detector(photos: KnownPhotos, fitted: Fitted, classes: int, seed: int) -> Chosen:
    lead, files = fitted.lead, out_of_distribution.far_files()
    with distributed.first_process_first():
        lead.extractor.compute(files, {lead.backbone.architecture.name: lead.backbone})
    far_FD = lead.extractor.cache(lead.backbone).get([file.sha256 for file in files])[slice(None)]
    return out_of_distribution.choose(photos, far_FD, classes, seed)


def _unknown(found: _Measured, chosen: Chosen, hard: LabelledFeatures) -> BoolArray:
    """Which of the photos that are measured are flagged; in folds, hard photos come last."""
    detector = chosen.detector
    if detector is None:
        return np.zeros(len(found.evaluation), np.bool_)
    if found.features is None:
        hard_N = nearest_cosine(hard.features[slice(None)], detector.vectors_KD)
        scores_N = np.concatenate([chosen.known_N, hard_N])[found.rows_N]
    else:
        scores_N = nearest_cosine(found.features.features[slice(None)], detector.vectors_KD)
    return np.asarray(scores_N < detector.threshold)


def _validation(fitted: Fitted, splits: DataSplits) -> CalibrationSet:
    """The members' logits of the validation part."""
    logits_MNC = [each.logits(splits.val, splits.classes) for each in fitted.members]
    return CalibrationSet(logits_MNC, splits.val.labels(splits.classes), splits.val.groups)


def calibrate(raw: Classifier, photos: CalibrationSet, config: TrainConfig) -> Classifier:
    """Return the classifier with a temperature and thresholds.

    Args:
        raw: of temperature 1.
        photos: that no member was trained on.
        config: the share of right answers that is asked for.
    """
    labels_N = photos.labels_N
    logits_NC, _ = raw.combined(photos.logits_MNC)
    warm = replace(raw, temperature=calibration.fit_temperature(logits_NC, labels_N, photos.groups))
    scaled_NC, _ = warm.combined(photos.logits_MNC)
    p_NC = metrics.log_softmax32(scaled_NC)
    np.exp(p_NC, out=p_NC)
    levels = warm.taxonomy.levels
    thresholds = calibration.fit_thresholds(p_NC, labels_N, levels, config.precision, photos.groups)
    return replace(warm, thresholds=thresholds)
