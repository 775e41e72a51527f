"""Few photos a class: the default of `train` against scikit-learn, and what it promises on fresh photos.

    python -m benchmarks few

Samples of wild74 with 1, 2, 4, 10 and 50 photos a class, each of another group, are trained on as a user
would; all photos of groups that are not in the sample are fresh, and measured. The peer is scikit-learn's
logistic regression on the same features, standardised, its strength chosen by cross-validation.

The same for five of its classes, drawn anew for each sample: how most people begin.

Then 20 samples of 60 classes with 5 photos each: how often the reported interval holds the error on fresh
photos (each class counting the same, as in the sample), how often the promised precision holds, and the
log-loss after calibration beside the one before.

These are not timings: nothing varies from run to run, so there is one round.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks import common
from benchmarks.common import Row
from fieldmark.data.photos import PhotoTable
from fieldmark.data.split import Split
from fieldmark.data.subset import photos_of, read
from fieldmark.evaluation import intervals, metrics
from fieldmark.features.extractor import FeatureExtractor
from fieldmark.training import TrainConfig, Trained, train

PHOTOS = (1, 2, 4, 10, 50)
"""Photos of a class in a sample, all classes."""
SAMPLES = 5
"""Samples of each size; one of the largest."""
FEW_CLASSES, FEW_PHOTOS, FEW_SAMPLES = 5, (1, 2, 5), 10
"""Few classes: how many, photos of each, and samples."""
PROMISES, CLASSES, EACH = 20, 60, 5
"""Samples for the promises, their classes, and the photos of a class."""
GRID = (0.01, 0.1, 1.0, 10.0)
PEER = "scikit-learn's LogisticRegression, strength cross-validated"


@dataclass(frozen=True)
class Sample:
    """A trained sample, and the fresh photos by it.

    Attributes:
        trained: what `train` returned.
        log_p_NC: calibrated log-probabilities of the fresh photos.
        before_NC: the same without the temperature.
        labels_N: their classes.
        groups: their groups.
        peer_wrong_N: the peer's mistakes; None: it was not trained.
    """

    trained: Trained
    log_p_NC: np.ndarray
    before_NC: np.ndarray
    labels_N: np.ndarray
    groups: tuple[str, ...]
    peer_wrong_N: np.ndarray | None

    @property
    def wrong_N(self) -> np.ndarray:
        """The mistakes of the classifier."""
        return np.asarray(self.log_p_NC.argmax(axis=1) != self.labels_N)

    @property
    def macro_error(self) -> float:
        """The error on fresh photos, each class counting the same."""
        classes = np.unique(self.labels_N)
        return float(np.mean([self.wrong_N[self.labels_N == each].mean() for each in classes]))


def run(quick: bool = False, data: Path | None = None) -> list[Row]:
    """Return a row for each number of photos, and one for each promise."""
    table = read(data or common.shared("data", "wild74"), limit=None, seed=0)
    sizes = (2,) if quick else PHOTOS
    rows = [_errors(table, number, 1 if quick or number >= 50 else SAMPLES) for number in sizes]
    if not quick:
        rows += [_errors(table, number, FEW_SAMPLES, FEW_CLASSES) for number in FEW_PHOTOS]
    seeds = range(1 if quick else PROMISES)
    return [*rows, *_promises([sampled(table, EACH, seed, classes=CLASSES) for seed in seeds])]


def sampled(
    table: PhotoTable, number: int, seed: int, *, classes: int | None = None, peer: bool = False
) -> Sample:
    """Draw so many photos of each class, train on them, and predict all photos of other groups."""
    rng = np.random.default_rng(seed)
    rows = table.labelled.with_columns(pl.col("group").fill_null(pl.col("id")))
    taken, fresh = [], []
    for taxon in rng.permutation(rows["taxon_id"].unique().sort().to_numpy())[:classes]:
        own = rows.filter(pl.col("taxon_id") == taxon)
        groups = rng.permutation(own["group"].unique().sort().to_numpy())[:number].tolist()
        taken += [rng.choice(own.filter(pl.col("group") == group)["id"].to_numpy()) for group in groups]
        fresh += own.filter(~pl.col("group").is_in(groups))["id"].to_list()
    trained = train(_only(table, taken), TrainConfig(seed=seed))
    lead, classifier = trained.outcome.fitted.lead, trained.classifier
    photos = photos_of(_only(table, fresh), _all_in_one(fresh), "train")
    FeatureExtractor().compute(photos.files, {lead.backbone.architecture.name: lead.backbone})
    found = lead.features(photos, classifier.classes)
    x_ND = found.features[slice(None)]
    before_NC = lead.member.head.logits(x_ND)
    log_p_NC = metrics.log_softmax(classifier.combined([lead.scaled(before_NC)])[0])
    wrong_N = _peer(trained, x_ND) != found.labels if peer else None
    # A photo that is fresh to several samples is one unit.
    groups = tuple(group or photo for group, photo in zip(photos.groups, photos.ids, strict=True))
    return Sample(trained, log_p_NC, metrics.log_softmax(before_NC), found.labels, groups, wrong_N)


def _only(table: PhotoTable, ids: list[str]) -> PhotoTable:
    return table.with_frame(table.frame.filter(pl.col("id").is_in(ids)))


def _all_in_one(ids: list[str]) -> Split:
    return Split(pl.DataFrame({"id": sorted(ids), "part": ["train"] * len(ids)}), 0, "stratified")


def _peer(trained: Trained, x_ND: np.ndarray) -> np.ndarray:
    """Train the peer on the features that the classifier learned from; returns its classes of others."""
    learned = trained.outcome.train_features
    few = int(np.bincount(learned.labels).min())
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    if few > 1:
        model = GridSearchCV(model, {"logisticregression__C": GRID}, cv=min(5, few), scoring="neg_log_loss")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(learned.features[slice(None)], learned.labels)
    return np.asarray(model.predict(x_ND))


def _errors(table: PhotoTable, number: int, samples: int, classes: int | None = None) -> Row:
    found = [sampled(table, number, seed, classes=classes, peer=True) for seed in range(samples)]
    ours, theirs = (
        np.concatenate(each) for each in zip(*((s.wrong_N, s.peer_wrong_N) for s in found), strict=True)
    )
    groups = [group for each in found for group in each.groups]
    low, high = intervals.difference_interval(ours.astype(float) - theirs, groups)
    value = float(ours.mean() - theirs.mean())
    of = "" if classes is None else f"{classes} classes, "
    what = f"{of}{number} photos a class, error on {len(ours) // samples:,} fresh photos"
    errors = float(ours.mean()), float(theirs.mean())
    more, note = {"samples": samples}, f"{samples} samples"
    return common.paired(what, *errors, PEER, (value, low, high), note=note, more=more)


def _promises(found: list[Sample]) -> list[Row]:
    held, kept, coverage, after, before = [], [], [], [], []
    for each in found:
        low, high = each.trained.summary.top1_error_interval
        held.append(low <= each.macro_error <= high)
        after.append(metrics.negative_log_likelihood(each.log_p_NC, each.labels_N))
        before.append(metrics.negative_log_likelihood(each.before_NC, each.labels_N))
        threshold = each.trained.classifier.thresholds["species"]
        given_N = each.log_p_NC.max(axis=1) >= np.log(threshold.score)
        coverage.append(given_N.mean())
        right = 1 - each.wrong_N[given_N].mean() if given_N.any() else 1.0
        kept.append(right >= (threshold.promised or 0.0))
    what = f"{CLASSES} classes with {EACH} photos, {len(found)} samples: "
    worst = max(a - b for a, b in zip(after, before, strict=True))
    return [
        _row(
            f"{what}interval holds the fresh error", np.mean(held), 0.95, "as promised", more_is_better=True
        ),
        _row(
            f"{what}promised precision holds on fresh photos",
            *(np.mean(kept), 0.9, "as promised"),
            more_is_better=True,
            note=f"mean coverage {np.mean(coverage):.2f}",
        ),
        _row(
            f"{what}log-loss, mean",
            *(np.mean(after), np.mean(before), "before calibration"),
            note=f"the largest rise of a sample {worst:+.3f}",
        ),
    ]


def _row(
    what: str, ours: float, peer: float, name: str, *, more_is_better: bool = False, note: str = ""
) -> Row:
    ratio = float(ours / peer if more_is_better else peer / ours) if ours else 1.0
    return Row(*(what, "", float(ours), float(peer), name, ratio, ratio, ratio, common.EXACT), note=note)
