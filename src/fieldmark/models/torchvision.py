"""Networks of torchvision, with its ImageNet-1k weights (version 1), among them those of the paper.

Pixels are normalised with ImageNet's mean and standard deviation; for Inception v3, whose weights come
from TensorFlow, with 0.5 and 0.5 in place of torchvision's `transform_input`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fieldmark.models._torchvision_import import import_torchvision
from fieldmark.models.architecture import HALF, IMAGENET_MEAN, IMAGENET_STD, Architecture

if TYPE_CHECKING:
    import torch
    from torch import nn

LICENCE = "BSD-3-Clause (torchvision); trained on ImageNet-1k, whose photos are for research"
# DenseNet's published files have `norm.1` where the network has `norm1`.
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\.")
_URL = "https://download.pytorch.org/models/"


def _architecture(
    name: str, dim: int, path: str, sentence: str, giga_macs: float, *, file: str, **other: Any
) -> Architecture:
    facts: dict[str, Any] = {"input_size": 224, "mean": IMAGENET_MEAN, "std": IMAGENET_STD} | other
    facts |= {"last_layer": sentence, "last_layer_path": path, "licence": LICENCE, "url": _URL + file}
    return Architecture(name, "torchvision", dim, giga_macs=giga_macs, **facts)


def _densenet(depth: str, dim: int, giga_macs: float, digest: str) -> Architecture:
    sentence = f"`classifier`, linear; its input is the last feature maps after ReLU and mean ({dim})."
    name = f"densenet{depth}"
    return _architecture(name, dim, "classifier", sentence, giga_macs, file=f"{name}-{digest}.pth")


def _squeezenet(version: str, giga_macs: float, digest: str) -> Architecture:
    sentence = (
        "`classifier.1`, a 1x1 convolution followed by ReLU and mean over the places; the features "
        "are the mean over the places of its input (512), so that a linear head on them differs "
        "from the network's own by the ReLU between convolution and mean."
    )
    name = f"squeezenet{version}"
    return _architecture(name, 512, "classifier.1", sentence, giga_macs, file=f"{name}-{digest}.pth")


def _pooled(name: str, dim: int, giga_macs: float, *, file: str, **other: Any) -> Architecture:
    sentence = f"`fc`, linear; its input is the mean of the last feature maps ({dim})."
    return _architecture(name, dim, "fc", sentence, giga_macs, file=file, **other)


_ALEXNET = (
    "`classifier.6`, linear; its input is the second hidden layer after ReLU (4096); the two "
    "dropouts before it act in literal training only."
)
_MOBILENET = (
    "`classifier.1`, linear; its input is the mean of the last feature maps (1280); the dropout "
    "before it acts in literal training only."
)

_INCEPTION: dict[str, Any] = {"input_size": 299, "mean": HALF, "std": HALF}

ARCHITECTURES = (
    _architecture("alexnet", 4096, "classifier.6", _ALEXNET, 0.714, file="alexnet-owt-7be5be79.pth"),
    _densenet("121", 1024, 2.834, "a639ec97"),
    _densenet("161", 2208, 7.728, "8d451a50"),
    _densenet("169", 1664, 3.360, "b2777c0a"),
    _densenet("201", 1920, 4.291, "c1103571"),
    _squeezenet("1_0", 0.819, "b66bff10"),
    _squeezenet("1_1", 0.349, "b8a52dc0"),
    _pooled("shufflenet_v2_x0_5", 1024, 0.040, file="shufflenetv2_x0.5-f707e7126e.pth"),
    _pooled("shufflenet_v2_x1_0", 1024, 0.145, file="shufflenetv2_x1-5666bf0f80.pth"),
    _pooled("resnext50_32x4d", 2048, 4.230, file="resnext50_32x4d-7cdf4587.pth"),
    _pooled("resnext101_32x8d", 2048, 16.414, file="resnext101_32x8d-8ba56ff5.pth"),
    _pooled("inception_v3", 2048, 5.713, file="inception_v3_google-0cc3c7bd.pth", **_INCEPTION),
    _architecture("mobilenet_v2", 1280, "classifier.1", _MOBILENET, 0.301, file="mobilenet_v2-b0353104.pth"),
)


def build(facts: Architecture) -> nn.Module:
    """Build a network with random weights and 1000 classes."""
    import_torchvision()
    from torchvision import models

    name = facts.name
    inception = {"aux_logits": False, "transform_input": False, "init_weights": True}
    network: nn.Module = models.get_model(name, weights=None, **(inception if name == "inception_v3" else {}))
    return network


def renamed(
    facts: Architecture, _network: nn.Module, state: Mapping[str, torch.Tensor]
) -> Mapping[str, torch.Tensor]:
    """Give the tensors of DenseNet's published files the names that torchvision has for them today."""
    if not facts.name.startswith("densenet"):
        return state
    return {_OLD_DENSENET.sub(r"\1\2.", name): value for name, value in state.items()}
