"""The one training pipeline: prepare, fit, calibrate, measure, and say what came of it.

What differs between training one network, an ensemble, the best within a budget and extending a
classifier is a `Strategy`: how the photos are prepared, and what is fitted. All else stands here once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from fieldmark.data.dataset import Dataset
from fieldmark.data.photos import PhotoTable
from fieldmark.data.split import Split
from fieldmark.data.subset import DataSplits, LabelledPhotos
from fieldmark.evaluation import calibration, metrics
from fieldmark.evaluation.results import Evaluation
from fieldmark.features.extraction import Extraction
from fieldmark.features.extractor import FeatureExtractor
from fieldmark.features.labelled import LabelledFeatures
from fieldmark.heads.base import LinearHead
from fieldmark.heads.softmax import Fit
from fieldmark.inference.classifier import Classifier, Member
from fieldmark.models import Backbone
from fieldmark.training.config import TrainConfig
from fieldmark.training.out_of_distribution import KNOWN_RECALL, unknown
from fieldmark.training.provenance import Provenance, Seconds
from fieldmark.training.summary import Answers, Changes, ClassifierSummary, Measurement, measured, photo_line
from fieldmark.utils.typing import BoolArray, FloatArray, IntArray

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """Photos that are read and divided, and what computes their features.

    Attributes:
        dataset: the photos and their split.
        extractor: computes features and reads them back.
        extraction: what was computed so far.
    """

    dataset: Dataset
    extractor: FeatureExtractor
    extraction: Extraction = field(default_factory=Extraction)

    @property
    def table(self) -> PhotoTable:
        """Every photo that was found."""
        return self.dataset.table

    @property
    def split(self) -> Split:
        """Which photo is in which part."""
        return self.dataset.split

    @property
    def splits(self) -> DataSplits:
        """The three parts, and the classes."""
        return self.dataset.splits

    def compute(self, backbones: dict[str, Backbone]) -> Prepared:
        """Compute the features of all photos; those that cannot be decoded are rejected."""
        found = self.extractor.compute(self.splits.files, backbones)
        table = self.table.reject_files(found.rejected)
        return replace(
            self, dataset=replace(self.dataset, table=table), extraction=self.extraction.merged(found)
        )


@dataclass(frozen=True)
class FittedMember:
    """A member of the classifier to be, and where its features are.

    Attributes:
        member: network, view, head, temperature and weight.
        backbone: the network.
        extractor: computes the features of its view.
    """

    member: Member
    backbone: Backbone
    extractor: FeatureExtractor

    def features(self, photos: LabelledPhotos, classes: Sequence[str]) -> LabelledFeatures:
        """Return the features of some photos, with their labels."""
        return self.extractor.features(self.backbone, photos, classes)

    def logits(self, photos: LabelledPhotos, classes: Sequence[str]) -> FloatArray:
        """Return the logits of some photos, divided by the member's temperature; shape (N, C)."""
        logits_NC = self.member.head.logits_of(self.features(photos, classes).features)
        return self.scaled(logits_NC)

    def scaled(self, logits_NC: FloatArray) -> FloatArray:
        """Divide logits by the member's temperature."""
        return logits_NC / np.float32(self.member.temperature)


@dataclass(frozen=True)
class CalibrationSet:
    """Photos that no member was trained on.

    Attributes:
        logits_MNC: each member's logits, divided by its temperature.
        labels_N: the number of each photo's class; -1 for none of the classes.
        groups: the group of each photo; None: each stands alone.
    """

    logits_MNC: Sequence[FloatArray]
    labels_N: IntArray
    groups: Sequence[str | None] | None = None


@dataclass(frozen=True)
class MeasuredFold:
    """A fold of the training photos by a head that was learned without it.

    Attributes:
        numbers_M: which of the training photos.
        logits_MC: the head's logits.
        calibration: photos of other folds, by which the logits are calibrated.
    """

    numbers_M: IntArray
    logits_MC: FloatArray
    calibration: CalibrationSet


@dataclass(frozen=True)
class Fitted:
    """What a strategy fitted.

    Attributes:
        members: the classifier's members, the one with the largest weight first.
        data: the photos, without those that turned out to be unreadable.
        fits: the fits of the last layer, for the record; the best one is the first member's.
        seconds: that fitting took.
        calibration: photos that no member was trained on; None: the validation part.
        folds: the training photos, measured in folds; empty: the test part is measured.
        unseen_classes: whether other heads on the same features can tell how well photos of other
            classes are recognised; not where the network was trained on all classes.
        refit: learns the only member's head anew on more photos, once it is measured.
        details: further facts for the provenance.
        compare: gives further facts, once the classifier is measured on the test part.
    """

    members: tuple[FittedMember, ...]
    data: Prepared
    fits: tuple[Fit, ...]
    seconds: float
    calibration: CalibrationSet | None = None
    folds: tuple[MeasuredFold, ...] = ()
    unseen_classes: bool = True
    refit: Callable[[], LinearHead] | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    compare: Callable[[Outcome], Mapping[str, Any]] = lambda _outcome: {}

    @property
    def lead(self) -> FittedMember:
        """The member with the largest weight."""
        return self.members[0]


class Strategy(Protocol):
    """How photos are prepared, and what is fitted on them.

    Attributes:
        config: every choice.
    """

    @property
    def config(self) -> TrainConfig:
        """Every choice, with the networks named."""

    def prepare(self) -> Prepared:
        """Read and divide the photos, and compute the features that fitting begins with."""

    def fit(self, data: Prepared) -> Fitted:
        """Fit the members."""


