"""The statistics of BatchNorm in a network that was made smaller.

Fine-tuning keeps the means and variances of pretraining. After weights or channels are taken away they
are no longer those of the layers' outputs, and a network that keeps them does not recover in retraining.
So they are computed anew from training photos: Li, Wu, Su and Wang, "EagleEye: fast sub-net evaluation for
efficient neural network pruning", 2020.
"""

from __future__ import annotations

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from fieldmark.data.loader import LabelledCrops
from fieldmark.models.network import ClassifierNetwork as Network
from fieldmark.training.finetune.config import FineTuning
from fieldmark.training.finetune.device import fabric
from fieldmark.utils.random import generator

PHOTOS = 1024
"""How many photos the statistics are computed from, at most."""


def set_statistics(network: Network, train: LabelledCrops, side: int, recipe: FineTuning) -> None:
    """Compute the means and variances of all BatchNorm layers anew, in place.

    Args:
        network: it is moved to the device of the recipe, and set to evaluation mode.
        train: training crops, of which the central part is taken; fewer than two change nothing.
        side: of the crops that the network is measured on, in pixels.
        recipe: its batch size, its seed and its device.
    """
    norms = [each for each in network.modules() if isinstance(each, _BatchNorm) and each.track_running_stats]
    order = generator(recipe.seed, "statistics").permutation(len(train))[:PHOTOS]
    size = min(recipe.batch_size, len(order))
    if not norms or size < 2:
        return
    runs_on = fabric(recipe)
    network.to(runs_on.device).eval()
    momenta = [each.momentum for each in norms]
    for each in norms:
        each.reset_running_stats()
        each.momentum = None  # the mean over all batches
        each.train()
    margin = (train.side - side) // 2
    with torch.no_grad():
        # Whole batches: the variance of one photo is not that of several.
        for start in range(0, len(order) - size + 1, size):
            crops = train.batch(order[start : start + size])[0]
            network(crops[:, margin : margin + side, margin : margin + side].to(runs_on.device))
    for each, momentum in zip(norms, momenta, strict=True):
        each.momentum = momentum
    network.eval()
