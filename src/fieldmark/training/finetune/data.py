"""The batches of an epoch."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np
import torch

from fieldmark.data.loader import BLOCK_PHOTOS, SHUFFLED_BLOCKS, LabelledCrops, StreamedCrops
from fieldmark.training.finetune import augment, distributed
from fieldmark.training.finetune.config import FineTuning
from fieldmark.utils import random
from fieldmark.utils.threads import in_order
from fieldmark.utils.typing import ByteArray, IntArray

_AHEAD = 2  # batches that are augmented while the network works


def batches(
    crops: LabelledCrops,
    recipe: FineTuning,
    epoch: int,
    side: int,
    *,
    first: int = 0,
    workers: int | None = None,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Return the batches of one epoch from number `first` on: uint8 (B, side, side, 3), labels (B,).

    If several processes train together, only this one's part of each batch. The batches depend only on
    the recipe's seed, the epoch and the photos' ids, not on the number of workers, which are threads
    that augment the photos of the next two batches.
    """
    hashes = random.hashes(crops.ids, "order", recipe.seed)
    if isinstance(crops.pixels, StreamedCrops):
        order = random.block_order(hashes, epoch, BLOCK_PHOTOS, SHUFFLED_BLOCKS)
    else:
        order = random.epoch_order(hashes, epoch)
    starts = range(first * recipe.batch_size, len(order), recipe.batch_size)
    parts = [_mine(order[at : at + recipe.batch_size], recipe) for at in starts]
    order = np.concatenate([*parts, order[:0]])
    if not recipe.random_crop:
        yield from map(crops.batch, parts)
        return

    def augmented(number: int) -> ByteArray:
        index = order[number]
        pixels = np.asarray(crops.pixels[crops.rows[index]])
        return augment.photo(pixels, side, recipe, epoch, crops.ids[index])

    done = in_order(augmented, range(len(order)), workers, _AHEAD * recipe.batch_size)
    for part in parts:
        pixels = np.stack(list(islice(done, len(part))))
        yield torch.from_numpy(pixels), torch.from_numpy(crops.labels[part])


def _mine(batch: IntArray, recipe: FineTuning) -> IntArray:
    """Return the photos of a batch that this process computes, part after part."""
    parts = [index for _, index, _ in distributed.parts(len(batch), recipe.accumulate)]
    found: IntArray = batch[np.concatenate(parts)]
    return found
