"""Suspect labels, from out-of-fold predictions of a ridge head."""

from __future__ import annotations

import logging
import tempfile

import numpy as np
import numpy.typing as npt
import polars as pl

from fieldmark.curation import confident_learning
from fieldmark.curation.config import CheckConfig
from fieldmark.data.cross_validation import folds
from fieldmark.data.subset import LabelledPhotos
from fieldmark.evaluation import metrics
from fieldmark.features.cache import Features
from fieldmark.features.labelled import LabelledFeatures
from fieldmark.heads import HEADS
from fieldmark.utils import io
from fieldmark.utils.logging import progress_bar
from fieldmark.utils.typing import IntArray

logger = logging.getLogger(__name__)

_MIN_PHOTOS = 20  # labelled photos below which labels are not checked


def label_columns(
    features: Features, rows: pl.DataFrame, together_N: IntArray, config: CheckConfig
) -> dict[str, pl.Series]:
    """Return the columns of findings about labels, see docs/check.md.

    Photos with the same number in `together_N` stay in one fold.
    """
    labelled = np.flatnonzero(rows["taxon_id"].is_not_null().to_numpy())
    taxa = rows["taxon_id"].drop_nulls().unique().sort()
    own, wrong = np.full((2, len(rows)), np.nan, np.float32)
    other = np.full(len(rows), -1, np.int64)
    rank = {name: np.zeros(len(rows), np.int64) for name in ("suspect", "review")}
    if len(labelled) >= _MIN_PHOTOS and len(taxa) > 1:
        some, groups = rows[labelled], tuple(map(str, together_N[labelled]))
        photos = LabelledPhotos(tuple(some["id"]), (), tuple(some["taxon_id"]), groups, ("",) * len(some))
        scores = cross_validated(features.take(labelled), photos, taxa.to_list(), config)
        issues = confident_learning.find_label_issues(scores, photos.labels(taxa.to_list()))
        own[labelled], wrong[labelled] = issues.own_N, issues.wrong_N
        other[labelled] = issues.best_N
        for name, found in (("suspect", issues.reaching(config.label_precision)), ("review", issues.rows)):
            rank[name][labelled[found]] = np.arange(1, len(found) + 1)
    else:
        logger.info(f"Labels are not checked: fewer than {_MIN_PHOTOS} labelled photos, or only one class.")
    likelier = taxa.gather(pl.Series(other.clip(min=0))) if len(taxa) else rows["taxon_id"]
    return {
        "label_probability": pl.Series(own).fill_nan(None),
        "label_wrong": pl.Series(wrong).fill_nan(None),
        "likelier": pl.select(pl.when(pl.Series(other) >= 0).then(likelier)).to_series(),
        **{
            name: pl.select(pl.when(pl.Series(at) > 0).then(pl.Series(at))).to_series()
            for name, at in rank.items()
        },
    }


def cross_validated(
    features: Features, photos: LabelledPhotos, classes: list[str], config: CheckConfig
) -> npt.NDArray[np.float16]:
    """Compute out-of-fold log-probabilities with a ridge head, shape (N, C); a group stays in one fold.

    They are stored in an unnamed file, so that memory does not grow with N times C.
    """
    fold_N = folds(photos, config.folds, config.seed)
    folder = io.cache_dir()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as handle:
        scores = np.memmap(handle, np.float16, mode="w+", shape=(len(photos), len(classes)))
    labelled = LabelledFeatures(features, photos.labels(classes), photos.ids)
    nothing = labelled.where(np.zeros(len(photos), np.bool_))
    with progress_bar("checking labels", config.folds, unit="folds") as bar:
        for fold in range(config.folds):
            held_out = np.flatnonzero(fold_N == fold)
            if 0 < len(held_out) < len(photos):
                rest = labelled.where(fold_N != fold)
                head = HEADS["ridge"](rest, nothing, len(classes), config.seed).head
                for start, x_BD in features.take(held_out).blocks(512):
                    block = metrics.log_softmax(head.logits(x_BD)).clip(min=-6e4)
                    scores[held_out[start : start + len(x_BD)]] = block
            bar.advance()
    return scores
