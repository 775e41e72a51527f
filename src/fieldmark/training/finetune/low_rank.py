"""Low-rank updates of frozen weights: Hu et al., "LoRA: Low-rank adaptation of large language models",
2022, equation 3, for convolutions as for linear layers.

A layer's weight W, as a matrix (outputs, inputs times kernel places), becomes W + U D with U (outputs,
r) and D (r, inputs times kernel places); only U and D are trained. The sum is the layer's weight in
every pass, so merging it into W at the end changes no score, and the network has its own structure
again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import cast

import torch
from torch import nn
from torch.nn.utils import parametrize

from fieldmark.models.network import ClassifierNetwork as Network
from fieldmark.models.network import seeded


class LowRank(nn.Module):
    """The low-rank part of one weight.

    Args:
        weight: W, with as many rows as the layer has outputs.
        rank: r.
    """

    def __init__(self, weight: torch.Tensor, rank: int) -> None:
        super().__init__()
        rows, columns = _shape(weight)
        # U is zero at first, so that training starts from the pretrained weights.
        self.up = nn.Parameter(weight.new_zeros(rows, rank))
        self.down = nn.Parameter(weight.new_empty(rank, columns))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Compute W + U D, of the shape of W."""
        return weight + (self.up @ self.down).reshape(weight.shape)


def attach(network: Network, rank: int, seed: int) -> None:
    """Add a trainable low-rank part to every dense layer but the last.

    Layers whose weight has no more than `rank` rows or columns stay frozen, and so do grouped
    convolutions (a depthwise one has nine numbers a channel): their part would be no smaller.
    """
    for name, layer in list(_able(network, rank)):
        weight = cast("torch.Tensor", layer.weight)
        with seeded(seed, "low rank", name):
            part = LowRank(weight, rank)
        parametrize.register_parametrization(layer, "weight", part)


def merge(network: nn.Module) -> None:
    """Merge each low-rank part into its weight; a network without such parts stays unchanged."""
    for module in list(network.modules()):
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)


def _able(network: Network, rank: int) -> Iterator[tuple[str, nn.Module]]:
    for name, module in network.network.named_modules():
        if not isinstance(module, nn.Conv2d | nn.Linear) or module is network.last_layer:
            continue
        if getattr(module, "groups", 1) == 1 and rank < min(_shape(module.weight)):
            yield name, module


def _shape(weight: torch.Tensor) -> tuple[int, int]:
    """Return rows and columns of a weight as a matrix."""
    return len(weight), weight[0].numel()
