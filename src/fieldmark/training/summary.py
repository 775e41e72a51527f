"""What is said of a trained classifier: its measures, how it was made, and that in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from msgspec import UNSET, UnsetType

from fieldmark.data.photos import PhotoTable
from fieldmark.data.subset import DataSplits
from fieldmark.evaluation import calibration, intervals, metrics
from fieldmark.evaluation.intervals import Interval
from fieldmark.evaluation.location_prior import LocationMeasure
from fieldmark.evaluation.results import Evaluation, EvaluationSummary
from fieldmark.evaluation.taxonomic import TaxonomicError, taxonomic_error
from fieldmark.inference.classifier import Classifier
from fieldmark.utils.languages import number, say
from fieldmark.utils.records import Record
from fieldmark.utils.typing import BoolArray, IntArray


@dataclass(frozen=True)
class Answered(Record):
    """The answers that the thresholds gave at one rank, or at all.

    Attributes:
        photos: how many photos got an answer.
        coverage: their share of all photos.
        precision: the share of right answers; None without an answer.
    """

    photos: int
    coverage: float
    precision: float | None


@dataclass(frozen=True)
class ErrorChange(Record):
    """The error of the old test photos before and after a classifier was extended, paired."""

    photos: int
    error_before: float
    error: float
    difference: float
    interval: Interval
    tie: bool


@dataclass(frozen=True)
class PhotosError(Record):
    """The error over some photos, with its 95 % CI."""

    photos: int
    error: float
    interval: Interval


@dataclass(frozen=True)
class Correction(Record):
    """A photo that was known under another label: its id, and the labels before and now."""

    id: str
    before: str
    now: str


@dataclass(frozen=True)
class Changes(Record):
    """The errors of an extended classifier on old and on new test photos; None without such photos.

    Attributes:
        corrected: photos that were known and came with another label, which replaces the old one.
    """

    old_photos: ErrorChange | None
    new_photos: PhotosError | None
    new_classes_photos: PhotosError | None
    corrected: tuple[Correction, ...] = ()


@dataclass(frozen=True)
class PriorSummary(Record):
    """What a prior of places and times is worth; no other measure of a classifier counts it in.

    Attributes:
        source: what it was learned from: `own`, the photos, or a table of occurrences.
        strength: how much it counts; 0: not at all, as it is not shown to help.
        measured: the errors with and without it, at new and at known places.
    """

    source: str
    strength: float
    measured: Mapping[str, LocationMeasure]


_MOST_LEARNED = 0.75  # of a class: then what was measured is nearly what is delivered

FEW_GROUPS = 5
"""A class with fewer independent groups of photos is measured too coarsely to say much."""


@dataclass(frozen=True)
class Measurement(Record):
    """How a classifier was measured.

    Attributes:
        way: `folds`, each photo by a head that saw neither it nor its group, or `test part`.
        folds: how many; 0 with a test part.
        photos: how many photos were measured.
        groups: how many independent groups they form; a photo without a group is one of its own.
        learned: how many photos the delivered classifier learned from.
        share_learned: the mean share of a class's groups that what measured it had learned from.
        unmeasured: classes without a measured photo; in folds, those whose photos are of one group.
        few_groups: classes measured on fewer than five groups.
        hard: how many of the measured photos are hard: rejected by a check, and not learned from.
        error_without_hard: the top-1 error over the others; None without hard photos, or without others.
        error_without_hard_interval: its 95 % CI.
        said: the same in a sentence or two.
    """

    way: Literal["folds", "test part"]
    folds: int
    photos: int
    groups: int
    learned: int
    share_learned: float
    unmeasured: tuple[str, ...]
    few_groups: tuple[str, ...]
    hard: int
    error_without_hard: float | None
    error_without_hard_interval: Interval | None
    said: str

    @classmethod
    def of(
        cls, evaluation: Evaluation, learned: int, hard_N: BoolArray | None = None, *, folds: int = 0
    ) -> Measurement:
        """Describe how the photos of an evaluation were measured, and which of them are hard."""
        unit_N = intervals.units(evaluation.groups, len(evaluation))
        pairs_P2 = np.unique(np.stack([evaluation.labels_N, unit_N], 1)[evaluation.kept_N], axis=0)
        groups_C = np.bincount(pairs_P2[:, 0], minlength=len(evaluation.classes))
        named = dict(zip(evaluation.classes, groups_C.tolist(), strict=True))
        unmeasured = tuple(each for each, groups in named.items() if not groups)
        few = tuple(each for each, groups in named.items() if 0 < groups < FEW_GROUPS)
        units = len(np.unique(unit_N))
        way: Literal["folds", "test part"] = "folds" if folds else "test part"
        share = _share_learned(groups_C, folds) if folds else 1.0
        found = cls(
            way, folds, len(evaluation), units, learned, share, unmeasured, few, 0, None, None, ""
        )._without(evaluation, hard_N)
        return replace(found, said=found.in_words)

    def _without(self, evaluation: Evaluation, hard_N: BoolArray | None) -> Measurement:
        """Add the error without hard photos."""
        if hard_N is None or not hard_N.any():
            return self
        easy = evaluation.where(~hard_N)
        wrong_N, found = easy.wrong_N(), replace(self, hard=int(hard_N.sum()))
        if not len(easy):
            return found
        interval = intervals.error_interval(wrong_N, easy.groups, share_learned=self.least_ratio)
        return replace(found, error_without_hard=float(wrong_N.mean()), error_without_hard_interval=interval)

    @property
    def least_ratio(self) -> float:
        """The least ratio of the delivered classifier's error to the measured one.

        The error falls at most in proportion to the photos of a class. Of a class with few photos a fold
        takes more than of the others: it is rarer among them than it will be, and was measured as such.
        """
        if not self.folds:
            return self.share_learned
        return self.share_learned * min(1.0, self.share_learned / (1 - 1 / self.folds))

    @property
    def hard_sentence(self) -> str:
        """Say how many photos are hard, and how large the error is without them; empty without any."""
        if not self.hard:
            return ""
        if self.error_without_hard is None or self.error_without_hard_interval is None:
            return " " + say(
                "{count} of these photos are hard: rejected by a check, and not learned from.",
                count=self.hard,
            )
        low, high = self.error_without_hard_interval
        return " " + say(
            "{count} of these photos are hard: rejected by a check, and not learned from; without them the "
            "top-1 error is {error} % (95 % CI {low}-{high} %).",
            count=self.hard,
            error=number(100 * self.error_without_hard, 1),
            low=number(100 * low, 1),
            high=number(100 * high, 1),
        )

    @property
    def in_words(self) -> str:
        """The measurement in sentences."""
        return f"{self._way_in_words()}{self._classes_in_words()}{self.hard_sentence}"

    def _way_in_words(self) -> str:
        if self.way == "test part":
            return say(
                "Measured once, on {photos} test photos; the classifier learned from {learned}.",
                photos=self.photos,
                learned=self.learned,
            )
        if not self.photos:
            return say(
                "Not measured: the photos of each class are all of one group, and what is learned from "
                "cannot be measured on. Add photos from other places or times."
            )
        little = self.share_learned > _MOST_LEARNED
        return say(
            "Each of {photos} photos was measured by a classifier that saw neither it nor its group ({folds} "
            "folds, {groups} independent groups) and learned from {share} % of each class on average. The "
            "delivered classifier learned from all {learned} photos, so it is {better}: the low ends of the "
            "intervals allow for that.",
            photos=self.photos,
            folds=self.folds,
            groups=self.groups,
            share=number(100 * self.share_learned),
            learned=self.learned,
            better=say("likely a little better") if little else say("better"),
        )

    def _classes_in_words(self) -> str:
        said = ""
        if self.unmeasured and self.photos and self.way == "folds":
            said += " " + say(
                "Classes that could not be measured (their photos are all of one group): {count}.",
                count=len(self.unmeasured),
            )
        elif self.unmeasured and self.photos:
            said += " " + say("Classes that could not be measured: {count}.", count=len(self.unmeasured))
        if self.few_groups:
            said += " " + say(
                "Classes with fewer than {least} groups, of which little can be said: {count}.",
                least=FEW_GROUPS,
                count=len(self.few_groups),
            )
        return said


def _share_learned(groups_C: IntArray, folds: int) -> float:
    """The mean share of a class's groups outside the fold of one of them, over classes with two or more."""
    some_C = groups_C[groups_C > 1]
    return float(np.mean(1 - np.ceil(some_C / folds) / some_C)) if len(some_C) else 0.0


