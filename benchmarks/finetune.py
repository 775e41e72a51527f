"""Measure a step of fine-tuning against timm's parts in a plain PyTorch loop.

    python -m benchmarks finetune

Both train all layers of EfficientNet-Lite0 by the recipe `finetune.good`: timm's random crop, flip and
RandAugment of that strength, label smoothing, lower rates for earlier layers, AdamW, gradient clipping,
a running mean of the weights, BatchNorm with frozen statistics. The peer follows timm's documentation:
a DataLoader with one worker per core, channels-last tensors, one batch per update. Two more rows
compare the recipe with a batch of 32 in one part instead of two, and with half precision.

Pixels are random, of 256 x 256, and in memory for both: no figure includes reading photos. A round is
one epoch of a few batches without the first, which waits for its photos and initialises libraries.

Further rows are the peak memory of two updates in a process of its own, beyond that before them: with
activation checkpointing and with low-rank updates, against all layers; the seconds stand in the note.
"""

from __future__ import annotations

import copy
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

from benchmarks import common
from benchmarks.common import Row
from fieldmark import models
from fieldmark.data.loader import LabelledCrops
from fieldmark.models import import_torchvision
from fieldmark.training.finetune import FineTuning, good
from fieldmark.training.finetune.data import batches
from fieldmark.training.finetune.layers import set_modes
from fieldmark.training.finetune.memory_estimate import estimate
from fieldmark.training.finetune.step import Updater

NETWORK, CLASSES, STORED = "tf_efficientnet_lite0", 74, 256
PEER = "timm's parts in a plain PyTorch loop"
_AREA = (0.35, 1.0)  # the share of a photo in a crop, as ours
_LARGE = ("tf_efficientnet_lite0", "vit_small_patch16_224")
_LESS = {"checkpointing": {"checkpointing": True}, "low-rank updates": {"transfer": "low-rank"}}
_LESS["both"] = _LESS["checkpointing"] | _LESS["low-rank updates"]
_TIMED = 1  # batches per round after the first: some minutes in total on two cores


def run(quick: bool = False) -> list[Row]:
    """Return the seconds per update, compared with the peer and with two other choices of the recipe."""
    import_torchvision()
    how = replace(good("all", epochs=1), **({"batch_size": 4} if quick else {}))
    photos = _photos(how.batch_size * (_TIMED + 1))
    network = models.load(NETWORK, weights="random").trainable(CLASSES, 0)
    side = 64 if quick else 224
    others = {
        "ours, a batch in one part": replace(how, accumulate=1),
        "ours, in bfloat16": replace(how, precision="bfloat16"),
    }
    ways = {
        "ours": _ours(copy.deepcopy(network), photos, how, side),
        PEER: _theirs(copy.deepcopy(network.network), photos, how, side),
        **{name: _ours(copy.deepcopy(network), photos, other, side) for name, other in others.items()},
    }
    values = common.alternate(ways, common.rounds(quick))
    what = f"a step at {side} x {side}, {how.batch_size} photos"
    rows = [common.compare(what, values, "ours", peer, note=NETWORK) for peer in (PEER, *others)]
    return rows + [each for name in (("test_vit",) if quick else _LARGE) for each in _memory(name, quick)]


def _memory(name: str, quick: bool = False) -> Iterator[Row]:
    """Compare the peak memory of the ways that take less with that of all layers."""
    whole = common.elsewhere("finetune", name, "{}")
    for way, changes in islice(_LESS.items(), 1 if quick else None):
        found = common.elsewhere("finetune", name, json.dumps(changes))
        ratio = whole["mib"] / found["mib"]
        yield Row(
            f"peak memory with {way}, {name}",
            "MiB",
            found["mib"],
            whole["mib"],
            "all layers, nothing computed twice",
            *[ratio] * 3,
            common.EXACT,
            note=f"{found['seconds']:.2f} s an update, all layers {whole['seconds']:.2f} s; "
            f"estimated {found['estimated']:,.0f} MiB",
        )


def _one(name: str, changes: dict[str, Any]) -> dict[str, float]:
    """Make two updates in this process: MiB beyond those before them, and the seconds of the second."""
    how = replace(good("all", epochs=1), **changes)
    backbone = models.load(name, weights="random")
    network, side = backbone.trainable(CLASSES, 0), backbone.architecture.input_size
    crops = torch.zeros(how.batch_size, side, side, 3, dtype=torch.uint8)
    network(crops[:1])  # the libraries
    before = common.peak_gib()
    update = Updater(network, how, steps=1000)
    set_modes(network, how)
    for step in range(2):
        start = time.perf_counter()
        update(crops, torch.arange(how.batch_size), step)
    seconds, peak = time.perf_counter() - start, common.peak_gib() - before
    again = estimate(backbone.trainable(CLASSES, 0), how, side)
    return {"mib": 1024 * peak, "seconds": seconds, "estimated": again.more / 2**20}


def _photos(count: int) -> LabelledCrops:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (count, STORED, STORED, 3), np.uint8)
    numbers = np.arange(count)
    return LabelledCrops(pixels, numbers, numbers % CLASSES, tuple(f"p{number}" for number in numbers))


def _ours(network: Any, photos: LabelledCrops, how: FineTuning, side: int) -> Callable[[], float]:
    update = Updater(network, how, steps=1000)
    set_modes(network, how)

    def way() -> float:
        return _seconds(batches(photos, how, 0, side), lambda crops, labels: update(crops, labels, 500))

    return way


class _Pictures(Dataset[tuple[torch.Tensor, int]]):
    """Decoded photos, augmented by timm's transform."""

    def __init__(self, photos: LabelledCrops, how: FineTuning, side: int) -> None:
        from timm.data.transforms_factory import create_transform

        self.photos = photos
        self.change: Any = create_transform(
            side, is_training=True, scale=_AREA, auto_augment=how.rand_augment, interpolation="bicubic"
        )

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
        picture = Image.fromarray(self.photos.pixels[number])
        return self.change(picture), int(self.photos.labels[number])


def _theirs(network: nn.Module, photos: LabelledCrops, how: FineTuning, side: int) -> Callable[[], float]:
    from timm.optim._optim_factory import create_optimizer_v2
    from timm.utils.model_ema import ModelEmaV3

    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    optimiser: Any = create_optimizer_v2(
        network, opt="adamw", lr=how.learning_rate, weight_decay=how.weight_decay, layer_decay=how.layer_decay
    )
    mean = ModelEmaV3(network, decay=how.average, use_warmup=True)
    loss_of = nn.CrossEntropyLoss(label_smoothing=how.label_smoothing)
    loader = DataLoader(
        _Pictures(photos, how, side),
        how.batch_size,
        shuffle=True,
        num_workers=common.cores(),
        persistent_workers=True,
    )

    def update(crops: torch.Tensor, labels: torch.Tensor) -> None:
        optimiser.zero_grad()
        loss = loss_of(network(crops.to(memory_format=torch.channels_last)), labels)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), how.clip or np.inf)
        optimiser.step()
        mean.update(network)
        loss.item()

    return lambda: _seconds(iter(loader), update)


def _seconds(
    found: Iterator[tuple[torch.Tensor, torch.Tensor]], update: Callable[[torch.Tensor, torch.Tensor], object]
) -> float:
    """Measure seconds per update, including the wait for photos, without the first."""
    marks = []
    for crops, labels in found:
        update(crops, labels)
        marks.append(time.perf_counter())
    return float(np.diff(marks).mean())


if __name__ == "__main__":
    print(json.dumps(_one(sys.argv[1], json.loads(sys.argv[2]))))
