"""Measure features to a trained last layer: the default head against scikit-learn's LogisticRegression.

    python -m benchmarks heads
    python -m benchmarks.heads PHOTOS FEATURES CLASSES [ROUNDS]

Both are trained on the same standardised features with the same number of threads (OMP_NUM_THREADS), in
turn. The peer is the usual choice: lbfgs until it converges, once for each C of a grid, the best on the
validation photos; its time is that of the whole grid, as ours is of everything that is tried. The
generated features resemble those of a network's last pooling: class means that share a genus,
correlated and heavy-tailed noise, rectified and averaged over positions; classes are long-tailed. The
aim is a loss no higher in at most a fifth of the peer's time.
"""

from __future__ import annotations

import sys
import time
import warnings
from dataclasses import replace

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from benchmarks import common
from benchmarks.common import Row
from fieldmark.features.cache import Features
from fieldmark.features.labelled import LabelledFeatures
from fieldmark.heads import HEADS
from fieldmark.heads.base import Scaling

SIZES = ((5_000, 512, 200, common.ROUNDS), (20_000, 2_048, 1_000, common.ROUNDS))
"""Photos, features, classes, rounds; one round of the larger takes over two minutes."""

QUICK = ((600, 32, 10, 1),)
PEER = "scikit-learn LogisticRegression, best of its grid"

GRID = (0.01, 0.1, 1.0, 10.0)
RANK, POSITIONS = 64, 4


def drawn(photos: int, dim: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Generate features x_ND and labels y_N; the classes are the same for every seed."""
    fixed, chance = np.random.default_rng(0), np.random.default_rng(seed + 1)
    genera = fixed.normal(size=(max(2, classes // 5), RANK))
    mean_CR = 0.8 * genera[fixed.integers(0, len(genera), classes)]
    mean_CR += 0.6 * fixed.normal(size=(classes, RANK))
    mix_RD = fixed.normal(size=(RANK, dim)) * np.exp(0.5 * fixed.normal(size=dim)) / RANK**0.5
    offset_D = 0.5 * fixed.normal(size=dim) - 0.5
    noise_RR = fixed.normal(size=(RANK, RANK)) / np.arange(1, RANK + 1)[:, None] ** 0.5
    weight_C = 1 / np.arange(1, classes + 1) ** 0.6
    y_N = chance.choice(classes, photos, p=weight_C / weight_C.sum())
    x_ND = np.zeros((photos, dim), np.float32)
    for start in range(0, photos, 2048):
        rows = slice(start, start + 2048)
        count = len(y_N[rows])
        whole = mean_CR[y_N[rows]] + 0.6 * chance.standard_t(5, (count, RANK)) @ noise_RR
        for _ in range(POSITIONS):
            at = whole + 0.7 * chance.standard_t(4, (count, RANK))
            alone = 0.5 * chance.standard_normal((count, dim), np.float32)
            grey = (at @ mix_RD + offset_D).astype(np.float32) + alone
            x_ND[rows] += np.maximum(grey, 0) / POSITIONS
    return x_ND, y_N


def labelled(
    photos: int, dim: int, classes: int, seed: int, scaling: Scaling | None
) -> tuple[LabelledFeatures, Scaling]:
    """Generate features, standardised like the training photos."""
    x_ND, y_N = drawn(photos, dim, classes, seed)
    scaling = scaling or Scaling.of(Features.of(x_ND))
    x_ND = scaling.apply(x_ND)
    ids = tuple(f"{seed}-{number}" for number in range(photos))
    return LabelledFeatures(Features.of(x_ND), y_N, ids), scaling


def loss_and_error(s_NC: np.ndarray, y_N: np.ndarray) -> tuple[float, float]:
    s = torch.from_numpy(s_NC)
    loss = torch.nn.functional.cross_entropy(s, torch.from_numpy(y_N))
    return float(loss), float((s_NC.argmax(1) != y_N).mean())


def peer(train: LabelledFeatures, val: LabelledFeatures, classes: int) -> dict[str, float]:
    """Return the best of the grid, the time of the whole grid, and of its best C alone."""
    x_ND, v_ND = train.features[slice(None)], val.features[slice(None)]
    tried = []
    for strength in GRID:
        start = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            model = LogisticRegression(C=strength, max_iter=5000).fit(x_ND, train.labels)
        seconds = time.perf_counter() - start
        s_NC = np.full((len(val), classes), -30.0, np.float32)  # classes without a photo
        s_NC[:, model.classes_] = v_ND @ model.coef_.T + model.intercept_
        loss, error = loss_and_error(s_NC, val.labels)
        tried.append({"loss": loss, "error": error, "best_c": strength, "best_alone": seconds})
    best = min(tried, key=lambda each: each["loss"])
    return best | {"seconds": sum(each["best_alone"] for each in tried)}


def ours(name: str, train: LabelledFeatures, val: LabelledFeatures, classes: int) -> dict[str, float]:
    """Return the same for one of our heads."""
    found = HEADS[name](train, val, classes, 0)
    loss, error = loss_and_error(found.head.logits_of(val.features), val.labels)
    return {"loss": loss, "error": error, "seconds": found.seconds}


def measure(photos: int, dim: int, classes: int, rounds: int) -> list[Row]:
    """Measure time and validation loss at one size."""
    train, scaling = labelled(photos, dim, classes, 1, None)
    val, _ = labelled(photos // 5, dim, classes, 2, scaling)
    found: dict[str, dict[str, float]] = {}

    def way(name: str) -> float:
        if name == PEER:
            found[name] = peer(train, val, classes)
        else:
            found[name] = ours(name, train, val, classes)
        return found[name]["seconds"]

    names = ("softmax", "ridge", PEER)
    values = common.alternate({name: lambda name=name: way(name) for name in names}, rounds)
    size = f"{photos:,} photos, {dim:,} features, {classes:,} classes"
    rows = []
    for name in names[:2]:
        more = {"ours": found[name], "peer": found[PEER], "threads": torch.get_num_threads()}
        aim = 5.0 if name == "softmax" else None
        what = f"{name}: time, {size}"
        rows.append(common.compare(what, values, name, PEER, aim=aim, more=more))
        losses = {each: [found[each]["loss"]] for each in (name, PEER)}
        what = f"{name}: validation loss, {size}"
        exact = common.compare(what, losses, name, PEER, unit="nats", aim=aim and 1.0)
        rows.append(replace(exact, rounds=common.EXACT))
    return rows


def run(quick: bool = False) -> list[Row]:
    """Return two rows, time and loss, for each head and size."""
    return [row for size in (QUICK if quick else SIZES) for row in measure(*size)]


if __name__ == "__main__":
    photos, dim, classes, *rounds = map(int, sys.argv[1:])
    print(common.table("heads", measure(photos, dim, classes, *(rounds or [1]))))
