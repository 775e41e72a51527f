"""Rank networks for some photos, in minutes.

Nothing is trained by gradient steps. For each network the features of the photos are computed (or read
from the cache), and with them the error of out-of-fold predictions by a ridge head and by nearest class
means.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
from msgspec import UNSET, UnsetType

from fieldmark import models
from fieldmark.data import cross_validation as cross
from fieldmark.data.dataset import read_photos
from fieldmark.data.photos import PhotoTable
from fieldmark.data.readers import BoxFile
from fieldmark.data.split import Split, split_photos
from fieldmark.data.subset import LabelledPhotos, photos_of
from fieldmark.evaluation import intervals, metrics
from fieldmark.evaluation.comparison import difference
from fieldmark.evaluation.intervals import Interval
from fieldmark.evaluation.results import Evaluation
from fieldmark.experiments.records import StudyRecord
from fieldmark.experiments.study.networks import random_network
from fieldmark.features.extraction import Extraction
from fieldmark.features.extractor import FeatureExtractor, cost_of, extractor_of
from fieldmark.heads import HEADS
from fieldmark.heads.cross_validation import out_of_fold_logits
from fieldmark.models import Backbone, runtime
from fieldmark.training import grouping
from fieldmark.utils.choices import Crop, DecodingTier, EngineName, FloatTierName, Grouping, SplitMethod
from fieldmark.utils.errors import InputError, WeightsUnavailable
from fieldmark.utils.random import order
from fieldmark.utils.records import Record

KINDS = ("ridge", "ncm")


@dataclass(frozen=True)
class RankConfig:
    """The configuration of a ranking."""

    networks: tuple[str, ...] = ()  # empty: all whose weights are available without a download
    weights_dir: Path | None = None  # a folder of weights, searched before anything is downloaded
    boxes: Path | None = None  # a file of boxes: photos are cut to them; None: whole photos
    box_threshold: float | None = None  # from which confidence on a box counts; None: as for `TrainConfig`
    limit: int | None = 5000  # use at most so many photos, drawn by their ids
    seed: int = 0  # of that drawing and of the folds
    split: SplitMethod = "stratified"  # as for `train`; `location`: errors are those at new places
    groups: Grouping = "auto"  # whether bursts and near-duplicates form groups, which folds do not divide
    engine: EngineName = "auto"
    compute: FloatTierName = "exact"  # how precisely the networks compute
    tier: DecodingTier = "exact"
    size: int | None = None  # the side of the crops in pixels; None: that of each network
    crop: Crop | None = None  # as for `TrainConfig`


@dataclass(frozen=True)
class HeadError(Record):
    """The error of out-of-fold predictions, with its 95 % CI."""

    error: float
    interval: Interval = (0.0, 1.0)


@dataclass(frozen=True)
class RankedNetwork(Record):
    """One network of a ranking."""

    backbone: str
    weights: str = ""  # the file with its digest, or `random`
    weights_complete: bool = True  # no tensor is random
    giga_macs: float = 0.0  # multiply-adds of one photo, in thousands of millions
    ridge: HeadError = HeadError(1.0)
    ncm: HeadError = HeadError(1.0)  # of nearest class means
    photo_ms: float | None = None  # milliseconds that the network takes for one photo
    seconds: float = 0.0  # that its ranking took
    tie: bool = False  # whether its difference to the first network is a tie


@dataclass(frozen=True)
class Agreement(Record):
    """Spearman's rank correlation of `ridge` and `ncm` with the errors of trained heads."""

    networks: int
    ridge: float
    ncm: float


@dataclass(frozen=True)
class NetworkRanking(Record):
    """Networks by the error of a ridge head, the best first."""

    photos: int
    classes: int
    networks: tuple[RankedNetwork, ...]
    agreement: Agreement | UnsetType = UNSET  # with the trained heads of a study, where one was given


def rank(data: Path, config: RankConfig) -> NetworkRanking:
    """Rank networks for some photos.

    Raises:
        InputError: anything about the photos or networks, in one sentence.
    """
    loaded = _load(config)
    table, split = _given(data, config)
    extractor = extractor_of(config)
    ends = {"": time.perf_counter()}

    def complete(name: str, _so_far: Extraction) -> None:
        ends[name] = time.perf_counter()

    extraction = extractor.compute(_learned(table, split).files, loaded, on_complete=complete)
    seconds = {name: end - start for (_, start), (name, end) in pairwise(ends.items())}
    table = table.reject_files(extraction.rejected)
    photos = _learned(table, split)
    first = next((each for each in loaded.values() if each.weights_info.pretrained), None)
    if config.groups == "auto":
        known = sorted(set(photos.taxon_ids))
        features = extractor.features(first, photos, known).features if first else None
        photos = _learned(grouping.grouped(table, photos, features), split)
    classes = tuple(sorted(set(photos.taxon_ids)))
    if len(classes) < 2:
        raise InputError(
            f"{data} has photos of {len(classes)} class: networks can only be ranked by how well they "
            "tell classes apart; add photos of another, or raise --limit."
        )
    found = []
    for name, backbone in loaded.items():
        row, scores = _measured(extractor, backbone, photos, classes, config.seed)
        found.append((replace(row, seconds=row.seconds + seconds[name]), scores))
    return NetworkRanking(len(photos), len(classes), _ordered(found))


