"""Which parameters of a network are trained, and the learning rate of each layer."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from fieldmark.heads.base import LinearHead
from fieldmark.models import Backbone, import_torchvision
from fieldmark.models.architecture import INSIDE
from fieldmark.models.network import ClassifierNetwork as Network
from fieldmark.training.finetune import low_rank
from fieldmark.training.finetune.config import FineTuning
from fieldmark.utils.errors import InputError

_NORMS = (_BatchNorm, nn.LayerNorm, nn.GroupNorm)


def set_last_layer(network: Network, head: LinearHead) -> None:
    """Set a head that was trained on cached features as the network's last layer.

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
    """Split a trained network of `backbone.trainable` into its backbone and its last layer."""
    trained, linear = backbone.trained(network)
    weight, bias = linear.weight.detach().numpy(), linear.bias.detach().numpy()
    return trained, LinearHead(np.ascontiguousarray(weight.T), bias)


def set_trainable(network: Network, recipe: FineTuning) -> None:
    """Require gradients only for the parameters to train.

    `adapters`: all biases and normalisations, beside the last layer (Ben Zaken et al., "BitFit", 2022;
    Frankle et al., "Training BatchNorm and only BatchNorm", 2021). The network's structure stays, so
    nothing is merged afterwards. `low-rank` adds parameters that `low_rank.merge` merges in the end.
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


def set_checkpointing(network: Network, recipe: FineTuning) -> None:
    """Compute activations again, block by block, in the backward pass, or keep them.

    Raises:
        InputError: the network has no such blocks, or its BatchNorm would count each batch twice.
    """
    inner: Any = getattr(network.network, INSIDE, network.network)
    if not recipe.checkpointing:
        if hasattr(inner, "set_grad_checkpointing"):
            with suppress(AssertionError):
                inner.set_grad_checkpointing(False)
        return
    if recipe.learns_statistics and any(isinstance(each, _BatchNorm) for each in network.modules()):
        raise InputError(
            "Activation checkpointing computes each block twice, and BatchNorm would count each photo "
            "twice: leave --checkpointing out, or fine-tune pretrained weights."
        )
    try:
        inner.set_grad_checkpointing(True)
    except (AttributeError, AssertionError) as error:  # timm asserts that it is not asked for
        raise InputError(
            "This network has no blocks for activation checkpointing: leave --checkpointing out, "
            "or compute fewer photos at once with --accumulate."
        ) from error


def accepted(network: Network, recipe: FineTuning, full: int) -> FineTuning:
    """Return the recipe with crops of the full side alone, if the network takes no others.

    Transformers with learned positions, for example, take one side.

    Args:
        network: it is set to evaluation mode.
        full: the side on which it is measured, in pixels.
    """
    sides = {recipe.side(epoch, full) for epoch in range(recipe.epochs)} - {full}
    device = next(network.eval().parameters()).device
    try:
        with torch.inference_mode():
            for side in sides:
                network(torch.zeros((1, side, side, 3), dtype=torch.uint8, device=device))
    except (RuntimeError, ValueError, AssertionError):
        return replace(recipe, sides=(1.0,))
    return recipe


def parameter_groups(network: Network, recipe: FineTuning) -> list[dict[str, Any]]:
    """Return the optimiser's parameter groups, with weight decay and `lr_scale`.

    Vectors (biases, normalisations) have no weight decay. With a `layer_decay` below 1 the groups are
    timm's: a layer's rate is that of the next one times the decay.
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
        # torchvision's networks do not group their parameters into layers; timm then takes twelve at a
        # time, and reads the name of the last layer here.
        inner.pretrained_cfg = {"classifier": network.last_layer_path}
    found: list[dict[str, Any]] = param_groups_layer_decay(
        inner, weight_decay=recipe.weight_decay, layer_decay=recipe.layer_decay
    )
    return found


def set_modes(network: nn.Module, recipe: FineTuning) -> None:
    """Set training mode; the BatchNorm of a frozen network keeps its pretrained statistics."""
    network.train()
    if not recipe.learns_statistics:
        for module in network.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
