"""The statistics of BatchNorm in a network that is made smaller.

After weights or channels are taken away, the means and variances in a network are no longer those of its
layers' outputs, and it does not recover in retraining. So they are computed anew from training photos: Li,
Wu, Su and Wang, "EagleEye: fast sub-net evaluation for efficient neural network pruning", 2020.

Fine-tuning keeps the statistics of pretraining, which are not those of these photos: computed anew, they
would change what even a whole network answers. So before anything is taken away, the network is written with
the statistics of these photos, without changing what it computes. What is left then has outputs with the
means and variances that they had: Jordan, Sedghi, Saukh, Entezari and Neyshabur, "REPAIR: renormalizing
permuted activations for interpolation repair", 2023.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from fieldmark.data.loader import LabelledCrops
from fieldmark.models.network import ClassifierNetwork as Network
from fieldmark.training.finetune.config import FineTuning
from fieldmark.training.finetune.device import fabric
from fieldmark.utils.random import generator
from fieldmark.utils.typing import IntArray

PHOTOS = 1024
"""How many photos the statistics are computed from, at most."""
FEWEST = 2
"""Of fewer photos in a batch there is no variance: nothing is changed."""


def adopt_statistics(network: Network, train: LabelledCrops, side: int, recipe: FineTuning) -> None:
    """Write a network with the statistics of some photos, in place; what it computes stays the same.

    Args:
        network, train, side, recipe: as for `set_statistics`.
    """
    norms = [each for each in _norms(network) if each.affine]
    moments: dict[nn.Module, list[torch.Tensor]] = defaultdict(list)  # of each batch: mean, mean of squares

    def add(norm: nn.Module, given: tuple[torch.Tensor]) -> None:
        x = given[0].float()
        others = [axis for axis in range(x.ndim) if axis != 1]
        moments[norm].append(torch.stack([x.mean(others), (x**2).mean(others)]))

    handles = [each.register_forward_pre_hook(add) for each in norms]
    _forward(network.eval(), train, side, recipe, _batches(train, recipe))
    for handle in handles:
        handle.remove()
    for norm, found in moments.items():
        mean, squares = torch.stack(found).mean(0)
        _rewrite(norm, mean, (squares - mean**2).clamp(min=0))


@torch.no_grad()
def _rewrite(norm: Any, mean: torch.Tensor, variance: torch.Tensor) -> None:
    """Give a layer other statistics, and the scale and the offset with which it computes the same."""
    old = (norm.running_var + norm.eps).sqrt()
    norm.bias += norm.weight * (mean - norm.running_mean) / old
    norm.weight *= (variance + norm.eps).sqrt() / old
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)


def set_statistics(network: Network, train: LabelledCrops, side: int, recipe: FineTuning) -> None:
    """Compute the means and variances of all BatchNorm layers anew, in place.

    Args:
        network: it is moved to the device of the recipe, and set to evaluation mode.
        train: training crops, of which the central part is taken; fewer than two change nothing.
        side: of the crops that the network is measured on, in pixels.
        recipe: its batch size, its seed and its device.
    """
    norms, batches = _norms(network.eval()), _batches(train, recipe)
    if not batches:
        return
    momenta = [each.momentum for each in norms]
    for each in norms:
        each.reset_running_stats()
        each.momentum = None  # the mean over all batches
        each.train()
    _forward(network, train, side, recipe, batches)
    for each, momentum in zip(norms, momenta, strict=True):
        each.momentum = momentum
    network.eval()


def _norms(network: Network) -> list[_BatchNorm]:
    return [each for each in network.modules() if isinstance(each, _BatchNorm) and each.track_running_stats]


def _batches(train: LabelledCrops, recipe: FineTuning) -> list[IntArray]:
    """Return the photos of each batch: whole ones, as the variance of one photo is not that of several."""
    order = generator(recipe.seed, "statistics").permutation(len(train))[:PHOTOS]
    size = min(recipe.batch_size, len(order))
    if size < FEWEST:
        return []
    return [order[start : start + size] for start in range(0, len(order) - size + 1, size)]


@torch.no_grad()
def _forward(
    network: Network, train: LabelledCrops, side: int, recipe: FineTuning, batches: Sequence[IntArray]
) -> None:
    runs_on, margin = fabric(recipe), (train.side - side) // 2
    network.to(runs_on.device)
    for index in batches:
        crops = train.batch(index)[0]
        network(crops[:, margin : margin + side, margin : margin + side].to(runs_on.device))
