"""Choose and measure the score that tells photos of none of the classes.

Near ones are photos of classes that were left out: all classes take a turn, in five groups. Far ones are
drawn pictures that come with the package. The kind of score with the better AUROC over both is taken; its
threshold is set on photos that were not learned from. Where it recognises neither, there is no flag.

Not among the candidates are scores that failed on real photos of other data sets, even where they
recognised left-out classes and drawn pictures: the energy and the maximum of the logits (AUROC 0.00 to
0.53), and sums of them with a cosine; nor those that were never better: the relative Mahalanobis distance
and the residual of ViM (Wang et al., 2022). See docs/classifier.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fieldmark.data.cross_validation import FOLDS
from fieldmark.data.photos import PhotoFile
from fieldmark.data.synthetic import probe
from fieldmark.evaluation import metrics
from fieldmark.features.labelled import LabelledFeatures
from fieldmark.inference.classifier.ood import MOST_PHOTOS, OodDetector, OodKind, nearest_cosine, unit
from fieldmark.utils import io
from fieldmark.utils.languages import number, say
from fieldmark.utils.random import order
from fieldmark.utils.typing import FloatArray, IntArray
from fieldmark.utils.wording import word

KNOWN_RECALL = 0.95
"""The share of photos of the classes that are not to be called unknown."""

KINDS: tuple[OodKind, ...] = ("class means", "nearest photos")

_GAIN = 0.02  # of the AUROC, by which a kind must be better than an earlier one
_FAR, _NEAR = 0.5, 0.2  # shares of far or near photos that must be flagged


@dataclass(frozen=True)
class KnownPhotos:
    """Photos of the classes, and what is known of them.

    Attributes:
        learned: photos that the classifier was trained on.
        held_out: photos that it was not trained on; None: the folds of the learned ones are used.
        fold_N: the fold of each learned photo, where `held_out` is None.
        classes_left_out: whether the features were computed by a network that has not seen the classes.
    """

    learned: LabelledFeatures
    held_out: LabelledFeatures | None
    fold_N: IntArray
    classes_left_out: bool


@dataclass(frozen=True)
class _Trial:
    """Scores of one kind: of known, near and far photos, in one round."""

    known_K: FloatArray
    near_M: FloatArray
    far_F: FloatArray


@dataclass(frozen=True)
class Chosen:
    """The chosen detector with its measures.

    Attributes:
        detector: None where no score recognises other photos.
        record: the measures, for `evaluation.json`.
        known_N: the scores of the held-out photos; in folds, of each learned photo by vectors of the other
            folds, NaN where its class is not in them.
    """

    detector: OodDetector | None
    record: dict[str, Any] | None
    known_N: FloatArray


def choose(photos: KnownPhotos, far_FD: FloatArray, classes: int, seed: int) -> Chosen:
    """Choose the kind of score, set its threshold and measure it.

    Args:
        photos: of the classes.
        far_FD: features of pictures that show none of them.
        classes: C.
        seed: of the groups of classes.
    """
    kinds = [kind for kind in KINDS if kind != "nearest photos" or len(photos.learned) <= MOST_PHOTOS]
    group_C = np.empty(classes, np.int64)
    group_C[order([str(number) for number in range(classes)], "unknown", seed)] = np.arange(classes) % FOLDS
    trials = {kind: [t for t in _trials(kind, photos, far_FD, group_C) if len(t.known_K)] for kind in kinds}
    measured = {kind: _measured(each) for kind, each in trials.items() if each}
    if not measured:
        return Chosen(None, None, np.empty(0, np.float32))
    best = _best(measured)
    known_N = _known_scores(best, photos)
    works = (measured[best]["far_flagged"] or 0.0) >= _FAR or (measured[best]["flagged"] or 0.0) >= _NEAR
    threshold = metrics.score_at_recall(known_N[~np.isnan(known_N)], KNOWN_RECALL)
    detector = OodDetector(best, threshold, _vectors(best, photos.learned)) if works else None
    near = sum(len(trial.near_M) for trial in trials[best])
    record: dict[str, Any] = {
        "score": best if works else None,
        "classes_left_out": classes if near else 0,
        "known": int(sum(len(trial.known_K) for trial in trials[best])),
        "unknown": near,
        "far": len(far_FD),
        "kinds": measured,
    }
    return Chosen(detector, record | {"said": in_words(record)}, known_N)


def _known_scores(kind: OodKind, photos: KnownPhotos) -> FloatArray:
    """The scores of known photos by vectors of others, see `Chosen`."""
    learned = photos.learned
    if photos.held_out is not None:
        return nearest_cosine(photos.held_out.features[slice(None)], _vectors(kind, learned))
    found_N = np.full(len(learned), np.nan, np.float32)
    for fold in range(FOLDS):
        rest = learned.where(photos.fold_N != fold)
        if len(rest):
            rows_M = np.flatnonzero((photos.fold_N == fold) & np.isin(learned.labels, rest.labels))
            found_N[rows_M] = nearest_cosine(learned.features[rows_M], _vectors(kind, rest))
    return found_N


def _trials(kind: OodKind, photos: KnownPhotos, far_FD: FloatArray, group_C: IntArray) -> Iterator[_Trial]:
    """Leave each group of classes out in turn, with a fold of the photos of the others."""
    learned, held_out = photos.learned, photos.held_out
    if not photos.classes_left_out:
        if held_out is not None and len(held_out):
            yield _trial(kind, learned, held_out, None, far_FD)
        return
    for group in range(min(FOLDS, len(group_C))):
        left_out_N = group_C[learned.labels] == group
        apart_N = photos.fold_N == group if held_out is None else np.zeros(len(learned), np.bool_)
        rest = learned.where(~left_out_N & ~apart_N)
        if len(np.unique(rest.labels)) < 2:
            continue
        known = learned.where(apart_N & ~left_out_N) if held_out is None else held_out
        known = known.where(np.isin(known.labels, rest.labels))
        yield _trial(kind, rest, known, learned.where(left_out_N), far_FD)


def _trial(
    kind: OodKind,
    learned: LabelledFeatures,
    known: LabelledFeatures,
    near: LabelledFeatures | None,
    far_FD: FloatArray,
) -> _Trial:
    vectors = _vectors(kind, learned)
    near_MD = near.features[slice(None)] if near is not None else far_FD[:0]
    known_KD = known.features[slice(None)]
    return _Trial(*(nearest_cosine(each, vectors) for each in (known_KD, near_MD, far_FD)))


def _vectors(kind: OodKind, photos: LabelledFeatures) -> FloatArray:
    """The unit vectors that a photo is compared with, rounded to float16 as they are stored."""
    if kind == "nearest photos":
        vectors = unit(photos.features[slice(None)])
    else:
        present, column_N = np.unique(photos.labels, return_inverse=True)
        sums = np.zeros((len(present), photos.features.dim))
        for start, x_BD in photos.features.blocks():
            np.add.at(sums, column_N[start : start + len(x_BD)], x_BD)
        vectors = unit(sums.astype(np.float32))
    return vectors.astype(np.float16).astype(np.float32)


def _measured(trials: list[_Trial]) -> dict[str, float | None]:
    """The AUROC and the share that is flagged where 95 % of known photos pass: means of the rounds."""
    far = [(trial.known_K, trial.far_F) for trial in trials]
    near = [(trial.known_K, trial.near_M) for trial in trials if len(trial.near_M)]

    def mean(
        measure: Callable[[FloatArray, FloatArray], float], pairs: list[tuple[FloatArray, FloatArray]]
    ) -> float:
        return float(np.mean([measure(*pair) for pair in pairs]))

    def flagged(known: FloatArray, other: FloatArray) -> float:
        return 1 - metrics.false_positive_rate(known, other, KNOWN_RECALL)

    return {
        "auroc": mean(metrics.auroc, near) if near else None,
        "flagged": mean(flagged, near) if near else None,
        "far_auroc": mean(metrics.auroc, far),
        "far_flagged": mean(flagged, far),
    }


def _best(measured: Mapping[OodKind, Mapping[str, float | None]]) -> OodKind:
    """The kind with the best AUROC over near and far photos; an earlier one unless a later gains enough."""
    best = next(iter(measured))
    for kind, found in measured.items():
        if _total(found) > _total(measured[best]) + _GAIN:
            best = kind
    return best


def _total(found: Mapping[str, float | None]) -> float:
    return (found["far_auroc"] or 0.0) + (found["auroc"] or 0.0)


def in_words(record: Mapping[str, Any]) -> str:
    """Say what the flag recognises, from the measures of `Chosen`."""
    kind = _best(record["kinds"])
    found = record["kinds"][kind]
    near: float | None = found["flagged"]
    values = {"kind": word(kind), "far": number(100 * (found["far_flagged"] or 0.0))}
    if near is None:
        told = say("compared with {kind}, {far} % of drawn pictures of something else are flagged", **values)
    else:
        told = say(
            "compared with {kind}, {far} % of drawn pictures of something else and {near} % of photos of "
            "classes that were left out are flagged",
            near=number(100 * near),
            **values,
        )
    if record["score"] is None:
        return say("No out-of-distribution flag: even {told}, where 95 % of known photos pass.", told=told)
    said = say("Where 95 % of known photos pass, {told}.", told=told)
    if near is not None and near < _NEAR:
        said += " " + say("It does not recognise species that resemble those that it knows.")
    return said


def far_files() -> list[PhotoFile]:
    """Return the drawn pictures that show none of the classes."""
    return [PhotoFile(io.file_digest(path), path) for path in probe.pictures()]
