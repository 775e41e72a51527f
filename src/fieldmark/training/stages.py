"""What passes from stage to stage of a training: prepared photos, what was fitted, and what came out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from fieldmark.data.cross_validation import together
from fieldmark.data.dataset import Dataset
from fieldmark.data.photos import PhotoTable
from fieldmark.data.split import Split
from fieldmark.data.subset import DataSplits, LabelledPhotos
from fieldmark.evaluation.results import Evaluation
from fieldmark.features.extraction import Extraction
from fieldmark.features.extractor import FeatureExtractor
from fieldmark.features.labelled import LabelledFeatures
from fieldmark.heads.base import LinearHead
from fieldmark.heads.softmax import Fit
from fieldmark.inference.classifier import Classifier, Member
from fieldmark.models import Backbone
from fieldmark.training import grouping
from fieldmark.training.summary import ClassifierSummary
from fieldmark.utils.errors import InputError
from fieldmark.utils.typing import FloatArray, IntArray


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

    def grouped(self, backbone: Backbone | None) -> Prepared:
        """Put bursts and near-duplicates into groups, by the features of a network that are there.

        Only bursts are found without a network, and by random weights, to which all photos look alike.
        """
        parts = self.splits
        photos = together(together(parts.train, parts.val), together(parts.test, parts.hard))
        features = None
        if backbone and backbone.weights_info.pretrained:
            features = self.extractor.features(backbone, photos, parts.classes).features
        table = grouping.grouped(self.table, photos, features)
        return self if table is self.table else replace(self, dataset=replace(self.dataset, table=table))

    def labelled(self, *, divided: bool) -> LabelledPhotos:
        """Return the photos that a delivered classifier may learn from: no hard ones, no official test part.

        Args:
            divided: whether the user set the test part apart.
        """
        parts = self.splits
        photos = together(parts.train, parts.val)
        photos = photos if divided or self.table.has_test else together(photos, parts.test)
        return photos.where(~np.isin(photos.ids, self.table.hard))

    def divided_anew(self, config: Any, seed: int) -> Prepared:
        """Divide the photos into parts, as the fields `val`, `test` and `split` of a configuration say."""
        how = {each: getattr(config, each) for each in ("val", "test", "split")}
        try:
            dataset = Dataset.of(self.table, name=self.dataset.name, seed=seed, **how)
        except InputError as error:
            raise InputError(
                f"{error} With --groups none, bursts and near-duplicates are no groups."
            ) from None
        return replace(self, dataset=dataset)


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
    """A fold of the training photos by heads that were learned without it.

    Attributes:
        numbers_M: which of the training photos, or after them of the hard ones.
        logits_MNC: each member's logits, divided by its temperature, without any photo of the fold.
        calibration: photos of other folds, by which the logits are calibrated.
    """

    numbers_M: IntArray
    logits_MNC: Sequence[FloatArray]
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
        folds: the training photos, measured in folds; None: the test part is measured.
        unseen_classes: whether the network has not seen the classes, so that leaving some out tells how
            well photos of other classes are recognised.
        learned: the photos that the delivered classifier learned from; None: the training photos.
        refit: fits the members' heads again on `learned`, once they are measured; None: they stay.
        details: further facts for the provenance.
        compare: gives further facts, once the classifier is measured on the test part.
    """

    members: tuple[FittedMember, ...]
    data: Prepared
    fits: tuple[Fit, ...]
    seconds: float
    calibration: CalibrationSet | None = None
    folds: tuple[MeasuredFold, ...] | None = None
    unseen_classes: bool = True
    learned: LabelledPhotos | None = None
    refit: Callable[[LabelledPhotos], Sequence[LinearHead]] | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    compare: Callable[[Outcome], Mapping[str, Any]] = lambda _outcome: {}

    @property
    def lead(self) -> FittedMember:
        """The member with the largest weight."""
        return self.members[0]


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
