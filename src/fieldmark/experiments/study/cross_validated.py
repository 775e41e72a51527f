"""Rows measured in folds on kept features: kinds of head, and methods for classes with few photos."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from itertools import combinations_with_replacement
from typing import Any

import numpy as np

from fieldmark.data import cross_validation as cross
from fieldmark.data.subset import LabelledPhotos
from fieldmark.evaluation import metrics
from fieldmark.evaluation.ensemble import log_mixture
from fieldmark.evaluation.results import Evaluation
from fieldmark.experiments.recipes import Run
from fieldmark.experiments.study.context import Row, Work
from fieldmark.experiments.study.rows import row_of
from fieldmark.features.cache import Features
from fieldmark.features.extractor import cost_of
from fieldmark.features.labelled import LabelledFeatures
from fieldmark.heads import HEADS, class_imbalance
from fieldmark.heads.class_imbalance import PLAIN, ImbalanceTrial
from fieldmark.heads.selection import schedule
from fieldmark.heads.softmax import Epoch, Training
from fieldmark.utils.typing import BoolArray, FloatArray, IntArray


def both(work: Work) -> LabelledPhotos:
    """The photos of the training and the validation part."""
    return cross.together(work.data.parts.train, work.data.parts.val)


def head(work: Work, run: Run) -> Row:
    """A kind of head (`fieldmark.heads.HEADS`), learned once a fold; or once, for another part."""
    (photos, rounds), classes = _rounds(work, run), work.data.classes(run)
    views = _views(work, run, photos, classes)
    whole = next(iter(views.values()))
    scores_NC = np.empty((len(photos), len(classes)), np.float32)
    start, curves = time.perf_counter(), []
    for fold in rounds:
        learn = _stacked([(name, views[name].where(fold.learn)) for name in run.learn])
        choose = whole.where(fold.choose)
        learned = HEADS[run.head](learn, choose, len(classes), work.seed)
        curves.append(getattr(learned, "curve", ()))
        asked = [views[name].where(fold.measure).features for name in run.ask]
        scores_NC[fold.measure] = _averaged([learned.head.logits_of(each) for each in asked])
    seconds = time.perf_counter() - start
    if run.part != "cross":
        photos, scores_NC = work.data.measured_on(run), scores_NC[rounds[0].measure]
    return folded_row(work, run, photos, scores_NC, seconds, curves)


def _rounds(work: Work, run: Run) -> tuple[LabelledPhotos, list[cross.Fold]]:
    """All photos that a run needs, and who of them learns, chooses and is measured in each round."""
    if run.part == "cross":
        photos = both(work)
        return photos, cross.rounds(photos, work.seed)
    measured = work.data.measured_on(run)
    sizes = len(work.data.parts.train), len(work.data.parts.val), len(measured)
    role_N = np.repeat([0, 1, 2], sizes)
    once = cross.Fold(role_N == 0, role_N == 1, role_N == 2)
    return cross.together(both(work), measured), [once]


def _views(
    work: Work, run: Run, photos: LabelledPhotos, classes: tuple[str, ...]
) -> dict[str, LabelledFeatures]:
    """The photos' features under each view that the run needs, computed where they are not kept."""
    backbone, found = work.networks.of(run), {}
    for name in dict.fromkeys((*run.ask, *run.learn)):
        extractor = work.view(name)
        extractor.compute(photos.files, {run.backbone: backbone})
        found[name] = extractor.features(backbone, photos, classes)
    return found


def _stacked(views: Sequence[tuple[str, LabelledFeatures]]) -> LabelledFeatures:
    """The views of all photos as rows of one; a row's id says which view it is."""
    if len(views) == 1:
        return views[0][1]
    vectors = [each.features.vectors[each.features.rows] for _, each in views]
    return LabelledFeatures(
        Features.of(np.concatenate(vectors)),
        np.concatenate([each.labels for _, each in views]),
        tuple(f"{photo_id} {name}" for name, each in views for photo_id in each.ids),
    )


def _averaged(logits: Sequence[FloatArray]) -> FloatArray:
    """The log of the mean of the probabilities; logits as they are where there is one view."""
    if len(logits) == 1:
        return logits[0]
    log_p = [metrics.log_softmax(each) for each in logits]
    return log_mixture(log_p, [1 / len(logits)] * len(logits)).astype(np.float32)


