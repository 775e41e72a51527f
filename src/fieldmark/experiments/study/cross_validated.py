"""Measure kinds of head on cached features by out-of-fold predictions."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple, replace

import numpy as np

from fieldmark.data import cross_validation
from fieldmark.data.subset import LabelledPhotos, whole_photos
from fieldmark.evaluation import calibration, metrics
from fieldmark.evaluation.ensemble import log_mixture
from fieldmark.evaluation.results import Evaluation
from fieldmark.evaluation.taxonomic import class_heights, expected_heights
from fieldmark.experiments import own
from fieldmark.experiments.records import EarlyStop, StudyRow
from fieldmark.experiments.runs import Run
from fieldmark.experiments.study.context import StudyContext
from fieldmark.experiments.study.rows import row_of
from fieldmark.features.cache import Features
from fieldmark.features.extractor import cost_of
from fieldmark.features.labelled import LabelledFeatures
from fieldmark.heads import HEADS
from fieldmark.heads.base import Head
from fieldmark.heads.class_imbalance import RATES
from fieldmark.heads.ridge import class_counts
from fieldmark.heads.selection import schedule
from fieldmark.heads.softmax import Epoch, Hyperparameters, Training, by_loss, fit_sweep
from fieldmark.utils.random import order
from fieldmark.utils.typing import BoolArray, FloatArray

PATIENCE = 5
"""Of early stopping: epochs without a lower validation loss, after which training ends."""


def train_and_val(context: StudyContext) -> LabelledPhotos:
    """Return the photos of the training and the validation part."""
    return cross_validation.together(context.data.parts.train, context.data.parts.val)


def head(context: StudyContext, run: Run) -> StudyRow:
    """Train a kind of head (`fieldmark.heads.HEADS`) once a fold; or once, for the test part."""
    (photos, rounds), classes = _rounds(context, run), context.data.classes(run)
    views = _views(context, run, photos, classes)
    whole = next(iter(views.values()))
    scores_NC = np.empty((len(photos), len(classes)), np.float32)
    start, curves = time.perf_counter(), []
    for fold in rounds:
        some_N = fold.learn if run.each is None else _some(photos, fold.learn, run.each, context.seed)
        learn = _stacked([(name, views[name].where(some_N)) for name in run.learn])
        choose = whole.where(fold.choose)
        learned, curve = _fit(context, run, learn, choose, len(classes))
        curves.append(curve)
        asked = [views[name].where(fold.measure).features for name in run.ask]
        scores_NC[fold.measure] = _averaged([learned.logits_of(each) for each in asked])
    seconds = time.perf_counter() - start
    if run.part != "cross":
        photos, scores_NC = context.data.measured_on(run), scores_NC[rounds[0].measure]
    if run.decide == "height":
        scores_NC = _by_height(context, photos, scores_NC, classes)
    row = head_row(context, run, photos, scores_NC, seconds, curves)
    return replace(row, val_log_loss=None) if run.decide == "height" else row


def _some(photos: LabelledPhotos, among_N: BoolArray, each: int, seed: int) -> BoolArray:
    """Draw so many photos of each class, by their ids; shape (N,)."""
    left, some_N = Counter[str](), np.zeros_like(among_N)
    for at in order(photos.ids, "few", seed):
        if among_N[at] and left[photos.taxon_ids[at]] < each:
            left[photos.taxon_ids[at]] += 1
            some_N[at] = True
    return some_N


def _by_height(
    context: StudyContext, photos: LabelledPhotos, scores_NC: FloatArray, classes: tuple[str, ...]
) -> FloatArray:
    """Score each label by its expected height, negated; a fold is calibrated by the other photos."""
    labels_N, levels = photos.labels(classes), context.data.dataset.table.taxonomy.only(classes).levels
    height_CC = class_heights(len(classes), levels)
    fold_N = cross_validation.folds(photos, cross_validation.FOLDS, context.seed)
    found_NC = np.empty_like(scores_NC)
    for fold in np.unique(fold_N):
        here, others = fold_N == fold, fold_N != fold
        heat = calibration.fit_temperature(scores_NC[others], labels_N[others])
        p_MC = np.exp(metrics.log_softmax32(scores_NC[here] / np.float32(heat)))
        found_NC[here] = -expected_heights(p_MC, height_CC)
    return found_NC


def early(context: StudyContext, run: Run) -> StudyRow:
    """Train the plain head for at most `run.epochs` epochs, with early stopping.

    A tenth of the photos outside a fold is not trained on: its loss decides when to stop, and which
    learning rate is taken.
    """
    photos, classes = train_and_val(context), context.data.classes(run)
    labelled = context.view(run).features(context.networks.of(run), photos, classes)
    training = replace(schedule_of(context, run), patience=PATIENCE)
    scores_NC = np.empty((len(photos), len(classes)), np.float32)
    start, stopped, curves = time.perf_counter(), [], []
    for fold in cross_validation.rounds(photos, context.seed):
        learn, choose = labelled.where(fold.learn), labelled.where(fold.choose)
        rates = [Hyperparameters(rate) for rate in RATES]
        best = min(fit_sweep(learn, choose, len(classes), training, rates), key=by_loss)
        fitted = best.head.exclude_unseen(class_counts(learn, len(classes)))
        scores_NC[fold.measure] = fitted.logits_of(labelled.where(fold.measure).features)
        curves.append(best.curve)
        stopped.append(EarlyStop(best.hyperparameters.learning_rate, len(best.curve), best.best_epoch))
    row = head_row(context, run, photos, scores_NC, time.perf_counter() - start, curves)
    return replace(row, stopped=tuple(stopped))


def _fit(
    context: StudyContext, run: Run, learn: LabelledFeatures, choose: LabelledFeatures, classes: int
) -> tuple[Head, Sequence[Epoch]]:
    """The head of a run, and its learning curve where it has one."""
    if run.loss is not None:
        how = Training(epochs=run.epochs, seed=context.seed)
        return own.fit_head(learn, choose, classes, how, run.loss)[:2]
    fitted = HEADS[run.head](learn, choose, classes, context.seed)
    return fitted.head, getattr(fitted, "curve", ())


def _rounds(context: StudyContext, run: Run) -> tuple[LabelledPhotos, list[cross_validation.Fold]]:
    """All photos of a run, and which of them are trained, chosen and measured on in each round."""
    if run.part == "cross":
        photos = train_and_val(context)
        if run.whole:
            photos = whole_photos(photos)
        if run.places:
            photos, by_place = cross_validation.placed(photos, context.data.dataset.table)
            apart = by_place if run.places == "new" else photos
            return by_place, cross_validation.rounds(apart, context.seed)
        return photos, cross_validation.rounds(photos, context.seed)
    measured, parts = context.data.measured_on(run), context.data.parts
    role_N = np.repeat([0, 1, 2], [len(parts.train), len(parts.val), len(measured)])
    once = cross_validation.Fold(*(role_N == role for role in range(3)))
    return cross_validation.together(train_and_val(context), measured), [once]


def _views(
    context: StudyContext, run: Run, photos: LabelledPhotos, classes: tuple[str, ...]
) -> dict[str, LabelledFeatures]:
    """The features of the photos under each view of the run, computed where they are not cached."""
    backbone, found = context.networks.of(run), {}
    for name in dict.fromkeys((*run.ask, *run.learn)):
        extractor = context.view(run, name)
        extractor.compute(photos.files, {run.backbone: backbone})
        found[name] = extractor.features(backbone, photos, classes)
    return found


def _stacked(views: Sequence[tuple[str, LabelledFeatures]]) -> LabelledFeatures:
    """The views of all photos stacked; the id of a row contains the view."""
    if len(views) == 1:
        return views[0][1]
    return LabelledFeatures(
        Features.of(np.concatenate([each.features.vectors[each.features.rows] for _, each in views])),
        np.concatenate([each.labels for _, each in views]),
        tuple(f"{photo_id} {name}" for name, each in views for photo_id in each.ids),
    )


def _averaged(logits: Sequence[FloatArray]) -> FloatArray:
    """The log of the mean of the probabilities; logits as they are where there is one view."""
    if len(logits) == 1:
        return logits[0]
    log_p = [metrics.log_softmax(each) for each in logits]
    return log_mixture(log_p, [1 / len(logits)] * len(logits)).astype(np.float32)


def schedule_of(context: StudyContext, run: Run) -> Training:
    """Return the training schedule, which is the same for all methods and in all folds."""
    return schedule(len(train_and_val(context)), context.seed, run.epochs)


def head_row(
    context: StudyContext,
    run: Run,
    photos: LabelledPhotos,
    scores_NC: FloatArray,
    seconds: float,
    curves: Sequence[Sequence[Epoch]] = (),
) -> StudyRow:
    """Make the row of a head on cached features, from its scores (N, C) and the curve of each fold.

    The folds' curves are averaged over the epochs that all of them have.
    """
    means = (np.mean([astuple(each) for each in epoch], axis=0) for epoch in zip(*curves, strict=False))
    curve = [Epoch(int(mean[0]), *map(float, mean[1:])) for mean in means]
    evaluation = Evaluation.of(photos, scores_NC, context.data.classes(run))
    cost = cost_of(context.view(run), context.networks.of(run), len(photos))
    return row_of(context, run, evaluation, seconds, cost, curve)