@dataclass(frozen=True)
class Outcome:
    """A calibrated classifier with its measures.

    Attributes:
        fitted: what it was made from.
        splits: the photos that it was calibrated and measured on.
        classifier: calibrated.
        test_logits: each member's logits of the test part.
        evaluation: its scores on the test part, before its temperature.
        summary: the measures read off them.
    """

    fitted: Fitted
    splits: DataSplits
    classifier: Classifier
    test_logits: Sequence[FloatArray]
    evaluation: Evaluation
    summary: ClassifierSummary

    @cached_property
    def train_features(self) -> LabelledFeatures:
        """The first member's features of the training photos."""
        return self.fitted.lead.features(self.splits.train, self.splits.classes)


def run(strategy: Strategy, *, command: str = "") -> Outcome:
    """Train a classifier by a strategy; log what is done.

    Args:
        strategy: how photos are prepared, and what is fitted.
        command: what was typed, for the record.

    Raises:
        InputError: anything about the photos, the networks or the choices that stands in the way.
    """
    start = time.perf_counter()
    data = strategy.prepare()
    logger.info(photo_line(data.table, data.splits))
    fitted = strategy.fit(data)
    outcome = _measure(fitted, strategy.config)
    details = {**fitted.details, **fitted.compare(outcome)}
    if "grown" in details:
        changes = Changes.from_dict(details["grown"])
        outcome = replace(outcome, summary=replace(outcome.summary, grown=changes))
    seconds = Seconds(
        sum(fitted.data.extraction.seconds.values()), fitted.seconds, time.perf_counter() - start
    )
    made = Provenance.of(outcome, strategy.config, seconds, command, details)
    members = outcome.classifier.members
    if fitted.refit:
        members = (replace(members[0], head=fitted.refit()),)
    classifier = replace(outcome.classifier, members=members, provenance=made.to_dict())
    return replace(outcome, classifier=classifier)


def _measure(fitted: Fitted, config: TrainConfig) -> Outcome:
    """Calibrate the classifier, and measure it on the test part."""
    splits = fitted.data.splits.measurable()
    classes = splits.classes
    taxonomy = fitted.data.table.taxonomy.only(classes)
    raw = Classifier(tuple(each.member for each in fitted.members), taxonomy)
    classifier = calibrate(raw, fitted.calibration or _validation(fitted, splits), config)
    test_logits = [each.logits(splits.test, classes) for each in fitted.members]
    if fitted.folds and not len(splits.test):
        evaluation, answers = _in_folds(fitted.folds, splits, raw, classifier, config)
        how = Measurement.of(evaluation, len(splits.train), folds=len(fitted.folds))
        summary = measured(evaluation, classifier, splits, how, answers)
    else:
        evaluation = Evaluation.of(splits.test, raw.combined(test_logits)[0], classes)
        learned = len(splits.files) if fitted.refit else len(splits.train)
        summary = measured(evaluation, classifier, splits, Measurement.of(evaluation, learned))
    if fitted.unseen_classes:
        lead = fitted.lead
        found = unknown(lead.extractor, lead.backbone, splits, config)
        summary = replace(summary, unknown=found)
    return Outcome(fitted, splits, classifier, test_logits, evaluation, summary)


def _in_folds(
    folds: Sequence[MeasuredFold],
    splits: DataSplits,
    raw: Classifier,
    classifier: Classifier,
    config: TrainConfig,
) -> tuple[Evaluation, Answers]:
    """Measure each fold with the temperature and the thresholds that were set without it.

    Returns:
        The scores of the folds' photos, times the classifier's temperature, so that they are calibrated
        when they are divided by it; and what the thresholds came to.
    """
    photos, levels = splits.train, classifier.taxonomy.levels
    labels_N = photos.labels(splits.classes)
    scores_NC = np.zeros((len(photos), len(splits.classes)), np.float32)
    measured_N = np.zeros(len(photos), np.bool_)
    answers: dict[str, tuple[BoolArray, BoolArray]] = {}
    for fold in folds:
        own = calibrate(raw, fold.calibration, config)
        log_p_MC = metrics.log_softmax32(own.combined([fold.logits_MC])[0])
        scores_NC[fold.numbers_M] = log_p_MC * np.float32(classifier.temperature)
        measured_N[fold.numbers_M] = True
        found = calibration.answers(np.exp(log_p_MC), labels_N[fold.numbers_M], levels, own.thresholds)
        for rank, (given_M, right_M) in found.items():
            given_N, right_N = answers.setdefault(
                rank, (np.zeros_like(measured_N), np.zeros_like(measured_N))
            )
            given_N[fold.numbers_M], right_N[fold.numbers_M] = given_M, right_M
    kept = {rank: (given_N[measured_N], right_N[measured_N]) for rank, (given_N, right_N) in answers.items()}
    return Evaluation.of(photos.where(measured_N), scores_NC[measured_N], splits.classes), kept


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
    scaled_NC, energy_N = warm.combined(photos.logits_MNC)
    p_NC = metrics.log_softmax32(scaled_NC)
    np.exp(p_NC, out=p_NC)
    levels = warm.taxonomy.levels
    thresholds = calibration.fit_thresholds(p_NC, labels_N, levels, config.precision, photos.groups)
    known = energy_N[labels_N >= 0]
    threshold = metrics.score_at_recall(known, KNOWN_RECALL) if len(known) else None
    return replace(warm, thresholds=thresholds, ood_threshold=threshold)
