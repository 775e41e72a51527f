"""What is said of each label by a head that learned from the other photos."""

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


_FEWEST = 20
"""With fewer labelled photos than this the labels are not judged."""


def judged(
    features: Features, rows: pl.DataFrame, together_N: IntArray, config: CheckConfig
) -> dict[str, pl.Series]:
    """Columns of findings: probability, the likeliest other, how likely wrong, rank among the suspects.

    Args:
        features: of the photos.
        rows: their rows of the table.
        together_N: what belongs together has the same number.
        config: `folds` and `seed`.
    """
    labelled = np.flatnonzero(rows["taxon_id"].is_not_null().to_numpy())
    taxa = rows["taxon_id"].drop_nulls().unique().sort()
    own, wrong = np.full((2, len(rows)), np.nan, np.float32)
    other = np.full(len(rows), -1, np.int64)
    rank = np.zeros(len(rows), np.int64)
    if len(labelled) >= _FEWEST and len(taxa) > 1:
        photos = _photos(rows[labelled], together_N[labelled])
        scores = cross_validated(features.take(labelled), photos, taxa.to_list(), config)
        said = confident_learning.suspects(scores, photos.labels(taxa.to_list()))
        own[labelled], other[labelled], wrong[labelled] = said.own_N, said.best_N, said.wrong_N
        rank[labelled[said.rows]] = np.arange(1, len(said.rows) + 1)
    else:
        logger.info("Labels are not judged: there are too few labelled photos, or one class.")
    likelier = taxa.gather(pl.Series(other.clip(min=0))) if len(taxa) else rows["taxon_id"]
    return {
        "label_probability": pl.Series(own).fill_nan(None),
        "label_wrong": pl.Series(wrong).fill_nan(None),
        "likelier": pl.select(pl.when(pl.Series(other) >= 0).then(likelier)).to_series(),
        "suspect": pl.select(pl.when(pl.Series(rank) > 0).then(pl.Series(rank))).to_series(),
    }


def _photos(rows: pl.DataFrame, together_N: IntArray) -> LabelledPhotos:
    """Labelled photos whose groups are what belongs together."""
    count = len(rows)
    groups = tuple(map(str, together_N))
    return LabelledPhotos(tuple(rows["id"]), (), tuple(rows["taxon_id"]), groups, ("",) * count)


def cross_validated(
    features: Features, photos: LabelledPhotos, classes: list[str], config: CheckConfig
) -> npt.NDArray[np.float16]:
    """Log-probabilities of each photo by a ridge head that did not see it, nor what belongs to it.

    They lie in a file without a name, (N, C) in half precision: memory does not grow with them.

    Args:
        features: of N labelled photos.
        photos: those photos; a group is never torn.
        classes: C taxon ids.
        config: `folds` and `seed`.
    """
    fold_N = folds(photos, config.folds, config.seed)
    folder = io.cache_dir()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as handle:
        scores = np.memmap(handle, np.float16, mode="w+", shape=(len(photos), len(classes)))
    labelled = LabelledFeatures(features, photos.labels(classes), photos.ids)
    nothing = labelled.where(np.zeros(len(photos), np.bool_))
    with progress_bar("judging labels", config.folds, unit="folds") as stage:
        for fold in range(config.folds):
            asked = np.flatnonzero(fold_N == fold)
            if 0 < len(asked) < len(photos):
                rest = labelled.where(fold_N != fold)
                head = HEADS["ridge"](rest, nothing, len(classes), config.seed).head
                for start, x_BD in features.take(asked).blocks(512):
                    block = metrics.log_softmax(head.logits(x_BD)).clip(min=-6e4)
                    scores[asked[start : start + len(x_BD)]] = block
            stage.advance()
    return scores
