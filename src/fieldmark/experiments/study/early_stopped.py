"""Train the plain head on cached features with early stopping; out-of-fold predictions."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from fieldmark.data import cross_validation
from fieldmark.experiments.recipes import Run
from fieldmark.experiments.records import EarlyStop, StudyRow
from fieldmark.experiments.study.context import StudyContext
from fieldmark.experiments.study.cross_validated import head_row, schedule_of, train_and_val
from fieldmark.heads.class_imbalance import RATES
from fieldmark.heads.ridge import class_counts
from fieldmark.heads.softmax import Hyperparameters, by_loss, fit_sweep

PATIENCE = 5
"""Epochs without a lower validation loss, after which training ends."""


def early(context: StudyContext, run: Run) -> StudyRow:
    """Train the plain head for at most `run.epochs` epochs.

    A tenth of the photos outside a fold is not trained on: its loss decides when to stop, and which
    learning rate is taken.
    """
    photos, classes = train_and_val(context), context.data.classes(run)
    labelled = context.extractor.features(context.networks.of(run), photos, classes)
    training = replace(schedule_of(context, run), patience=PATIENCE)
    scores_NC = np.empty((len(photos), len(classes)), np.float32)
    start, stopped, curves = time.perf_counter(), [], []
    for fold in cross_validation.rounds(photos, context.seed):
        learn, choose = labelled.where(fold.learn), labelled.where(fold.choose)
        rates = [Hyperparameters(rate) for rate in RATES]
        best = min(fit_sweep(learn, choose, len(classes), training, rates), key=by_loss)
        head = best.head.exclude_unseen(class_counts(learn, len(classes)))
        scores_NC[fold.measure] = head.logits_of(labelled.where(fold.measure).features)
        curves.append(best.curve)
        stopped.append(EarlyStop(best.hyperparameters.learning_rate, len(best.curve), best.best_epoch))
    row = head_row(context, run, photos, scores_NC, time.perf_counter() - start, curves)
    return replace(row, stopped=tuple(stopped))
