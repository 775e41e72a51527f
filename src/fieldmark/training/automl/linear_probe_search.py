"""Cross-validate the last layers of one candidate on cached features, and cache the results.

Each photo is predicted by a head that was trained without its fold. The candidate's own head is trained
on nine tenths of the photos, with a tenth for validation.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np

from fieldmark.data import cross_validation
from fieldmark.data.subset import DataSplits, LabelledPhotos
from fieldmark.heads import HEADS, class_imbalance
from fieldmark.heads.base import LinearHead
from fieldmark.heads.cross_validation import out_of_fold_logits
from fieldmark.training.automl.candidate import Candidate, TrialResult, training_and_validation
from fieldmark.utils import io
from fieldmark.utils.typing import DoubleArray, FloatArray, IntArray

NOTES = {
    "softmax": "",
    "logistic": "logistic regression",
    "ridge": "ridge",
    "ncm": "nearest class mean",
    "long": "100 epochs",
    "adjusted-loss": "logit adjustment in the loss",
    "balanced-sampling": "class-balanced sampling",
    "root-sampling": "square-root sampling",
    "re-training": "classifier re-training",
    "normalised": "tau-normalisation",
    "inverse-frequency": "loss weighted by inverse frequency",
    "effective-number": "loss weighted by effective number",
}
"""The kinds of head to try, names in `heads.HEADS`, and their names on a page ("" for the default).
Nearest neighbours are not a linear layer, so a classifier's folder cannot hold them."""

TAIL = tuple(kind for kind in NOTES if kind in class_imbalance.METHODS)
"""The kinds for rare classes."""

_ADJUSTMENTS = (0.5, 1.0)  # strengths of logit adjustment towards equally frequent classes
_FORMAT = 3  # of cached heads: raised when the same candidate would be trained differently


def fit_candidate(candidate: Candidate, parts: DataSplits, seed: int, kind: str) -> tuple[TrialResult, float]:
    """Cross-validate a candidate's heads, or read the cached result; return it with its seconds."""
    photos, classes = training_and_validation(parts), len(parts.classes)
    labelled = candidate.extractor.features(candidate.backbone, photos, parts.classes)
    path = cache_path(candidate, parts, seed, kind)
    kept = _read(path, (len(photos), classes))
    if kept is None:
        start = time.perf_counter()
        logits_NC = out_of_fold_logits(HEADS[kind], labelled, photos, classes, seed)
        kept = _fit(candidate, parts.classes, seed, kind, photos), logits_NC, time.perf_counter() - start
        _write(path, *kept)
    head, logits_NC, seconds = kept
    variant = kind not in ("softmax", "ridge")
    refit = partial(_fit, candidate, parts.classes, seed, kind)
    tried = TrialResult.of(
        candidate, NOTES[kind], head, logits_NC, labelled.labels, variant=variant, refit=refit
    )
    return tried, seconds


def _fit(
    candidate: Candidate, classes: Sequence[str], seed: int, kind: str, photos: LabelledPhotos
) -> LinearHead:
    """Fit the last layer on nine tenths of some photos, and choose by the rest."""
    labelled = candidate.extractor.features(candidate.backbone, photos, classes)
    choose_N = cross_validation.choosing(photos, seed, np.ones(len(photos), np.bool_))
    found = HEADS[kind](labelled.where(~choose_N), labelled.where(choose_N), len(classes), seed)
    return cast("LinearHead", found.head)


def logit_adjusted(done: TrialResult, labels_N: IntArray, count_C: IntArray) -> Iterator[TrialResult]:
    """Adjust the logits of a trial towards equally frequent classes."""
    log_prior_C = class_imbalance.prior(count_C)
    for strength in _ADJUSTMENTS:
        # In the units of the calibrated scores.
        raw = strength * done.temperature
        logits_NC = done.logits_NC - (raw * log_prior_C).astype(np.float32)
        head = class_imbalance.adjusted(done.head, log_prior_C, raw)
        note = f"classes evened by {strength:g}"
        refit = partial(_adjusted, done, log_prior_C, raw)
        yield TrialResult.of(done.candidate, note, head, logits_NC, labels_N, variant=True, refit=refit)


def _adjusted(done: TrialResult, log_prior_C: DoubleArray, raw: float, photos: LabelledPhotos) -> LinearHead:
    return class_imbalance.adjusted(done.fit_on(photos), log_prior_C, raw)


def cache_path(candidate: Candidate, parts: DataSplits, seed: int, kind: str) -> Path:
    """Return the file of a candidate's cached heads."""
    depends = [_FORMAT, kind, *cache_key(candidate, training_and_validation(parts), parts, seed)]
    return io.cache_dir() / "heads" / f"{io.digest(depends)[:32]}.safetensors"


def cache_key(candidate: Candidate, photos: LabelledPhotos, parts: DataSplits, seed: int) -> list[Any]:
    """Return everything that training depends on besides its settings, as JSON values."""
    rows = list(zip(photos.ids, [f.sha256 for f in photos.files], photos.taxon_ids, strict=True))
    where = [candidate.backbone.key, candidate.view.key(), candidate.extractor.dtype]
    return [where, rows, list(photos.groups), list(parts.classes), seed]


def _write(path: Path, head: LinearHead, logits_NC: FloatArray, seconds: float) -> None:
    from safetensors.numpy import save

    tensors = {**head.tensors(), "logits": logits_NC, "seconds": np.array([seconds])}
    io.write_bytes(path, save({n: np.ascontiguousarray(t) for n, t in tensors.items()}), seal=True)


def _read(path: Path, shape: tuple[int, int]) -> tuple[LinearHead, FloatArray, float] | None:
    """Read the cached head, logits and seconds; None where there are none, or they are damaged."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    with suppress(OSError, SafetensorError, KeyError):
        if not io.is_sealed(path):
            return None
        tensors = load(path.read_bytes())
        if tensors["logits"].shape == shape:
            head = LinearHead.from_tensors(tensors)
            return head, tensors["logits"], float(tensors["seconds"][0])
    return None
