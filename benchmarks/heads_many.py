"""Measure a step of sampled softmax for many classes against PyTorch's linear layer with AdamW.

Generated features of 1,280 numbers (as of tf_efficientnet_lite0), batches of 512. Every variant runs in
a process of its own, for its peak memory; the features themselves are small.
At 1,000 classes both are trained to the end on generated photos of overlapping classes, and their
errors on others are compared: there the full softmax is as fast, and sampling gains nothing.

The last rows are as wide as the paper's: 1,010 classes of 2,048 features, three settings, from a memory map
in float16. Ours trains the settings in one sweep; the peer one after the other, in batches of the same size.
An epoch of few photos is measured; ten of all 241,418 are as many times as long as they have more batches.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.common import EXACT, Row, alternate, compare, elsewhere, peak_gib, rounds
from fieldmark.features.cache import Features
from fieldmark.features.labelled import LabelledFeatures
from fieldmark.heads import sampled_softmax
from fieldmark.heads.softmax import Hyperparameters, Training, fit_sweep

DIM, BATCH = 1_280, 512
CLASSES = (1_000, 10_000, 100_000)
STEPS = 3
OURS_SWEEP, RATES = "softmax, one sweep", (3e-4, 1e-3, 3e-3)
WIDE, PHOTOS, SETTINGS = (2_048, 1_010), 2_048, len(RATES)
WHOLE = 241_418
OURS, PEER = "drawn classes", "nn.Linear, cross_entropy, AdamW"


Step = Callable[[np.ndarray, np.ndarray], object]


def run(quick: bool = False) -> list[Row]:
    """Measure seconds per step, peak memory, and the error at 1,000 classes."""
    found = []
    for classes in (100, 1_000) if quick else CLASSES:
        memory: dict[str, list[float]] = {OURS: [], PEER: []}

        def way(name: str, classes: int = classes, memory: dict[str, list[float]] = memory) -> float:
            said = elsewhere("heads_many", name, classes)
            memory[name].append(said["mib"])
            return said["seconds"]

        values = alternate({n: (lambda n=n: way(n)) for n in (OURS, PEER)}, rounds(quick))
        found.append(compare(f"a step, {classes:,} classes", values, OURS, PEER, unit="s"))
        found.append(compare(f"peak memory, {classes:,} classes", memory, OURS, PEER, unit="MiB"))
    for batch in (64, BATCH):
        found += _sweeps(batch, 256 if quick else PHOTOS, rounds(quick))
    return [*found, *_errors(quick)]


def _sweeps(batch: int, photos: int, rounds_: int) -> list[Row]:
    memory: dict[str, list[float]] = {OURS_SWEEP: [], PEER: []}

    def way(name: str) -> float:
        said = elsewhere("heads_many", name, batch, photos)
        memory[name].append(said["mib"])
        return said["seconds"]

    values = alternate({n: (lambda n=n: way(n)) for n in memory}, rounds_)
    what = f"{SETTINGS} settings, {WIDE[1]:,} classes, {WIDE[0]:,} features, batches of {batch}"
    hours = {n: float(np.median(each)) * 10 * WHOLE / photos / 3600 for n, each in values.items()}
    note = (
        f"{photos:,} photos, 1 epoch; 10 epochs of {WHOLE:,}, computed: {hours[OURS_SWEEP]:.2f} h and "
        f"{hours[PEER]:.2f} h"
    )
    return [
        compare(what, values, OURS_SWEEP, PEER, unit="s", aim=4.0, note=note),
        compare(f"peak memory, {what}", memory, OURS_SWEEP, PEER, unit="MiB"),
    ]


def _sweep(way: str, batch: int, photos: int) -> dict[str, float]:
    """Train one epoch of all settings on features in a memory map."""
    dim, classes = WIDE
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vectors.bin"
        with path.open("wb") as handle:
            for _ in range(0, photos, 1024):
                handle.write(rng.normal(size=(1024, dim)).astype(np.float16).tobytes())
        x_ND = np.memmap(path, np.float16, "r", shape=(photos, dim))
        y_N = rng.integers(0, classes, photos)
        train = LabelledFeatures(Features.of(x_ND), y_N, tuple(map(str, range(photos))))
        none = train.where(np.zeros(photos, np.bool_))
        # The first step of an optimiser imports PyTorch's compiler, which is not what is compared.
        _full(2, 2)(np.zeros((1, 2), np.float32), np.zeros(1, np.int64))
        start = time.perf_counter()
        if way == OURS_SWEEP:
            settings = [Hyperparameters(rate) for rate in RATES]
            fit_sweep(train, none, classes, Training(1, batch), settings)
        else:
            for rate in RATES:
                step = _full(classes, dim, rate)
                order = rng.permutation(photos)
                for at in range(0, photos, batch):
                    index = order[at : at + batch]
                    step(train.features[index], y_N[index])
        return {"seconds": time.perf_counter() - start, "mib": 1024 * peak_gib()}


def _one(way: str, classes: int) -> dict[str, float]:
    rng = np.random.default_rng(0)
    x_BD = rng.normal(size=(BATCH, DIM)).astype(np.float32)
    labels = [rng.integers(0, classes, BATCH) for _ in range(STEPS)]
    step = _drawn(classes) if way == OURS else _full(classes)
    seconds = []
    for y_B in labels:
        start = time.perf_counter()
        step(x_BD, y_B)
        seconds.append(time.perf_counter() - start)
    return {"seconds": float(np.median(seconds[1:])), "mib": 1024 * peak_gib()}


def _drawn(classes: int) -> Step:
    count_C = np.full(classes, 50)
    return sampled_softmax.Sampled(count_C, DIM, Training(epochs=1, batch_size=BATCH), 1e-3).update


def _full(classes: int, dim: int = DIM, rate: float = 1e-3) -> Step:
    import torch
    from torch.nn import functional

    layer = torch.nn.Linear(dim, classes)
    optimiser = torch.optim.AdamW(layer.parameters(), rate)

    def step(x_BD: np.ndarray, y_B: np.ndarray) -> None:
        optimiser.zero_grad()
        logits = layer(torch.from_numpy(x_BD))
        functional.cross_entropy(logits, torch.from_numpy(y_B)).backward()
        optimiser.step()

    return step


def _errors(quick: bool) -> list[Row]:
    photos, classes, dim = (2_000, 50, 32) if quick else (20_000, 1_000, 64)
    train, val = (_blobs(photos // part, classes, dim, part) for part in (1, 4))
    training = Training(epochs=6, batch_size=128)
    full = fit_sweep(train, val, classes, training, [Hyperparameters(1e-2)])
    drawn = sampled_softmax.fit_sweep(
        train, val, classes, training, [Hyperparameters(1e-2)], drawn=classes // 8
    )
    ours, theirs = (min(each, key=lambda fit: fit.val_loss).curve[-1] for each in (drawn, full))
    what = f"error, {classes:,} classes, {classes // 8:,} drawn a step"
    spread = 1.96 * (ours.val_error * (1 - ours.val_error) / len(val)) ** 0.5
    note = f"plus or minus {spread:.4f} (95 %); losses {ours.val_loss:.3f} and {theirs.val_loss:.3f}"
    ratio = theirs.val_error / max(ours.val_error, 1e-9)
    peer = "softmax over all classes"
    return [Row(what, "", ours.val_error, theirs.val_error, peer, ratio, ratio, ratio, EXACT, note=note)]


def _blobs(photos: int, classes: int, dim: int, seed: int) -> LabelledFeatures:
    centres = np.random.default_rng(0).normal(size=(classes, dim)) * 0.55
    rng = np.random.default_rng(seed)
    y_N = rng.integers(0, classes, photos)
    x_ND = (centres[y_N] + rng.normal(size=(photos, dim))).astype(np.float32)
    return LabelledFeatures(Features.of(x_ND), y_N, tuple(f"{seed}-{at}" for at in range(photos)))


if __name__ == "__main__":
    one = _one if len(sys.argv) == 3 else _sweep
    print(json.dumps(one(sys.argv[1], *map(int, sys.argv[2:]))))
