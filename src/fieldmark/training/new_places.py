"""The error at places that the classifier never saw, beside that at places it knows.

What is learned at some cameras is often worth less at others: a photo shows the place as well as the animal
(Beery and others, "Recognition in terra incognita", 2018; Koh and others, "WILDS", 2021). Only photos at
known locations are compared, of classes at two locations or more, and a location is in one fold.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from fieldmark.data import images
from fieldmark.data.cross_validation import FOLDS, folds, placed
from fieldmark.data.photos import PhotoFile
from fieldmark.data.storage import places
from fieldmark.data.subset import LabelledPhotos
from fieldmark.evaluation import intervals, metrics
from fieldmark.evaluation.comparison import Difference
from fieldmark.evaluation.ensemble import log_mixture
from fieldmark.evaluation.intervals import Interval
from fieldmark.heads import logistic
from fieldmark.training.config import TrainConfig
from fieldmark.training.stages import Outcome
from fieldmark.utils.errors import ImageRejected
from fieldmark.utils.logging import progress_bar
from fieldmark.utils.threads import in_order
from fieldmark.utils.typing import BoolArray, DoubleArray, FloatArray

logger = logging.getLogger(__name__)

_MOST = 5000  # photos that are looked at for night and day


@dataclass(frozen=True)
class PlaceError:
    """The errors of some photos; an interval allows for the photos of a place being alike.

    Attributes:
        name: the location; `day` or `night`.
        photos: how many.
        known: the error where the classifier learned from other photos of the same places.
        new: the error where it did not.
        new_interval: its 95 % CI.
    """

    name: str
    photos: int
    known: float | None
    new: float
    new_interval: Interval


@dataclass(frozen=True)
class PlaceMeasure:
    """How much worse a classifier is at new places.

    Attributes:
        all: the photos of all places.
        difference: the error at new places less that at known ones; None where only new ones were measured.
        places: each location, the highest error first.
        light: photos by day and by night (without colours); empty where there are none of one kind.
    """

    all: PlaceError
    difference: Difference | None
    places: tuple[PlaceError, ...]
    light: tuple[PlaceError, ...]


def place_details(outcome: Outcome, config: TrainConfig) -> Mapping[str, Any]:
    """Return the errors by place for the provenance; empty where they are not measured.

    They are in folds, with at least five locations. Classes of the last layer are those of the classifier.
    """
    splits, table = outcome.splits, outcome.fitted.data.table
    if outcome.summary.measurement.way != "folds":
        return {}
    own, by_place = placed(splits.train, table)
    if len(set(by_place.groups)) < FOLDS:
        return {}
    known = dict(zip(outcome.evaluation.photo_ids, outcome.evaluation.wrong_N(), strict=True))
    is_new = config.split == "location"
    measured_N = np.array([each in known for each in own.ids], np.bool_)
    own, by_place = own.where(measured_N), by_place.where(measured_N)
    known_N = np.array([known[each] for each in own.ids], np.float64)
    new_N = known_N if is_new else _wrong_at_new_places(outcome, by_place, config.seed)
    keep_N = ~np.isnan(new_N)
    if not keep_N.any():
        return {}
    found = _measured(by_place.where(keep_N), None if is_new else known_N[keep_N], new_N[keep_N])
    logger.info(sentence(found))
    return {"places": msgspec.to_builtins(found)}


def sentence(found: PlaceMeasure) -> str:
    """Say how much worse the classifier is at new places."""
    low, high = found.all.new_interval
    said = f"At {len(found.places):,} new places: error {found.all.new:.1%} (95 % CI {low:.1%}-{high:.1%})"
    if found.difference is None:
        return f"{said}."
    return f"{said}; at places it knows {found.all.known:.1%}: {found.difference.percents}."


def _wrong_at_new_places(outcome: Outcome, photos: LabelledPhotos, seed: int) -> DoubleArray:
    """Return whether each photo is wrong by heads that saw none of its place; NaN where there is none."""
    classes, members = outcome.splits.classes, outcome.fitted.members
    chosen: Mapping[str, str] = outcome.fitted.details.get("chosen", {})
    fold_N, labels_N = folds(photos, FOLDS, seed), photos.labels(classes)
    log_p: list[FloatArray] = []
    measured_N = np.zeros(len(photos), np.bool_)
    with progress_bar("new places", FOLDS * len(members), unit="folds") as stage:
        for member, name in zip(members, chosen.values(), strict=False):
            features = member.features(photos, classes)
            found_NC = np.zeros((len(photos), len(classes)), np.float32)
            for fold in range(FOLDS):
                learn_N = fold_N != fold
                here_N = (fold_N == fold) & np.isin(labels_N, labels_N[learn_N])
                if here_N.any() and len(np.unique(labels_N[learn_N])) > 1:
                    head = logistic.candidates(features.where(learn_N), len(classes))[name]
                    logits = head.logits_of(features.where(here_N).features)
                    found_NC[here_N] = metrics.log_softmax32(logits / np.float32(member.member.temperature))
                    measured_N |= here_N
                stage.advance()
            log_p.append(found_NC)
    if not log_p:
        return np.full(len(photos), np.nan)
    mixed = log_mixture(log_p, [1 / len(log_p)] * len(log_p)) if len(log_p) > 1 else log_p[0]
    return np.where(measured_N, mixed.argmax(axis=1) != labels_N, np.nan)


def _measured(photos: LabelledPhotos, known_N: DoubleArray | None, new_N: DoubleArray) -> PlaceMeasure:
    def error(name: str, rows_N: BoolArray) -> PlaceError:
        groups = [group for group, row in zip(photos.groups, rows_N, strict=True) if row]
        one_place = len(set(groups)) < 2
        interval = intervals.error_interval(new_N[rows_N], None if one_place else groups)
        known = None if known_N is None else float(known_N[rows_N].mean())
        return PlaceError(name, int(rows_N.sum()), known, float(new_N[rows_N].mean()), interval)

    place_N = np.array(photos.groups, object)
    difference = None
    if known_N is not None:
        difference = Difference.of(new_N - known_N, photos.groups)
    rows = (error(str(place), place_N == place) for place in dict.fromkeys(photos.groups))
    return PlaceMeasure(
        error("all", np.ones(len(photos), np.bool_)),
        difference,
        tuple(sorted(rows, key=lambda row: (-row.new, row.name))),
        tuple(error(name, rows_N) for name, rows_N in _by_light(photos)),
    )


def _by_light(photos: LabelledPhotos) -> Iterator[tuple[str, BoolArray]]:
    """Return which photos were taken by day and by night; nothing where all are of one kind."""
    some = photos.some(_MOST)
    grey = dict(zip(some.ids, in_order(_is_grey, some.files), strict=True))
    found = [grey.get(photo_id) for photo_id in photos.ids]
    night_N = np.array([each is True for each in found], np.bool_)
    day_N = np.array([each is False for each in found], np.bool_)
    if night_N.any() and day_N.any():
        yield "day", day_N
        yield "night", night_N


def _is_grey(file: PhotoFile) -> bool | None:
    try:
        return images.is_grey(places.read(file.path))  # of a box, its photo
    except ImageRejected:
        return None
