"""A small network of place and time, which the benchmark `places` compares with the kernel of the package.

A residual network of sines and cosines of latitude, longitude and day gives each class a probability. It is
learned as that of Cole and others, "Spatial implicit neural representations for global-scale species
mapping" (2023), by their full assume-negative loss: at an occurrence all other classes count as absent, and
at random places all do. What counts here is the share of each class among all. It was better nowhere, so it
is no part of the package.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fieldmark.data.cross_validation import FOLDS
from fieldmark.data.locations import Locations
from fieldmark.evaluation import intervals
from fieldmark.evaluation.location_prior import FLOOR
from fieldmark.utils import random
from fieldmark.utils.typing import DoubleArray, FloatArray, IntArray

WIDTH, BLOCKS = 64, 2
"""Units of a layer, and residual blocks of two layers each."""
SMOOTHING = (0.01, 0.03, 0.1, 0.3, 1.0)
"""What the frequencies overall count beside the sum of all probabilities."""
INPUTS = 5
_STEPS, _BATCH, _RATE, _DECAY = 600, 128, 3e-3, 0.05
_YEAR = 365.25
_BLOCK = 4096  # rows at once

Weights = Mapping[str, FloatArray]


def _unit(at: Locations) -> DoubleArray:
    """Compute points on the unit sphere, shape (N, 3): without a seam at the date line or the poles."""
    latitude_N, longitude_N = np.radians(at.latitude_N), np.radians(at.longitude_N)
    flat_N = np.cos(latitude_N)
    return np.stack([flat_N * np.cos(longitude_N), flat_N * np.sin(longitude_N), np.sin(latitude_N)], 1)


@dataclass(frozen=True, eq=False)
class NetworkPrior:
    """The frequencies of classes by place and time of the year, by a network.

    Attributes:
        weights: `in`, `block-1-a` ... `out` with `.weight` (inputs, units) and `.bias`; `centre` (3,) and
            `spread` (1,) of the occurrences, to whose scale places are brought; `overall` (C,), the
            frequencies of the classes overall.
        smoothing: see `SMOOTHING`.
    """

    weights: Weights
    smoothing: float = 0.1

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return len(self.weights["overall"])

    @property
    def overall_C(self) -> DoubleArray:
        """The frequencies of the classes overall; they sum to 1."""
        raw_C = self.weights["overall"].astype(np.float64)
        found: DoubleArray = raw_C / raw_C.sum()
        return found

    def presence(self, at: Locations) -> FloatArray:
        """Compute the probability of each class to be present, shape (Q, C)."""
        found = np.empty((len(at), self.classes), np.float32)
        for start in range(0, len(at), _BLOCK):
            rows = np.arange(start, min(start + _BLOCK, len(at)))
            hidden = _hidden(self.weights, inputs(self.weights, at.where(rows)))[-1]
            found[rows] = _sigmoid(hidden @ self.weights["out.weight"] + self.weights["out.bias"])
        return found

    def probabilities(self, at: Locations) -> DoubleArray:
        """Compute the frequencies at some places and days, shape (Q, C), which sum to 1.

        None is below `FLOOR` times that overall; at an unknown place all are as overall.
        """
        known_N = at.known_N
        p_QC = np.tile(self.overall_C, (len(at), 1))
        p_QC[known_N] = shares(self.presence(at.where(known_N)), self.overall_C, self.smoothing)
        return p_QC


def shares(presence_QC: FloatArray, overall_C: DoubleArray, smoothing: float) -> DoubleArray:
    """Compute frequencies from the probabilities of presence, drawn to those overall where all are low."""
    sums_Q1 = presence_QC.sum(axis=1, keepdims=True, dtype=np.float64)
    p_QC = (presence_QC + smoothing * overall_C) / (sums_Q1 + smoothing)
    found: DoubleArray = FLOOR * overall_C + (1 - FLOOR) * p_QC
    return found


def inputs(weights: Weights, at: Locations) -> FloatArray:
    """Compute the inputs of the network, shape (N, 5); an unknown day is the middle of the year's circle."""
    place_N3 = (_unit(at) - weights["centre"]) / weights["spread"]
    turn_N, known_N = 2 * np.pi * at.day_N / _YEAR, at.day_N > 0
    found = np.column_stack([place_N3, np.sin(turn_N) * known_N, np.cos(turn_N) * known_N])
    return found.astype(np.float32)


