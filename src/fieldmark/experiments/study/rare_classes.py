"""Methods for rare classes on cached features: out-of-fold predictions, with nested choices."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement

import numpy as np

from fieldmark.data import cross_validation
from fieldmark.data.subset import LabelledPhotos
from fieldmark.evaluation import metrics
from fieldmark.experiments.records import StudyRow
from fieldmark.experiments.runs import Run
from fieldmark.experiments.study.context import StudyContext
from fieldmark.experiments.study.cross_validated import head_row, schedule_of, train_and_val
from fieldmark.features.labelled import LabelledFeatures
from fieldmark.heads import class_imbalance
from fieldmark.heads.class_imbalance import PLAIN, ImbalanceTrial
from fieldmark.utils.typing import BoolArray, IntArray


@dataclass(frozen=True)
class Trials:
    """The results of all settings of some methods.

    `wrong_FMN` is, for each fold and each of its M heads, whether the first answer for each photo is wrong,
    by a head of that setting that was trained neither on the photo's own fold nor on that one.
    """

    folds: IntArray  # of each photo, shape (N,)
    heads: list[list[ImbalanceTrial]]  # for each fold those trained without it, in one order for all
    wrong_FMN: BoolArray
    seconds: float  # what all of it took

    def of(self, method: str) -> list[int]:
        """Return the numbers of a method's settings."""
        return [at for at, each in enumerate(self.heads[0]) if each.method == method]

    @property
    def own_MN(self) -> BoolArray:
        """Whether the out-of-fold prediction of each photo is wrong, shape (M, N)."""
        return self.wrong_FMN[self.folds, :, np.arange(len(self.folds))].T


def trials_of(context: StudyContext, run: Run) -> Trials:
    """Return the results of all methods for a network; computed once for all rows that need them."""
    key = context.sweep_key(run)
    if key not in context.trials:
        context.trials[key] = _try(context, run)
    return context.trials[key]


def _try(context: StudyContext, run: Run) -> Trials:
    photos = train_and_val(context)
    labelled = context.view(run).features(context.networks.of(run), photos, context.data.classes(run))
    folds = cross_validation.folds(photos, cross_validation.FOLDS, context.seed)
    start = time.perf_counter()
    heads: list[list[ImbalanceTrial]] = []
    wrong_FMN = np.empty((0, 0, 0), np.bool_)
    # The setting for a fold is chosen by heads that were not trained on it (nested cross-validation): so
    # every two folds are left out together once, and each of the two is measured for the other.
    for one, other in combinations_with_replacement(range(cross_validation.FOLDS), 2):
        outside_N = (folds != one) & (folds != other)
        monitored = labelled.where(folds == one) if one == other else None
        found = _heads(context, run, labelled, photos, outside_N, monitored)
        if not wrong_FMN.size:
            wrong_FMN = np.ones((cross_validation.FOLDS, len(found), len(photos)), np.bool_)
        for fold, beside in {(one, other), (other, one)}:
            measured = labelled.where(folds == beside)
            for at, each in enumerate(found):
                answers = each.head.logits_of(measured.features).argmax(1)
                wrong_FMN[fold, at, folds == beside] = answers != measured.labels
        if one == other:
            heads.append(found)
    return Trials(folds, heads, wrong_FMN, time.perf_counter() - start)


def _heads(
    context: StudyContext,
    run: Run,
    labelled: LabelledFeatures,
    photos: LabelledPhotos,
    among_N: BoolArray,
    monitored: LabelledFeatures | None = None,
) -> list[ImbalanceTrial]:
    """Fit the methods of all rows that share this row's heads; a tenth of the photos is for calibration."""
    key = context.sweep_key(run)
    sharing = (r for r in context.runs if r.mode == run.mode and context.sweep_key(r) == key)
    methods = {each.head for each in sharing}
    if "even" in methods:  # it is one of the adjusted ones
        methods.add("adjusted")
    aside_N = cross_validation.choosing(photos, context.seed, among_N)
    calibration = labelled.where(among_N & ~aside_N), labelled.where(aside_N)
    classes, schedule = len(context.data.classes(run)), schedule_of(context, run)
    return class_imbalance.fit_methods(
        labelled.where(among_N), classes, schedule, methods, monitored, calibration
    )


def tail(context: StudyContext, run: Run) -> StudyRow:
    """Measure a method for rare classes (`class_imbalance.METHODS`, `plain`, `even`, or `masked`).

    The setting for a fold is chosen by predictions in the other folds, of heads that were trained on
    neither. `even` is the plain head with its scores corrected to equally frequent classes; `masked` is
    the plain head of all classes whose answers are restricted to the classes left after pruning.
    """
    if run.part == "test":
        return _on_test(context, run)
    full = replace(run, pruned=False, prune_below=None) if run.head == "masked" else run
    classes, photos = context.data.classes(full), train_and_val(context)
    found = trials_of(context, full)
    labelled = context.view(run).features(context.networks.of(run), photos, classes)
    scores_NC = np.empty((len(photos), len(classes)), np.float32)
    settings, curves = [], []
    for number, heads in enumerate(found.heads):
        rows = found.folds == number
        wrong_MN = found.wrong_FMN[number][:, ~rows]
        chosen = heads[_choice(context, run, found, labelled.labels[~rows], wrong_MN)]
        settings.append(chosen.setting)
        curves.append(chosen.curve)
        scores_NC[rows] = chosen.head.logits_of(labelled.where(rows).features)
    if run.head == "masked":
        scores_NC = scores_NC[:, [classes.index(each) for each in context.data.classes(run)]]
        curves = []  # they are of all classes
    row = head_row(context, run, photos, scores_NC, found.seconds, curves)
    return replace(row, settings=tuple(dict.fromkeys(settings)))


def _on_test(context: StudyContext, run: Run) -> StudyRow:
    """The same on the test part: chosen by all folds, trained on all their photos."""
    photos, found = train_and_val(context), trials_of(context, run)
    network, classes = context.networks.of(run), context.data.classes(run)
    labelled = context.view(run).features(network, photos, classes)
    number = _choice(context, run, found, labelled.labels, found.own_MN)
    start, key = time.perf_counter(), context.sweep_key(run)
    if key not in context.candidates:
        every_N = np.ones(len(photos), np.bool_)
        context.candidates[key] = _heads(context, run, labelled, photos, every_N)
    chosen = context.candidates[key][number]
    test = context.data.measured_on(run)
    scores_NC = chosen.head.logits_of(context.view(run).features(network, test, classes).features)
    row = head_row(context, run, test, scores_NC, time.perf_counter() - start)
    return replace(row, settings=(chosen.setting,))


def _choice(context: StudyContext, run: Run, found: Trials, labels_N: IntArray, wrong_MN: BoolArray) -> int:
    """The number of the setting that a method takes, chosen by the errors of each on some photos."""
    wrong_MN, labels_N = wrong_MN[:, labels_N >= 0], labels_N[labels_N >= 0]
    plain = min(found.of(PLAIN), key=lambda at: float(wrong_MN[at].mean()))
    if run.head in (PLAIN, "masked"):
        return plain
    rate = found.heads[0][plain].setting[0]
    if run.head == "even":
        return next(at for at in found.of("adjusted") if found.heads[0][at].setting == (rate, 1.0))
    counts = context.data.parts.train_counts()
    photos_C = np.array([counts[each] for each in context.data.classes(run)], np.int64)
    able = found.of(run.head)
    few_C = metrics.bands(photos_C, context.config.bands)["tail"]
    best = class_imbalance.choose_trial(list(wrong_MN[able]), wrong_MN[plain], labels_N, few_C)
    return able[best]
