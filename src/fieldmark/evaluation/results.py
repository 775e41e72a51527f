"""Evaluation: the scores of a classifier on labelled photos, and the measures computed from them.

Every photo counts: no batch is dropped and no padding is counted. Because the scores themselves are
saved, a metric that is added later needs no second run.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import numpy.typing as npt
from msgspec import UNSET, UnsetType

from fieldmark.evaluation import intervals, metrics
from fieldmark.evaluation.intervals import Interval
from fieldmark.utils import io
from fieldmark.utils.errors import InputError
from fieldmark.utils.records import Record
from fieldmark.utils.typing import BoolArray, FloatArray, IntArray

if TYPE_CHECKING:
    from fieldmark.data.subset import LabelledPhotos

_FORMAT = "fieldmark-evaluation-1"

Over = Literal["kept", "all"]
BandName = Literal["tail", "medium", "head"]


@dataclass(frozen=True)
class ClassError(Record):
    """The error of one class; `train_photos` only where the training photos were counted."""

    taxon_id: str
    photos: int
    error: float | None
    train_photos: int | UnsetType = UNSET


@dataclass(frozen=True)
class SupercategoryError(Record):
    """The top-1 error of one supercategory, with its 95 % CI."""

    supercategory: str
    photos: int
    error: float
    interval: Interval | None


@dataclass(frozen=True)
class Band(Record):
    """The error over rare, medium or frequent classes, each class counting the same.

    Attributes:
        classes: how many classes are in the band.
        measured: how many of them have a photo here.
        photos: how many photos.
        error: None where there is no photo.
        interval: the 95 % CI.
    """

    classes: int = 0
    measured: int = 0
    photos: int = 0
    error: float | None = None
    interval: Interval | None = None


@dataclass(frozen=True)
class EvaluationSummary(Record):
    """Every measure of an evaluation; None stands for a measure of no photos, or one that is not finite.

    Attributes:
        photos: how many photos.
        photos_kept: how many of them are of one of the classes (not pruned).
        classes: how many classes.
        top1_error, top5_error, macro_error: over the photos of the classes; shares from 0 to 1.
        top1_error_all_classes: over all photos, where a photo of a pruned class counts as wrong.
        group_error, group_error_interval: the top-1 error, each group counting the same.
        top1_error_interval, top1_error_all_classes_interval, macro_error_interval: 95 % CI.
        k: 5, or the number of classes where that is smaller: the `k` of `top5_error`.
        log_loss: in nats.
        brier_score, calibration_error: of the probabilities.
        per_class: in the order of the classes.
        per_supercategory: sorted by name.
    """

    photos: int
    photos_kept: int
    classes: int
    top1_error: float | None
    top1_error_interval: Interval | None
    top1_error_all_classes: float | None
    top1_error_all_classes_interval: Interval | None
    k: int
    top5_error: float | None
    macro_error: float | None
    macro_error_interval: Interval | None
    group_error: float | None
    group_error_interval: Interval | None
    log_loss: float | None
    brier_score: float | None
    calibration_error: float | None
    per_class: tuple[ClassError, ...]
    per_supercategory: tuple[SupercategoryError, ...]


@dataclass(frozen=True)
class Evaluation:
    """A classifier's scores on labelled photos.

    Attributes:
        scores_NC: log-probabilities or logits, float32, a row a photo and a column a class.
        labels_N: the column of the right class, int64; -1 where it has none (a pruned class).
        photo_ids: the id of each photo, unique.
        classes: the taxon id of each column.
        groups: the group of each photo, None where it stands alone.
        supercategories: the supercategory of each photo, "" where it has none.
    """

    scores_NC: FloatArray
    labels_N: IntArray
    photo_ids: tuple[str, ...]
    classes: tuple[str, ...]
    groups: tuple[str | None, ...]
    supercategories: tuple[str, ...]

    def __post_init__(self) -> None:
        photos, classes = len(self.photo_ids), len(self.classes)
        if self.scores_NC.shape != (photos, classes) or classes == 0:
            raise ValueError(
                f"scores of shape {self.scores_NC.shape} do not fit {photos} photos and {classes} classes"
            )
        if not len(self.labels_N) == len(self.groups) == len(self.supercategories) == photos:
            raise ValueError(f"labels, groups and supercategories must have {photos} entries each")
        if photos and not (self.labels_N.min() >= -1 and self.labels_N.max() < classes):
            raise ValueError(f"labels must lie between -1 and {classes - 1}")
        if len(set(self.photo_ids)) != photos or len(set(self.classes)) != classes:
            raise ValueError("photo ids and classes must be unique")

    @classmethod
    def of(cls, photos: LabelledPhotos, scores_NC: FloatArray, classes: Sequence[str]) -> Evaluation:
        """Pair labelled photos with a classifier's scores for `classes`."""
        return cls(
            scores_NC=scores_NC,
            labels_N=photos.labels(classes),
            photo_ids=photos.ids,
            classes=tuple(classes),
            groups=photos.groups,
            supercategories=photos.supercategories,
        )

    def __len__(self) -> int:
        return len(self.photo_ids)

    def where(self, keep_N: BoolArray) -> Evaluation:
        """Return the photos for which `keep_N`, shape (N,), is true."""

        def those(values: tuple[Any, ...]) -> tuple[Any, ...]:
            return tuple(value for value, keep in zip(values, keep_N, strict=True) if keep)

        return Evaluation(
            self.scores_NC[keep_N],
            self.labels_N[keep_N],
            those(self.photo_ids),
            self.classes,
            those(self.groups),
            those(self.supercategories),
        )

    @property
    def kept_N(self) -> BoolArray:
        """Return whether the label is one of the classes: bool, shape (N,)."""
        return np.asarray(self.labels_N >= 0)

    @property
    def _kept_scores(self) -> metrics.Scores:
        """The scores of the photos whose class is known; no copy where that is all of them."""
        kept = self.kept_N
        return self.scores_NC if kept.all() else self.scores_NC[kept]

    @property
    def predicted_N(self) -> IntArray:
        """Return the column of the highest score: int64, shape (N,)."""
        return np.asarray(self.scores_NC.argmax(axis=1), dtype=np.int64)

    def wrong_N(self, k: int = 1) -> BoolArray:
        """Return whether the label is not among the k highest scores; always true for a pruned class."""
        wrong = np.ones(len(self), dtype=np.bool_)
        kept = self.kept_N
        wrong[kept] = metrics.wrong(self._kept_scores, self.labels_N[kept], k)
        return wrong

    def summary(
        self, *, train_counts: Mapping[str, int] | None = None, share_learned: float = 1.0
    ) -> EvaluationSummary:
        """Compute every measure.

        Args:
            train_counts: the training photos of each class, to be shown beside its error.
            share_learned: see `intervals.error_interval`.
        """
        kept = self.kept_N
        scores, labels = self._kept_scores, self.labels_N[kept]
        wrong, every = self.wrong_N(), np.ones(len(self), np.bool_)
        k = min(5, len(self.classes))
        error_C, photos_C = metrics.per_class_error(wrong[kept], labels, len(self.classes))
        finite = bool(len(labels)) and bool((scores < np.inf).all())

        def of_probabilities(metric: Callable[[FloatArray, IntArray], float]) -> float | None:
            return _number(metric(scores, labels) if finite else None)

        interval = partial(self._interval, wrong, share_learned=share_learned)
        group_error, group_interval = self._per_group(wrong, kept, share_learned)

        return EvaluationSummary(
            photos=len(self),
            photos_kept=int(kept.sum()),
            classes=len(self.classes),
            top1_error=_number(wrong[kept].mean() if len(labels) else None),
            top1_error_interval=interval(kept),
            top1_error_all_classes=_number(wrong.mean() if len(self) else None),
            top1_error_all_classes_interval=interval(every),
            k=k,
            top5_error=_number(metrics.top_k_error(scores, labels, k)),
            macro_error=_number(metrics.macro_average(error_C)),
            macro_error_interval=interval(kept, macro=True),
            group_error=group_error,
            group_error_interval=group_interval,
            log_loss=of_probabilities(metrics.negative_log_likelihood),
            brier_score=of_probabilities(metrics.brier_score),
            calibration_error=of_probabilities(metrics.expected_calibration_error),
            per_class=tuple(
                ClassError(
                    taxon_id,
                    int(photos),
                    _number(error),
                    train_counts.get(taxon_id, 0) if train_counts else UNSET,
                )
                for taxon_id, photos, error in zip(self.classes, photos_C, error_C, strict=True)
            ),
            per_supercategory=self._per_supercategory(wrong, interval),
        )

    def banded(
        self, train_counts: Mapping[str, int], bounds: tuple[int, int] = (30, 100)
    ) -> dict[BandName, Band]:
        """Compute the error over rare (`tail`), `medium` and frequent (`head`) classes.

        Args:
            train_counts: the training photos of each class.
            bounds: see `metrics.bands`.
        """
        photos_C = np.array([train_counts.get(each, 0) for each in self.classes], np.int64)
        wrong, kept = self.wrong_N(), self.kept_N
        found = {}
        for name, band_C in metrics.bands(photos_C, bounds).items():
            rows = kept & band_C[self.labels_N]
            error_C, _ = metrics.per_class_error(wrong[rows], self.labels_N[rows], len(self.classes))
            found[cast(BandName, name)] = Band(
                classes=int(band_C.sum()),
                measured=int((~np.isnan(error_C)).sum()),
                photos=int(rows.sum()),
                error=_number(metrics.macro_average(error_C)),
                interval=self._interval(wrong, rows, macro=True),
            )
        return found

    def _interval(
        self, wrong_N: BoolArray, rows_N: BoolArray, *, macro: bool = False, share_learned: float = 1.0
    ) -> Interval | None:
        if not rows_N.any():
            return None
        groups = [group for group, row in zip(self.groups, rows_N, strict=True) if row]
        classes = self.labels_N[rows_N] if macro else None
        return intervals.error_interval(
            wrong_N[rows_N], groups, classes_N=classes, share_learned=share_learned
        )

    def _per_group(
        self, wrong_N: BoolArray, rows_N: BoolArray, share_learned: float
    ) -> tuple[float | None, Interval | None]:
        """The error with each group counting the same, and its interval."""
        if not rows_N.any():
            return None, None
        groups = [group for group, row in zip(self.groups, rows_N, strict=True) if row]
        unit_M = intervals.units(groups, len(groups))
        error_U, _ = metrics.per_class_error(wrong_N[rows_N], unit_M, int(unit_M.max()) + 1)
        return float(error_U.mean()), intervals.error_interval(error_U, share_learned=share_learned)

    def _per_supercategory(
        self, wrong_N: BoolArray, interval: Callable[[BoolArray], Interval | None]
    ) -> tuple[SupercategoryError, ...]:
        """Over the photos of kept classes that have a supercategory, sorted by name."""
        names = np.asarray(self.supercategories, dtype=object)
        rows = self.kept_N & (names != "")
        errors = metrics.per_group_error(wrong_N[rows], list(names[rows]))
        return tuple(
            SupercategoryError(name, photos, error, interval(rows & (names == name)))
            for name, (error, photos) in errors.items()
        )

    def save(self, path: Path) -> None:
        """Write the evaluation as one safetensors file, whole or not at all."""
        from safetensors.numpy import save

        about = {
            "photo_ids": self.photo_ids,
            "classes": self.classes,
            "groups": self.groups,
            "supercategories": self.supercategories,
        }
        tensors: dict[str, npt.NDArray[Any]] = {
            "scores": np.ascontiguousarray(self.scores_NC, dtype=np.float32),
            "labels": np.ascontiguousarray(self.labels_N, dtype=np.int64),
        }
        metadata = {"format": _FORMAT, "about": json.dumps(about, ensure_ascii=False)}
        with io.replacing(path) as temporary:
            temporary.write_bytes(save(tensors, metadata))
            io.sort_metadata(temporary)

    @classmethod
    def load(cls, path: Path) -> Evaluation:
        """Read what `save` wrote; nothing in the file is ever run.

        Raises:
            InputError: the file is not there, is damaged, or is no evaluation.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="np") as handle:
                metadata = handle.metadata() or {}
                if metadata.get("format") != _FORMAT:
                    raise ValueError(f"its format is {metadata.get('format')!r}")
                about = {key: tuple(value) for key, value in json.loads(metadata["about"]).items()}
                scores, labels = handle.get_tensor("scores"), handle.get_tensor("labels")
            if scores.dtype != np.float32 or labels.dtype != np.int64:
                raise ValueError(f"its numbers are {scores.dtype} and {labels.dtype}")
            return cls(scores, labels, **about)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f"{path} is not an evaluation that fieldmark wrote ({error}): delete it and run "
                "the command again."
            ) from error


def _number(value: Any) -> float | None:
    """A JSON number, or None for what JSON has no number for."""
    return float(value) if value is not None and math.isfinite(value) else None
