"""A row that was stopped early, measured in folds on kept features."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from fieldmark.data import cross_validation as cross
from fieldmark.experiments.recipes import Run
from fieldmark.experiments.study.context import Row, Work
from fieldmark.experiments.study.cross_validated import both, folded_row, training
from fieldmark.heads.class_imbalance import RATES
from fieldmark.heads.ridge import class_counts
from fieldmark.heads.softmax import Hyperparameters, by_loss, fit_sweep

PATIENCE = 5
"""Epochs without a lower validation loss, after which training ends."""


def early(work: Work, run: Run) -> Row:
    """The plain head for at most `run.epochs` epochs.

    A tenth of the photos outside a fold is not learned from: its loss says when to stop, and which of
    the learning rates is taken. The row's `stopped` has `learning_rate`, `epochs` and `kept` (the epoch
    whose weights were taken) of each fold.
    """
    photos, classes = both(work), work.data.classes(run)
    labelled = work.extractor.features(work.networks.of(run), photos, classes)
    how = replace(training(work, run), patience=PATIENCE)
    scores_NC = np.empty((len(photos), len(classes)), np.float32)
    start, stopped, curves = time.perf_counter(), [], []
    for fold in cross.rounds(photos, work.seed):
        learn, choose = labelled.where(fold.learn), labelled.where(fold.choose)
        settings = [Hyperparameters(rate) for rate in RATES]
        best = min(fit_sweep(learn, choose, len(classes), how, settings), key=by_loss)
        head = best.head.exclude_unseen(class_counts(learn, len(classes)))
        scores_NC[fold.measure] = head.logits_of(labelled.where(fold.measure).features)
        curves.append(best.curve)
        stopped.append(
            {
                "learning_rate": best.hyperparameters.learning_rate,
                "epochs": len(best.curve),
                "kept": best.best_epoch,
            }
        )
    row = folded_row(work, run, photos, scores_NC, time.perf_counter() - start, curves)
    return {**row, "stopped": stopped}
