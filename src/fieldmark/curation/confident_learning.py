"""Labels that are probably wrong, from out-of-fold predictions, read in blocks of rows.

Their number is estimated by confident learning (C. Northcutt, L. Jiang and I. Chuang, "Confident learning:
estimating uncertainty in dataset labels", 2021, section 3.1). A class's threshold is the mean probability
that photos with its label get for it. A photo is confidently of another class where that class's probability
reaches its threshold, is the highest of those that do, and is higher than the label's own.

Which labels they are follows from a model of label noise: with probability `e`, the same for all photos, a
label was drawn at random, so that its probability is `(1 - e) p(label | photo) + e / C` (C. Bishop, "Pattern
recognition and machine learning", 2006, equation 4.117). `e` and a temperature of the scores maximise the
likelihood of the given labels; scores of a head trained on wrong labels are too flat, and the temperature
corrects that. The share of the second term is the probability that the label was drawn. Where that is high,
the label's own probability is near 0, and drawn means wrong; one in C of these is right by chance.

The model trusts the head: where it is often wrong although it is confident (hard classes, few photos), right
labels look drawn. So that probability is multiplied by how likely the head's other answer is right: its own
probability, and at most the share of labels that the head agrees with among photos on which it is at least as
confident. That share is too low by the wrong labels themselves, so that the product errs towards marking few.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from fieldmark.evaluation.metrics import Scores, row_blocks
from fieldmark.utils.typing import BoolArray, DoubleArray, FloatArray, IntArray

_SLACK = np.float32(1e-6)
_SAMPLE = 8192
_TEMPERATURES = np.geomspace(0.25, 2.0, 16)
_ITERATIONS = 100  # of expectation-maximisation


class Noise(NamedTuple):
    """Model of label noise: the share of labels drawn at random, and the temperature of the scores."""

    share: float
    temperature: float


class LabelIssues(NamedTuple):
    """Result for N labels."""

    own_N: FloatArray  # the probability of the label, with the fitted temperature
    best_N: IntArray  # the most likely class other than the label
    wrong_N: FloatArray  # the probability that the label is wrong and `best_N` right, rather too low
    rows: IntArray  # the photos whose labels are worth a review, most suspect first
    noise: Noise

    def reaching(self, precision: float) -> IntArray:
        """Return the longest beginning of `rows` of which a share of at least `precision` should be wrong."""
        enough = np.flatnonzero(expected_precision(self.wrong_N[self.rows]) >= precision)
        return self.rows[: int(enough.max(initial=-1)) + 1]


def expected_precision(wrong_M: FloatArray) -> DoubleArray:
    """Estimate the share of wrong labels among the first 1 .. M: their mean less its standard error, (M,).

    With the standard error a few labels are marked only if they are all but certain: in a data set of right
    labels, a few confident errors of the head look like wrong labels.
    """
    count_M = np.arange(1, len(wrong_M) + 1)
    mean_M = (np.cumsum(wrong_M, dtype=np.float64) / count_M).clip(0, 1)
    return np.asarray((mean_M - np.sqrt(mean_M * (1 - mean_M) / count_M)).clip(min=0))


def find_label_issues(log_p_NC: Scores, labels_N: IntArray) -> LabelIssues:
    """Find labels (0 .. C-1) that are probably wrong, from out-of-fold log-probabilities.

    Their number is that of the photos confidently of another class, or that of the labels more likely
    drawn at random than not, whichever is higher: the first is higher if classes are similar, the second
    if scores are too flat.
    """
    count, classes = log_p_NC.shape
    noise = fit_noise(log_p_NC, labels_N)
    raw_N, own_N = np.empty(count, np.float32), np.empty(count, np.float32)
    for rows, log_p_BC in _blocks(log_p_NC):
        at, own = np.arange(len(log_p_BC)), labels_N[rows]
        raw_N[rows] = np.exp(log_p_BC[at, own])
        own_N[rows] = _softmax(log_p_BC / np.float32(noise.temperature))[at, own]
    threshold_C = _thresholds(raw_N, labels_N, classes)
    best_N = np.empty(count, np.int64)
    elsewhere_N, other_N = np.empty(count, np.bool_), np.empty(count, np.float32)
    for rows, log_p_BC in _blocks(log_p_NC):
        p_BC, at, own = np.exp(log_p_BC), np.arange(len(log_p_BC)), labels_N[rows]
        reached_BC = np.where(p_BC >= threshold_C - _SLACK, p_BC, np.float32(-1))
        found = reached_BC.argmax(axis=1)
        elsewhere_N[rows] = (reached_BC[at, found] >= 0) & (found != own)
        p_BC[at, own] = -1
        best_N[rows] = p_BC.argmax(axis=1)
        other_N[rows] = p_BC[at, best_N[rows]]
    likelier_N = other_N > raw_N
    among = np.flatnonzero(likelier_N)
    worst = among[np.argsort(raw_N[among], kind="stable")]
    drawn_N = _posterior(own_N, noise.share, classes)
    many = max((elsewhere_N & likelier_N).sum(), (likelier_N & (drawn_N > 0.5)).sum())
    agreed_N = _agreement(np.maximum(raw_N, other_N), ~likelier_N)
    wrong_N = (drawn_N * np.minimum(other_N, agreed_N)).astype(np.float32)
    worst = worst[: int(many)]
    return LabelIssues(own_N, best_N, wrong_N, worst[np.argsort(-wrong_N[worst], kind="stable")], noise)


def _agreement(confidence_N: FloatArray, agrees_N: BoolArray) -> DoubleArray:
    """Compute the share of labels agreed with among photos of at least each one's confidence, shape (N,)."""
    order = np.argsort(-confidence_N, kind="stable")
    as_sure_N = np.searchsorted(-confidence_N[order], -confidence_N, side="right")
    return np.asarray(np.cumsum(agrees_N[order])[as_sure_N - 1] / as_sure_N)