@dataclass(frozen=True)
class ClassifierSummary(EvaluationSummary):
    """The measures of a calibrated classifier on the test part: the content of `evaluation.json`.

    Attributes:
        calibration_error_before: the calibration error before calibration.
        answered: what the thresholds came to, for each rank and for `all`.
        coverage_curve: points with `score`, `coverage` and `precision`, the coverage rising.
        measurement: how all this was measured.
        taxonomic: how far off mistakes are; None without taxonomic ranks.
        unknown: how well out-of-distribution photos are recognised; None where it was not measured.
        grown: of a classifier that was extended, its errors before and after.
        prior: what a prior of places and times is worth, where one was asked for.
    """

    calibration_error_before: float | None
    answered: Mapping[str, Answered]
    coverage_curve: tuple[Mapping[str, float], ...]
    measurement: Measurement
    taxonomic: TaxonomicError | None
    unknown: Mapping[str, Any] | None = None
    grown: Changes | UnsetType = UNSET
    prior: PriorSummary | UnsetType = UNSET


Answers = Mapping[str, tuple[BoolArray, BoolArray]]
"""For each rank, which photos are answered at it, and which of all are right there; see `answers`."""


def measured(
    evaluation: Evaluation,
    classifier: Classifier,
    parts: DataSplits,
    measurement: Measurement,
    answers: Answers,
    unknown: Mapping[str, Any] | None,
) -> ClassifierSummary:
    """Compute the measures of the calibrated scores and of the thresholds.

    Args:
        evaluation: the scores, before the classifier's temperature.
        classifier: its temperature and thresholds.
        parts: the photos that it learned from.
        measurement: how the photos were measured.
        answers: what thresholds that were set without each photo came to.
        unknown: how well out-of-distribution photos are recognised.
    """
    scaled_NC = evaluation.scores_NC / np.float32(classifier.temperature)
    even = replace(evaluation, scores_NC=metrics.log_softmax32(scaled_NC))
    summary = even.summary(train_counts=parts.train_counts(), share_learned=measurement.least_ratio)
    confidence = metrics.confidence(scaled_NC).astype(np.float32)
    return ClassifierSummary(
        **vars(summary),
        calibration_error_before=evaluation.summary().calibration_error,
        answered=answered(answers, len(even)),
        coverage_curve=tuple(calibration.coverage_curve(confidence, ~even.wrong_N())),
        measurement=measurement,
        taxonomic=taxonomic_error(np.exp(even.scores_NC), even.labels_N, classifier.taxonomy.levels),
        unknown=unknown,
    )


