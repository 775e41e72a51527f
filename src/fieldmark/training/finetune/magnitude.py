"""Magnitude pruning: the smallest weights become zero, and the others are trained again, in rounds.

Han, Pool, Tran and Dally, "Learning both weights and connections for efficient neural networks", 2015: train,
prune, retrain, and repeat. One threshold holds for the whole network; biases and normalisations are kept.
The file becomes smaller. Time and memory do not: engines multiply by the zeros as well.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from fieldmark.data.loader import LabelledCrops
from fieldmark.heads.softmax import Epoch
from fieldmark.models.network import ClassifierNetwork as Network
from fieldmark.training.finetune.config import FineTuning
from fieldmark.training.finetune.loop import finetune
from fieldmark.training.finetune.step import Loss

ROUNDS = 3
"""Of pruning and retraining, after the network was trained whole."""

_VALUE, _GAP, _LONGEST = 4, 1, 256
"""Bytes of a weight and of its distance from the one before, and the longest distance that a byte holds."""


def sparsities(final: float) -> list[float]:
    """Return the share of zeros after each round: each leaves the same share of the weights before it."""
    return [1 - (1 - final) ** (number / ROUNDS) for number in range(1, ROUNDS + 1)]


def _masked(kept: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    return gradient * kept.to(gradient.device)


def prune(network: nn.Module, sparsity: float) -> Callable[[], None]:
    """Set the smallest weights of all layers to zero, and keep them so in training.

    Args:
        network: changed in place.
        sparsity: the share of weights that are zero afterwards.

    Returns:
        A function that ends the training of the others alone.
    """
    weights = [each for each in network.parameters() if each.ndim > 1]
    sizes = torch.cat([each.detach().abs().flatten() for each in weights])
    zeros = round(sparsity * len(sizes))
    smallest = torch.zeros(len(sizes), dtype=torch.bool)
    smallest[sizes.argsort(stable=True)[:zeros]] = True
    handles = []
    for weight, pruned in zip(
        weights, torch.split(smallest, [each.numel() for each in weights]), strict=True
    ):
        kept = ~pruned.view(weight.shape)
        with torch.no_grad():
            weight.mul_(kept)
        # Without a gradient AdamW leaves a zero at zero, and so does the running mean of the weights.
        handles.append(weight.register_hook(partial(_masked, kept)))  # type: ignore[no-untyped-call]

    def release() -> None:
        for handle in handles:
            handle.remove()

    return release


def prune_in_rounds(
    network: Network,
    train: LabelledCrops,
    val: LabelledCrops,
    recipe: FineTuning,
    sparsity: float,
    checkpoint: Path,
    loss: Loss | None = None,
) -> tuple[list[Epoch], float]:
    """Train a network whole, then prune and retrain it in rounds.

    Each round has a checkpoint beside `checkpoint`, so that an interrupted run resumes; they are deleted at
    the end.

    Args:
        network, train, val, recipe, loss: as for `finetune`; every round trains by the recipe.
        sparsity: the share of weights that are zero in the end.
        checkpoint: of the first training.

    Returns:
        The curve over all rounds, and the seconds of all.
    """
    files, curve, seconds = [], list[Epoch](), 0.0
    for number, share in enumerate([0.0, *sparsities(sparsity)]):
        release = prune(network, share)
        files.append(checkpoint.with_name(f"{checkpoint.stem}-{number}{checkpoint.suffix}"))
        points, spent = finetune(network, train, val, recipe, checkpoint=files[-1], loss=loss)
        release()
        curve += [
            Epoch(len(curve) + at, each.train_loss, each.val_loss, each.val_error)
            for at, each in enumerate(points, 1)
        ]
        seconds += spent
    for file in files:
        file.unlink(missing_ok=True)
    return curve, seconds


def weight_bytes(network: nn.Module) -> int:
    """Compute the size of the weights in a file: each tensor dense, or sparse where that is smaller.

    A sparse tensor is a value in float32 and a byte for each weight that is not zero: the byte is the
    distance from the one before, and a longer distance takes filler zeros (Han, Mao and Dally, "Deep
    compression", 2016, section 2). No further coding of the values.
    """
    total = 0
    for tensor in network.state_dict().values():
        values = tensor.detach().float().numpy().ravel()
        gaps = np.diff(np.flatnonzero(values), prepend=-1)
        entries = int((1 + (gaps - 1) // _LONGEST).sum())
        total += min(_VALUE * values.size, (_VALUE + _GAP) * entries)
    return total