def _sigmoid(logits: FloatArray) -> FloatArray:
    found = 1 / (1 + np.exp(-np.clip(logits, -30, 30)))
    return found.astype(np.float32, copy=False)


def _layers() -> list[str]:
    return ["in", *(f"block-{n}-{part}" for n in range(1, BLOCKS + 1) for part in "ab"), "out"]


def _hidden(weights: Weights, x_N5: FloatArray) -> list[FloatArray]:
    """Compute the outputs of all layers but the last; those of a block's second one with what came in."""
    found = [x_N5]
    for name in _layers()[:-1]:
        out = np.maximum(found[-1] @ weights[f"{name}.weight"] + weights[f"{name}.bias"], 0)
        found.append(out + found[-2] if name.endswith("b") else out)
    return found


def _gradients(weights: Weights, hidden: list[FloatArray], out_NC: FloatArray) -> dict[str, FloatArray]:
    """Compute the gradients of the weights from those of the logits."""
    found = {"out.weight": hidden[-1].T @ out_NC, "out.bias": out_NC.sum(axis=0)}
    back = out_NC @ weights["out.weight"].T
    for number in range(BLOCKS, 0, -1):
        first, middle, last = hidden[2 * number - 1 : 2 * number + 2]
        second = back * (last > first)  # where the second layer is above 0
        found[f"block-{number}-b.weight"], found[f"block-{number}-b.bias"] = (
            middle.T @ second,
            second.sum(axis=0),
        )
        inner = (second @ weights[f"block-{number}-b.weight"].T) * (middle > 0)
        found[f"block-{number}-a.weight"], found[f"block-{number}-a.bias"] = (
            first.T @ inner,
            inner.sum(axis=0),
        )
        back = back + inner @ weights[f"block-{number}-a.weight"].T
    back = back * (hidden[1] > 0)
    return found | {"in.weight": hidden[0].T @ back, "in.bias": back.sum(axis=0)}


def fit(locations: Locations, class_N: IntArray, classes: int, seed: int = 0) -> NetworkPrior:
    """Learn the network by Adam, in 600 batches of occurrences and of as many random places.

    Args:
        locations: of N occurrences, all with a place.
        class_N: the class of each.
        classes: how many there are.
        seed: of weights, batches and random places.
    """
    rng = random.generator(seed, "location network")
    weights = _begin(locations, class_N, classes, rng)
    x_N5, sizes = inputs(weights, locations), {name: each for name, each in weights.items() if "." in name}
    mean = {name: np.zeros_like(each) for name, each in sizes.items()}
    square = {name: np.zeros_like(each) for name, each in sizes.items()}
    rows_B = np.arange(_BATCH)
    for step in range(1, _STEPS + 1):
        drawn_B = rng.integers(len(class_N), size=_BATCH)
        random_B5 = inputs(weights, _anywhere(locations, rng))
        hidden = _hidden(weights, np.concatenate([x_N5[drawn_B], random_B5]))
        p_NC = _sigmoid(hidden[-1] @ weights["out.weight"] + weights["out.bias"])
        # Of the loss -log p of the class, `classes` times, and -log (1 - p) of all others, and at random.
        p_NC[rows_B, class_N[drawn_B]] = classes * (p_NC[rows_B, class_N[drawn_B]] - 1)
        rate = _RATE * 0.5 * (1 + np.cos(np.pi * step / _STEPS))
        for name, gradient in _gradients(weights, hidden, p_NC / np.float32(_BATCH * classes)).items():
            mean[name] += 0.1 * (gradient - mean[name])
            square[name] += 0.001 * (gradient**2 - square[name])
            move = mean[name] / (1 - 0.9**step) / (np.sqrt(square[name] / (1 - 0.999**step)) + 1e-8)
            decay = _DECAY * weights[name] if name.endswith("weight") else 0
            weights[name] = (weights[name] - rate * (move + decay)).astype(np.float32)
    return NetworkPrior(weights)