@dataclass(frozen=True)
class Tried:
    """What all settings of some methods gave.

    Attributes:
        folds: the fold of each photo, shape (N,).
        heads: for each fold the heads that were learned without it, in one order for all.
        wrong_FMN: for each fold and each of its M heads whether each photo was named wrongly by a head
            of that setting that saw neither the photo's own fold nor that one.
        seconds: of all of it.
    """

    folds: IntArray
    heads: list[list[ImbalanceTrial]]
    wrong_FMN: BoolArray
    seconds: float

    def of(self, method: str) -> list[int]:
        """The numbers of a method's settings."""
        return [at for at, each in enumerate(self.heads[0]) if each.method == method]

    @property
    def own_MN(self) -> BoolArray:
        """Whether each photo was named wrongly by the heads of its own fold."""
        return self.wrong_FMN[self.folds, :, np.arange(len(self.folds))].T


def tried(work: Work, run: Run) -> Tried:
    """Every method's heads for a network; learned once, whatever the number of rows that ask."""
    classes = work.data.classes(run)
    key = ("tried", run.backbone, run.epochs, classes)
    if key not in work.memo:
        work.memo[key] = _try(work, run, classes)
    found: Tried = work.memo[key]
    return found


def _try(work: Work, run: Run, classes: tuple[str, ...]) -> Tried:
    photos = both(work)
    labelled = work.extractor.features(work.networks.of(run), photos, classes)
    folds = cross.folds(photos, cross.FOLDS, work.seed)
    start = time.perf_counter()
    heads: list[list[ImbalanceTrial]] = []
    wrong_FMN = np.empty((0, 0, 0), np.bool_)
    # A setting for a fold is chosen by heads that never saw it (nested cross-validation): so every two
    # folds are left out together once, and each of the two is measured on behalf of the other.
    for one, other in combinations_with_replacement(range(cross.FOLDS), 2):
        outside_N = (folds != one) & (folds != other)
        learn = labelled.where(outside_N)
        watched = labelled.where(folds == one) if one == other else None
        aside = _aside(labelled, photos, outside_N, work.seed)
        found = class_imbalance.fit_methods(
            learn, len(classes), training(work, run), _asked(work, run), watched, aside
        )
        if not wrong_FMN.size:
            wrong_FMN = np.ones((cross.FOLDS, len(found), len(photos)), np.bool_)
        for fold, beside in {(one, other), (other, one)}:
            rows = folds == beside
            measured = labelled.where(rows)
            for at, each in enumerate(found):
                answers = each.head.logits_of(measured.features).argmax(1)
                wrong_FMN[fold, at, rows] = answers != measured.labels
        if one == other:
            heads.append(found)
    return Tried(folds, heads, wrong_FMN, time.perf_counter() - start)


def _aside(
    labelled: LabelledFeatures, photos: LabelledPhotos, among_N: BoolArray, seed: int
) -> tuple[LabelledFeatures, LabelledFeatures]:
    """Some of the photos without a tenth of them, and that tenth; no group is torn."""
    aside_N = cross.choosing(photos, seed, among_N)
    return labelled.where(among_N & ~aside_N), labelled.where(aside_N)


def _asked(work: Work, run: Run) -> set[str]:
    """The methods of all rows that share this row's heads; `even` is one of the adjusted ones."""

    def shared(each: Run) -> tuple[Any, ...]:
        return each.mode, each.backbone, each.epochs, work.data.classes(each)

    names = {each.head for each in work.runs if shared(each) == shared(run)}
    return names | ({"adjusted"} if "even" in names else set())


def training(work: Work, run: Run) -> Training:
    """The same for all methods and in all folds."""
    return schedule(len(both(work)), work.seed, run.epochs)