def _given(data: Path, config: RankConfig) -> tuple[PhotoTable, Split]:
    """The photos to rank with, none of them a test photo of `train`, and how `train` divides all of them.

    All photos are verified, however small the limit is: one that cannot be read would shift the parts.
    """
    boxes = BoxFile.of(config.boxes, config.box_threshold)
    by_place = config.split == "location"  # the folds do not divide a location either
    table, _ = read_photos(data, seed=config.seed, boxes=boxes, by_place=by_place)
    test = 0.0 if table.has_test else 0.1
    split = split_photos(table, val=0.1, test=test, seed=config.seed, way=config.split)
    pool = [*split.train, *split.val]
    drawn = [pool[at] for at in order(pool, "limit", config.seed)[: config.limit]]
    return table.with_frame(table.frame.filter(pl.col("id").is_in(drawn))), split


def _learned(table: PhotoTable, split: Split) -> LabelledPhotos:
    return cross.together(photos_of(table, split, "train"), photos_of(table, split, "val"))


def _load(config: RankConfig) -> dict[str, Backbone]:
    found, tier = {}, runtime.float_tier(config.compute)
    given = [models.named(name, config.weights_dir) for name in config.networks]
    for name in dict.fromkeys(given or models.available(config.weights_dir)):
        try:
            found[name] = models.load(
                name, weights_dir=config.weights_dir, seed=config.seed, size=config.size
            )
        except WeightsUnavailable as error:
            found[name] = random_network(name, config.seed, error, config.size)
    found = {name: each.computed(tier) for name, each in found.items()}
    if not found:
        raise InputError("No network has weights here: name --weights-dir, or --network.")
    return found


def _measured(
    extractor: FeatureExtractor, backbone: Backbone, photos: LabelledPhotos, classes: Sequence[str], seed: int
) -> tuple[RankedNetwork, Evaluation]:
    """A network with its errors, and the scores of its ridge head."""
    start = time.perf_counter()
    labelled = extractor.features(backbone, photos, classes)
    evaluations, errors = {}, {}
    for kind in KINDS:
        scores = out_of_fold_logits(HEADS[kind], labelled, photos, len(classes), seed)
        evaluations[kind] = Evaluation.of(photos, scores, classes)
        wrong = evaluations[kind].wrong_N()
        interval = intervals.error_interval(wrong, photos.groups)
        errors[kind] = HeadError(float(wrong.mean()), interval)
    cost = cost_of(extractor, backbone, 1)
    ranked = RankedNetwork(
        backbone=backbone.architecture.name,
        weights=backbone.weights_info.line,
        weights_complete=backbone.weights_info.complete,
        giga_macs=backbone.architecture.giga_macs,
        photo_ms=None if cost is None else 1000 * cost,
        seconds=time.perf_counter() - start,
        ridge=errors["ridge"],
        ncm=errors["ncm"],
    )
    return ranked, evaluations["ridge"]


def _ordered(found: list[tuple[RankedNetwork, Evaluation]]) -> tuple[RankedNetwork, ...]:
    """The networks, the best first; a tie with the best one is called so."""
    found = sorted(found, key=lambda each: each[0].ridge.error)
    best = found[0][1]
    return tuple(
        replace(row, tie=at > 0 and difference(scores, best).tie) for at, (row, scores) in enumerate(found)
    )


def agreement(ranking: NetworkRanking, study: StudyRecord) -> Agreement:
    """Return how well the ranking predicts the trained heads of a study (its table `networks`).

    Raises:
        InputError: fewer than three networks are in both.
    """
    measured = [row for row in study.table("networks") if row.val_top1_error is not None]
    trained = {row.backbone: row.val_top1_error for row in measured}
    rows = [row for row in ranking.networks if row.backbone in trained]
    if len(rows) < 3:
        raise InputError(
            f"The study's table `networks` and the ranking share {len(rows)} networks: a rank "
            "correlation needs at least three."
        )
    errors = np.array([trained[row.backbone] for row in rows])
    correlations = (
        metrics.rank_correlation(np.array([row[kind].error for row in rows]), errors) for kind in KINDS
    )
    return Agreement(len(rows), *correlations)
