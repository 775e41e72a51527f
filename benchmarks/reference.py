"""The usual training of a last layer: torchvision's transfer-learning recipe, and timm's.

A `Dataset` that opens files with Pillow, a `DataLoader` with worker processes, the library's own
transform, the network in eager PyTorch with all layers frozen (evaluation mode, no gradients) and its
last layer replaced; in every epoch each photo is read, decoded, resized and sent through the whole
network, once for training and, after every epoch, once for validation; and all of it for each of five
networks. It uses fieldmark only to read the weights, so that both start from the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.common import cores
from fieldmark import models
from fieldmark.models._torchvision_import import import_torchvision

import_torchvision()

BATCH = 64
LEARNING_RATE = 1e-3
TIMM_NAMES = {"densenet121": "densenet121", "resnext50_32x4d": "resnext50_32x4d"}
"""Those of the five that timm has; it has neither AlexNet, SqueezeNet nor ShuffleNet."""

Example = tuple[Path, int]


class PhotoFiles(Dataset[tuple[Any, int]]):
    """Photos by path, opened with Pillow, as in torchvision's `ImageFolder`."""

    def __init__(self, examples: Sequence[Example], transform: Callable[[Any], Any]) -> None:
        self.examples, self.transform = examples, transform

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, number: int) -> tuple[Any, int]:
        path, label = self.examples[number]
        with Image.open(path) as image:
            return self.transform(image.convert("RGB")), label


def torchvision_transform() -> Callable[[Any], Any]:
    """Return torchvision's transform "resized to 224 x 224" (the paper), to a tensor, normalised."""
    from torchvision.transforms import v2

    return v2.Compose(
        [
            v2.Resize((224, 224)),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
        ]
    )


def timm_transform(network: nn.Module) -> Callable[[Any], Any]:
    """Return timm's transform for evaluation: resize, centre crop, to a tensor, normalise."""
    from timm.data import create_transform, resolve_data_config

    return create_transform(**resolve_data_config({}, model=network))


@dataclass
class Recipe:
    """One network with a new last layer, and its training.

    Attributes:
        name: the network.
        library: where it is defined, `torchvision` or `timm`.
        network: all frozen but the last layer, in evaluation mode.
        transform: from a Pillow image to its tensor.
    """

    name: str
    library: str
    network: nn.Module
    transform: Callable[[Any], Any]
    last: nn.Module

    def train(
        self,
        batches: Iterable[Any],
        optimiser: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler | None = None,
    ) -> None:
        """Run one pass over the training photos."""
        loss_of = nn.CrossEntropyLoss()
        for images, labels in batches:
            optimiser.zero_grad()
            loss_of(self.network(images), labels).backward()
            optimiser.step()
            if schedule is not None:
                schedule.step()

    @torch.no_grad()
    def scores(self, batches: Iterable[Any]) -> np.ndarray:
        """Run one pass over the validation photos; return scores, shape (N, C)."""
        return np.concatenate([self.network(images).numpy() for images, _ in batches])

    def optimiser(self) -> torch.optim.Optimizer:
        """Return the same optimiser and learning rate as ours."""
        return torch.optim.AdamW(self.last.parameters(), lr=LEARNING_RATE, weight_decay=0.0)

    def loader(
        self, examples: Sequence[Example], *, shuffle: bool, workers: int | None = None
    ) -> DataLoader[Any]:
        """Return a loader with one worker process per core, reused in every epoch."""
        workers = cores() if workers is None else workers
        return DataLoader(
            PhotoFiles(examples, self.transform),
            batch_size=BATCH,
            shuffle=shuffle,
            num_workers=workers,
            persistent_workers=workers > 0,
        )


def recipe(name: str, classes: int, weights_dir: Path | None, *, library: str) -> Recipe:
    """Load a network by name with the weights of the study, ready to train."""
    if library == "timm" and name in TIMM_NAMES:
        import timm

        network = timm.create_model(TIMM_NAMES[name], pretrained=False, num_classes=classes)
        last = network.get_classifier()
    else:
        library = "torchvision" if library == "timm" else library
        network, last = _of_torchvision(name, classes, weights_dir)
    network.eval().requires_grad_(False)
    last.requires_grad_(True)
    transform = timm_transform(network) if library == "timm" else torchvision_transform()
    return Recipe(name, library, network, transform, last)


def _of_torchvision(name: str, classes: int, weights_dir: Path | None) -> tuple[nn.Module, nn.Module]:
    from fieldmark.utils.errors import WeightsUnavailable

    try:
        backbone = models.load(name, weights_dir=weights_dir)
    except WeightsUnavailable:
        backbone = models.load(name, weights="random")
    network = backbone.network
    path = backbone.architecture.last_layer_path
    old = network.get_submodule(path)
    new: nn.Module
    if isinstance(old, nn.Conv2d):
        new = nn.Conv2d(old.in_channels, classes, kernel_size=1)
        network.num_classes = classes  # type: ignore[assignment]
    else:
        assert isinstance(old, nn.Linear)
        new = nn.Linear(old.in_features, classes)
    parent, _, own = path.rpartition(".")
    setattr(network.get_submodule(parent), own, new)
    return network, new


@dataclass(frozen=True)
class Pace:
    """The time of one network, in seconds per photo: a training and a validation pass."""

    train: float
    val: float

    def whole(self, train_photos: int, val_photos: int, epochs: int) -> float:
        """Compute the seconds of all epochs."""
        return epochs * (train_photos * self.train + val_photos * self.val)


def pace(of: Recipe, train: Sequence[Example], val: Sequence[Example], *, workers: int | None = None) -> Pace:
    """Time one pass over some training and one over some validation photos.

    The clock starts when the loader's first batch is there: starting the workers and waiting for
    their first photos is not counted, in the reference's favour.
    """
    optimiser = of.optimiser()
    passes: tuple[tuple[Sequence[Example], Callable[[Iterable[Any]], object]], ...] = (
        (train, lambda batches: of.train(batches, optimiser)),
        (val, of.scores),
    )
    seconds = []
    for examples, run in passes:
        batches = iter(of.loader(examples, shuffle=examples is train, workers=workers))
        first = next(batches)
        start = time.perf_counter()
        run(chain([first], batches))
        seconds.append((time.perf_counter() - start) / len(examples))
    return Pace(*seconds)


def whole(
    of: Recipe, train: Sequence[Example], val: Sequence[Example], epochs: int, *, workers: int | None = None
) -> tuple[float, np.ndarray]:
    """Run all epochs; return seconds, and the scores on the validation photos after the last."""
    start = time.perf_counter()
    optimiser = of.optimiser()
    steps = epochs * -(-len(train) // BATCH)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    train_loader = of.loader(train, shuffle=True, workers=workers)
    val_loader = of.loader(val, shuffle=False, workers=workers)
    scores = np.empty(0)
    for _ in range(epochs):
        of.train(train_loader, optimiser, falling)
        scores = of.scores(val_loader)
    return time.perf_counter() - start, scores


@torch.no_grad()
def eager_seconds(of: Recipe, photos: int = 32) -> float:
    """Measure seconds per photo of the network alone in eager PyTorch, on a prepared batch."""
    images = torch.randn(photos, 3, 224, 224)
    of.network(images[:2])
    start = time.perf_counter()
    of.network(images)
    return (time.perf_counter() - start) / photos
