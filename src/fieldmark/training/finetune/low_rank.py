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
    """Add a trainable low-rank part to every dense layer but the last, `qkv` of an attention included.

    Layers whose weight has no more than `rank` rows or columns stay frozen, and so do grouped
    convolutions (a depthwise one has nine numbers a channel): their part would be no smaller.
    """
    for name, layer, tensor in list(_able(network, rank)):
        with seeded(seed, "low rank", name):
            part = LowRank(getattr(layer, tensor), rank)
        parametrize.register_parametrization(layer, tensor, part)


def merge(network: nn.Module) -> None:
    """Merge each low-rank part into its weight; a network without such parts stays unchanged."""
    for module in list(network.modules()):
        for tensor in ("weight", "in_proj_weight"):
            if parametrize.is_parametrized(module, tensor):
                parametrize.remove_parametrizations(module, tensor, leave_parametrized=True)
                # Now it is the last one; the network's key depends on the order, and there it is the first.
                parameters = module._parameters
                for other in [name for name in parameters if name != tensor]:
                    parameters[other] = parameters.pop(other)


def _able(network: Network, rank: int) -> Iterator[tuple[str, nn.Module, str]]:
    """Yield layers with their names and that of the weight; `MultiheadAttention` has q, k and v in one."""
    for name, module in network.network.named_modules():
        if not isinstance(module, nn.Conv2d | nn.Linear | nn.MultiheadAttention):
            continue
        tensor = "in_proj_weight" if isinstance(module, nn.MultiheadAttention) else "weight"
        weight = getattr(module, tensor)
        dense = weight is not None and getattr(module, "groups", 1) == 1 and rank < min(_shape(weight))
        if dense and module is not network.last_layer:
            yield name, module, tensor


def _shape(weight: torch.Tensor) -> tuple[int, int]:
    """Return rows and columns of a weight as a matrix."""
    return len(weight), weight[0].numel()
