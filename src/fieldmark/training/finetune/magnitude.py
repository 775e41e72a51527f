"""Magnitude pruning: the smallest weights become zero, and the others are trained again.

Han, Pool, Tran and Dally, "Learning both weights and connections for efficient neural networks", 2015. One
threshold holds for the whole network; biases and normalisations are kept.
The file becomes smaller. Time and memory do not: engines multiply by the zeros as well.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import nn

_VALUE, _GAP, _LONGEST = 4, 1, 256
"""Bytes of a weight and of its distance from the one before, and the longest distance that a byte holds."""


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
