"""Crops with their labels, and the batches of an epoch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch

from fieldmark import sampling
from fieldmark.crops import AT_ONCE, STRETCH, Streamed
from fieldmark.finetune import augment, ranks
from fieldmark.finetune.recipe import FineTuning
from fieldmark.threads import in_order

_AHEAD = 2  # batches that are augmented while the network works


@dataclass(frozen=True)
class Crops:
    """Crops with their labels.

    Attributes:
        pixels: uint8 (N, S, S, 3), in memory, mapped from disk, or decoded as they are asked for.
        rows: which of them to use, shape (n,).
        labels: their classes in 0 .. C-1, shape (n,).
        ids: their photo ids.
    """

    pixels: npt.NDArray[np.uint8] | Streamed
    rows: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    ids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def side(self) -> int:
        """S, in pixels."""
        return int(self.pixels.shape[1])

    def batch(self, index: npt.NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        """Some of the crops and their labels."""
        pixels = np.ascontiguousarray(self.pixels[self.rows[index]])
        return torch.from_numpy(pixels), torch.from_numpy(self.labels[index])


def batches(
    crops: Crops,
    how: FineTuning,
    epoch: int,
    side: int,
    *,
    first: int = 0,
    workers: int | None = None,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The batches of one epoch from number `first` on: uint8 (B, side, side, 3) and labels (B,).

    Where several processes train together, what this one computes of them.

    They are a function of the recipe's seed, the epoch and the photos' ids alone, whatever the number
    of workers, threads that augment the photos of the next two batches.
    """
    hashes = sampling.hashes(crops.ids, "order", how.seed)
    if isinstance(crops.pixels, Streamed):
        order = sampling.stretch_order(hashes, epoch, STRETCH, AT_ONCE)
    else:
        order = sampling.epoch_order(hashes, epoch)
    starts = range(first * how.batch_size, len(order), how.batch_size)
    parts = [_mine(order[at : at + how.batch_size], how) for at in starts]
    order = np.concatenate([*parts, order[:0]])
    if not how.random_crop:
        yield from map(crops.batch, parts)
        return

    def augmented(number: int) -> npt.NDArray[np.uint8]:
        index = order[number]
        pixels = np.asarray(crops.pixels[crops.rows[index]])
        return augment.photo(pixels, side, how, epoch, crops.ids[index])

    done = in_order(augmented, range(len(order)), workers, _AHEAD * how.batch_size)
    for part in parts:
        pixels = np.stack(list(islice(done, len(part))))
        yield torch.from_numpy(pixels), torch.from_numpy(crops.labels[part])


def _mine(batch: npt.NDArray[np.int64], how: FineTuning) -> npt.NDArray[np.int64]:
    """The photos of a batch that this process computes, part after part."""
    parts = [index for _, index, _ in ranks.parts(len(batch), how.accumulate)]
    found: npt.NDArray[np.int64] = batch[np.concatenate(parts)]
    return found