def tail(work: Work, run: Run) -> Row:
    """A method for classes with few photos (`longtail.METHODS`, `plain`, `even`, or `masked`).

    A fold's setting is chosen by predictions in the other folds, of heads that saw neither. `even` is
    the plain head with its scores corrected to classes that are all equally frequent; `masked` is the
    plain head of all classes, asked only for those that are left after pruning.
    """
    if run.part == "test":
        return _tail_on_test(work, run)
    asked = work.data.all_of(run) if run.head == "masked" else run
    classes, photos, found = work.data.classes(asked), both(work), tried(work, asked)
    labelled = work.extractor.features(work.networks.of(run), photos, classes)
    scores_NC = np.empty((len(photos), len(classes)), np.float32)
    settings, curves = [], []
    for number, heads in enumerate(found.heads):
        rows = found.folds == number
        wrong_MN = found.wrong_FMN[number][:, ~rows]
        chosen = heads[_choice(work, run, found, labelled.labels[~rows], wrong_MN)]
        settings.append(chosen.setting)
        curves.append(chosen.curve)
        scores_NC[rows] = chosen.head.logits_of(labelled.where(rows).features)
    if run.head == "masked":
        scores_NC = scores_NC[:, [classes.index(each) for each in work.data.classes(run)]]
        curves = []  # they are of all classes
    row = folded_row(work, run, photos, scores_NC, found.seconds, curves)
    return {**row, "settings": [list(each) for each in dict.fromkeys(settings)]}


def _tail_on_test(work: Work, run: Run) -> Row:
    """The same on the test part: chosen by all folds, learned from all their photos."""
    classes, photos, found = work.data.classes(run), both(work), tried(work, run)
    network = work.networks.of(run)
    labelled = work.extractor.features(network, photos, classes)
    number = _choice(work, run, found, labelled.labels, found.own_MN)
    start = time.perf_counter()
    key = ("whole", run.backbone, run.epochs, classes)
    if key not in work.memo:
        how = training(work, run)
        every_N = np.ones(len(photos), np.bool_)
        aside = _aside(labelled, photos, every_N, work.seed)
        work.memo[key] = class_imbalance.fit_methods(
            labelled, len(classes), how, _asked(work, run), calibration=aside
        )
    chosen: ImbalanceTrial = work.memo[key][number]
    test = work.data.measured_on(run)
    scores_NC = chosen.head.logits_of(work.extractor.features(network, test, classes).features)
    row = folded_row(work, run, test, scores_NC, time.perf_counter() - start)
    return {**row, "settings": [list(chosen.setting)]}


def _choice(work: Work, run: Run, found: Tried, labels_N: IntArray, wrong_MN: BoolArray) -> int:
    """The number of the setting that a method takes, chosen by some photos' answers of each."""
    wrong_MN, labels_N = wrong_MN[:, labels_N >= 0], labels_N[labels_N >= 0]
    plain = min(found.of(PLAIN), key=lambda at: float(wrong_MN[at].mean()))
    if run.head in (PLAIN, "masked"):
        return plain
    rate = found.heads[0][plain].setting[0]
    if run.head == "even":
        heads = found.heads[0]
        return next(at for at in found.of("adjusted") if heads[at].setting == (rate, 1.0))
    counts = work.data.parts.train_counts()
    photos_C = np.array([counts[each] for each in work.data.classes(run)], np.int64)
    able = found.of(run.head)
    few_C = metrics.bands(photos_C, work.config.bands)["tail"]
    best = class_imbalance.choose_trial(list(wrong_MN[able]), wrong_MN[plain], labels_N, few_C)
    return able[best]


def folded_row(
    work: Work,
    run: Run,
    photos: LabelledPhotos,
    scores_NC: FloatArray,
    seconds: float,
    curves: Sequence[Sequence[Epoch]] = (),
) -> Row:
    """The row of a head on kept features, from its scores for some photos, shape (N, C), and the curve
    of each fold."""
    return row_of(
        work,
        run,
        Evaluation.of(photos, scores_NC, work.data.classes(run)),
        curve=mean_curve(curves),
        train_seconds=seconds,
        extract_seconds=cost_of(work.extractor, work.networks.of(run), len(photos)),
    )


def mean_curve(curves: Sequence[Sequence[Epoch]]) -> list[Epoch]:
    """The mean of the folds' curves, as far as all of them go."""
    means = (
        np.mean([astuple(each) for each in epoch], axis=0) for epoch in zip(*curves, strict=False)
    )
    return [Epoch(int(mean[0]), *map(float, mean[1:])) for mean in means]
