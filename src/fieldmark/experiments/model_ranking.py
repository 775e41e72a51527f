"""`fieldmark rank`: which network suits these photos, in minutes.

Nothing is trained by gradient steps. For each network the features of the photos are computed (or taken
as they were kept), and three things are read off them: the error of a ridge head and of nearest class
means, each photo measured by a head that never saw it, and LogME.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from fieldmark import models
from fieldmark.data import cross_validation as cross
from fieldmark.data.photos import PhotoTable
from fieldmark.data.split import Split, split_photos
from fieldmark.data.subset import LabelledPhotos, photos_of, read
from fieldmark.evaluation import metrics
from fieldmark.evaluation.results import Evaluation
from fieldmark.features.extraction import Extraction
from fieldmark.features.extractor import PAPER_CROP, FeatureExtractor, cost_of
from fieldmark.heads import HEADS
from fieldmark.heads.cross_validation import out_of_fold_logits
from fieldmark.models import Backbone
from fieldmark.utils.choices import DecodingTier, EngineName
from fieldmark.utils.errors import InputError, WeightsUnavailable
from fieldmark.utils.random import order

logger = logging.getLogger(__name__)

KINDS = ("ridge", "ncm")


@dataclass(frozen=True)
class RankConfig:
    """What `fieldmark rank` is told.

    Attributes:
        networks: their names; empty: all whose weights are at hand.
        weights_dir: a folder of weights, looked into before anything is downloaded.
        limit: at most so many photos, drawn by their ids.
        seed: of that drawing and of the folds.
        engine: what runs the networks.
        tier: how photos are decoded.
    """

    networks: tuple[str, ...] = ()
    weights_dir: Path | None = None
    limit: int | None = 5000
    seed: int = 0
    engine: EngineName = "auto"
    tier: DecodingTier = "exact"


def rank(data: Path, config: RankConfig) -> dict[str, Any]:
    """Rank networks for some photos.

    Returns:
        `photos`, `classes`, and `networks`, the best first by ridge's error: for each `backbone`,
        `weights`, `weights_complete`, `ridge` and `ncm` (`error`, `interval`), `giga_macs`,
        `photo_ms`, `seconds`, and `tie`: whether the photos cannot tell it from the first.

    Raises:
        InputError: anything about the photos or networks that stands in the way.
    """
    loaded = _load(config)
    table, split = _given(data, config)
    extractor = FeatureExtractor(replace(PAPER_CROP, tier=config.tier), engine=config.engine)
    photos = _all(photos_of(table, split, "train"), photos_of(table, split, "val"))
    ends = {"": time.perf_counter()}

    def complete(name: str, _so_far: Extraction) -> None:
        ends[name] = time.perf_counter()

    extraction = extractor.compute(photos.files, loaded, on_complete=complete)
    seconds = {name: end - start for (_, start), (name, end) in pairwise(ends.items())}
    table = table.reject_files(extraction.rejected)
    photos = _all(photos_of(table, split, "train"), photos_of(table, split, "val"))
    classes = tuple(sorted(set(photos.taxon_ids)))
    if len(classes) < 2:
        raise InputError(
            f"{data} has photos of {len(classes)} class: networks can only be ranked by how well they "
            "tell classes apart; add photos of another, or raise --limit."
        )
    found = []
    for name, backbone in loaded.items():
        row, scores = _measured(extractor, backbone, photos, classes, config.seed)
        found.append(({**row, "seconds": row["seconds"] + seconds[name]}, scores))
    return {"photos": len(photos), "classes": len(classes), "networks": _ordered(found)}


def _given(data: Path, config: RankConfig) -> tuple[PhotoTable, Split]:
    """The photos to rank by, and how `train` divides all of them: what it will measure on has no say in
    which network is taken.

    All are looked at, however small the limit is: one that cannot be read would shift the parts.
    """
    table = read(data, limit=None, seed=config.seed)
    test = 0.0 if table.has_test else 0.1
    split = split_photos(table, val=0.1, test=test, seed=config.seed)
    pool = [*split.train, *split.val]
    drawn = [pool[at] for at in order(pool, "limit", config.seed)[: config.limit]]
    return table.with_frame(table.frame.filter(pl.col("id").is_in(drawn))), split


def _all(first: LabelledPhotos, second: LabelledPhotos) -> LabelledPhotos:
    return cross.together(first, second)


def _load(config: RankConfig) -> dict[str, Backbone]:
    names = config.networks or tuple(models.available(config.weights_dir))
    found = {}
    for name in dict.fromkeys(names):
        try:
            found[name] = models.load(name, weights_dir=config.weights_dir, seed=config.seed)
        except WeightsUnavailable as error:
            logger.warning(
                f"Warning: randomly initialised weights (none found for {name}). {error}"
            )
            found[name] = models.load(name, weights="random", seed=config.seed)
    if not found:
        raise InputError("No network's weights are at hand: name --weights-dir, or --network.")
    return found


def _measured(
    extractor: FeatureExtractor,
    backbone: Backbone,
    photos: LabelledPhotos,
    classes: Sequence[str],
    seed: int,
) -> tuple[dict[str, Any], Evaluation]:
    """A network's row, and ridge's scores."""
    start = time.perf_counter()
    labelled = extractor.features(backbone, photos, classes)
    row: dict[str, Any] = {
        "backbone": backbone.architecture.name,
        "weights": backbone.weights_info.line,
        "weights_complete": backbone.weights_info.complete,
        "giga_macs": backbone.architecture.giga_macs,
    }
    evaluations = {}
    for kind in KINDS:
        scores = out_of_fold_logits(HEADS[kind], labelled, photos, len(classes), seed)
        evaluations[kind] = Evaluation.of(photos, scores, classes)
        wrong = evaluations[kind].wrong_N()
        low, high = metrics.error_interval(wrong, photos.groups, seed=seed)
        row[kind] = {"error": float(wrong.mean()), "interval": [low, high]}
    cost = cost_of(extractor, backbone, 1)
    row["photo_ms"] = None if cost is None else 1000 * cost
    row["seconds"] = time.perf_counter() - start
    return row, evaluations["ridge"]


def _ordered(found: list[tuple[dict[str, Any], Evaluation]]) -> list[dict[str, Any]]:
    """The rows, the best first; a tie with the best one is called so."""
    from fieldmark.evaluation.comparison import difference

    found = sorted(found, key=lambda each: float(each[0]["ridge"]["error"]))
    best = found[0][1]
    return [
        {**row, "tie": at > 0 and difference(scores, best).tie}
        for at, (row, scores) in enumerate(found)
    ]


def agreement(ranking: Mapping[str, Any], study: Mapping[str, Any]) -> dict[str, Any]:
    """How well the ranking foretells a study's rows of trained heads (its table `networks`).

    Returns:
        `networks` (how many are in both), and Spearman's rank correlation of the trained heads' errors
        with `ridge` and `ncm`.

    Raises:
        InputError: fewer than three networks are in both.
    """
    trained = {
        row["backbone"]: row["val_top1_error"]
        for row in study["rows"]
        if row["table"] == "networks" and row["val_top1_error"] is not None
    }
    rows = [row for row in ranking["networks"] if row["backbone"] in trained]
    if len(rows) < 3:
        raise InputError(
            f"The study's table `networks` and the ranking share {len(rows)} networks: a rank "
            "correlation needs at least three."
        )
    errors = np.array([trained[row["backbone"]] for row in rows])
    told = {kind: np.array([row[kind]["error"] for row in rows]) for kind in KINDS}
    correlations = {name: metrics.rank_correlation(each, errors) for name, each in told.items()}
    return {"networks": len(rows), **correlations}