def _thresholds(own_N: FloatArray, labels_N: IntArray, classes: int) -> FloatArray:
    """Compute each class's mean probability over its own photos, shape (C,); 2 for a class of none."""
    count_C = np.bincount(labels_N, minlength=classes)
    total_C = np.bincount(labels_N, own_N.astype(np.float64), minlength=classes)
    return np.where(count_C > 0, total_C / np.maximum(count_C, 1), 2.0).astype(np.float32)


def fit_noise(log_p_NC: Scores, labels_N: IntArray) -> Noise:
    """Fit the noise model to a sample of the labels by maximum likelihood.

    For each of sixteen temperatures the share is found by expectation-maximisation (A. Dempster,
    N. Laird and D. Rubin, "Maximum likelihood from incomplete data via the EM algorithm", 1977).
    """
    every = slice(None, None, max(1, -(-len(labels_N) // _SAMPLE)))
    log_p_BC = np.asarray(log_p_NC[every], np.float32)
    at, own_B, classes = np.arange(len(log_p_BC)), labels_N[every], log_p_BC.shape[1]
    best, found = -np.inf, Noise(0.0, 1.0)
    for temperature in _TEMPERATURES:
        p_B = _softmax(log_p_BC / np.float32(temperature))[at, own_B].astype(np.float64)
        share = 0.05
        for _ in range(_ITERATIONS):
            share = float(_posterior(p_B, share, classes).mean())
        likelihood = float(np.log((1 - share) * p_B + share / classes + 1e-30).mean())
        if likelihood > best:
            best, found = likelihood, Noise(share, float(temperature))
    return found


def _posterior(own_N: Scores, share: float, classes: int) -> DoubleArray:
    """Compute the probability that each label was drawn at random."""
    drawn = share / classes
    return np.asarray(drawn / ((1 - share) * own_N.astype(np.float64) + drawn + 1e-30))


def _softmax(scores_BC: FloatArray) -> FloatArray:
    p_BC = np.exp(scores_BC - scores_BC.max(axis=1, keepdims=True))
    return np.asarray(p_BC / p_BC.sum(axis=1, keepdims=True), np.float32)


def _blocks(log_p_NC: Scores) -> Iterator[tuple[slice, FloatArray]]:
    """Yield rows and their log-probabilities, shape (B, C)."""
    for rows in row_blocks(log_p_NC):
        yield rows, np.asarray(log_p_NC[rows], np.float32)
