"""What of a network learns, and how fast each layer does."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from fieldmark.heads.base import LinearHead
from fieldmark.models import Backbone, import_torchvision
from fieldmark.models.network import ClassifierNetwork as Network
from fieldmark.training.finetune import low_rank
from fieldmark.training.finetune.config import FineTuning

_NORMS = (_BatchNorm, nn.LayerNorm, nn.GroupNorm)


def set_last_layer(network: Network, head: LinearHead) -> None:
    """Put a head that was learned on kept features into the network as its last layer.

    Args:
        network: from `Backbone.trainable`.
        head: for as many classes as the network.
    """
    layer = network.last_layer
    assert isinstance(layer, nn.Linear)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(head.weight.T.copy()))
        layer.bias.copy_(torch.from_numpy(head.bias))


def split_trained(backbone: Backbone, network: Network) -> tuple[Backbone, LinearHead]:
    """The trunk and the last layer of what `backbone.trainable` gave, after training."""
    trained, linear = backbone.trained(network)
    weight, bias = linear.weight.detach().numpy(), linear.bias.detach().numpy()
    return trained, LinearHead(np.ascontiguousarray(weight.T), bias)


def set_trainable(network: Network, recipe: FineTuning) -> None:
    """Let gradients reach only what is trained.

    `adapters`: every bias and all of a normalisation, beside the last layer (Ben Zaken et al.,
    "BitFit", 2022; Frankle et al., "Training BatchNorm and only BatchNorm", 2021). The network keeps
    its form, so nothing is to be merged afterwards. `low-rank` adds what `low_rank.merge` takes into
    the weights in the end.
    """
    network.requires_grad_(recipe.transfer in ("all", "scratch"))
    if recipe.transfer == "low-rank":
        low_rank.attach(network, recipe.rank, recipe.seed)
    if recipe.transfer == "adapters":
        for module in network.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if name == "bias" or isinstance(module, _NORMS):
                    parameter.requires_grad_(True)
    network.last_layer.requires_grad_(True)


def parameter_groups(network: Network, recipe: FineTuning) -> list[dict[str, Any]]:
    """What the optimiser is given: parameters with their weight decay, and `lr_scale` on the rate.

    Vectors (biases, normalisations) are not decayed. With a `layer_decay` below 1 the groups are timm's:
    a layer's rate is that of the next one times the decay.
    """
    if recipe.layer_decay == 1.0:
        trained = [each for each in network.parameters() if each.requires_grad]
        matrices = [each for each in trained if each.ndim > 1]
        vectors = [each for each in trained if each.ndim <= 1]
        return [
            {"params": some, "weight_decay": decay, "lr_scale": 1.0}
            for some, decay in ((matrices, recipe.weight_decay), (vectors, 0.0))
            if some
        ]
    import_torchvision()
    from timm.optim._param_groups import param_groups_layer_decay

    inner: Any = network.network
    if not hasattr(inner, "group_matcher"):
        # torchvision's networks do not say which of their parameters form a layer; timm then takes
        # twelve at a time, and asks here which are the last.
        inner.pretrained_cfg = {"classifier": network.last_layer_path}
    found: list[dict[str, Any]] = param_groups_layer_decay(
        inner, weight_decay=recipe.weight_decay, layer_decay=recipe.layer_decay
    )
    return found


def set_modes(network: nn.Module, recipe: FineTuning) -> None:
    """Training mode; but the BatchNorm of a frozen network keeps its pretrained statistics."""
    network.train()
    if recipe.frozen_statistics or recipe.transfer not in ("all", "scratch"):
        for module in network.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