def fitted(
    locations: Locations, class_N: IntArray, classes: int, places: Sequence[str], seed: int = 0
) -> NetworkPrior:
    """Learn the network, with the smoothing that has the least cross-entropy on places that were left out."""
    whole = fit(locations, class_N, classes, seed)
    unit_N = intervals.units(places, len(class_N))
    order = random.generator(seed, "prior folds").permutation(int(unit_N.max()) + 1)
    fold_N = order[unit_N] % FOLDS
    presence_NC = np.zeros((len(class_N), classes), np.float32)
    for fold in range(FOLDS):
        here_N, learn_N = fold_N == fold, fold_N != fold
        if here_N.any() and learn_N.any():
            part = fit(locations.where(learn_N), class_N[learn_N], classes, seed)
            presence_NC[here_N] = part.presence(locations.where(here_N))

    def loss(smoothing: float) -> float:
        p_NC = shares(presence_NC, whole.overall_C, smoothing)
        return -float(np.log(p_NC[np.arange(len(class_N)), class_N]).mean())

    return replace(whole, smoothing=min(SMOOTHING, key=loss))


def shapes(classes: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of each of a network's `weights`."""
    found: dict[str, tuple[int, ...]] = {"centre": (3,), "spread": (1,), "overall": (classes,)}
    for name in _layers():
        units = classes if name == "out" else WIDTH
        found[f"{name}.weight"] = (INPUTS if name == "in" else WIDTH, units)
        found[f"{name}.bias"] = (units,)
    return found


def _begin(
    locations: Locations, class_N: IntArray, classes: int, rng: np.random.Generator
) -> dict[str, FloatArray]:
    unit_N3 = _unit(locations)
    centre = unit_N3.mean(axis=0)
    spread = max(float(np.sqrt(((unit_N3 - centre) ** 2).sum(axis=1).mean() / 2)), 1e-4)
    count_C = np.bincount(class_N, minlength=classes)
    found: dict[str, DoubleArray] = {
        "centre": centre,
        "spread": np.array([spread]),
        "overall": (count_C + 1.0) / (len(class_N) + classes),
    }
    for name, shape in shapes(classes).items():
        if name.endswith(".weight"):
            gain = 1 if name == "out.weight" else 2  # He's, of a layer with a rectifier
            found[name] = rng.normal(0, (gain / shape[0]) ** 0.5, shape)
        elif name.endswith(".bias"):
            found[name] = np.zeros(shape)
    return {name: each.astype(np.float32) for name, each in found.items()}


def _anywhere(locations: Locations, rng: np.random.Generator) -> Locations:
    """Draw random places: half around occurrences, as far as they are spread, half at them, on any day."""
    rows = rng.integers(len(locations), size=_BATCH)
    near = locations.where(rows)
    wide = 1 + 2 * float(np.std(locations.latitude_N))
    apart_2B = rng.normal(0, wide, (2, _BATCH)) * (np.arange(_BATCH) % 2)
    latitude_B = np.clip(near.latitude_N + apart_2B[0], -90, 90)
    longitude_B = near.longitude_N + apart_2B[1] / np.maximum(np.cos(np.radians(latitude_B)), 0.1)
    day_B = np.where(near.day_N > 0, rng.integers(1, 366, _BATCH), 0)
    return Locations(latitude_B, longitude_B, day_B)