def answered(answers: Answers, photos: int) -> dict[str, Answered]:
    """Measure what the thresholds came to on photos that did not set them, for each rank and for `all`.

    A photo of a class that was not learned counts as answered wrongly, where it is answered; one that is
    flagged as unknown is not answered.

    Args:
        answers: for each rank.
        photos: how many there are.
    """

    def share(given_N: BoolArray, right_N: BoolArray) -> Answered:
        given = int(given_N.sum())
        precision = float(right_N[given_N].mean()) if given else None
        return Answered(given, given / photos if photos else 0.0, precision)

    given_N = np.logical_or.reduce([given for given, _ in answers.values()])
    right_N = np.logical_or.reduce([given & right for given, right in answers.values()])
    return {"all": share(given_N, right_N), **{rank: share(*each) for rank, each in answers.items()}}


def photo_line(table: PhotoTable, parts: DataSplits) -> str:
    """Say how many photos were found, kept and rejected, and how they are divided."""
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in table.reasons().items())
    rejected = f", {len(table) - table.kept.height:,} rejected ({reasons})" if reasons else ""
    learned, test = f"{len(parts.train):,} training", f"{len(parts.test):,} test photos"
    divided = f"{learned}, {len(parts.val):,} validation, {test}"
    if not len(parts.val):
        divided = f"{learned} photos, {test if len(parts.test) else 'measured in folds'}"
    return (
        f"{len(table):,} photos found, {table.kept.height:,} kept{rejected}; "
        f"{len(parts.classes):,} {'class' if len(parts.classes) == 1 else 'classes'}; {divided}"
    )


def sentence(summary: EvaluationSummary) -> str:
    """Say how large the error is on the test photos."""
    error, interval = summary.top1_error_all_classes, summary.top1_error_all_classes_interval
    measurement = summary.measurement if isinstance(summary, ClassifierSummary) else None
    in_folds = measurement is not None and measurement.way == "folds"
    if error is None or interval is None:
        if measurement is not None and in_folds:
            return f"Top-1 error {measurement.said[0].lower()}{measurement.said[1:]}"
        return "Top-1 error not measured: there are no labelled test photos."
    low, high = interval
    which = "photos, each measured without it" if in_folds else "test photos"
    return (
        f"Top-1 error {100 * error:.1f} % on {summary.photos:,} {which} "
        f"(95 % CI {100 * low:.1f}-{100 * high:.1f} %)." + (measurement.hard_sentence if measurement else "")
    )
