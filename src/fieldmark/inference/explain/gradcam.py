"""Class activation maps: what each place of a network's last feature map adds to the score of a class.

Networks whose features are the mean over the last feature map get an exact map (Zhou et al., "Learning deep
features for discriminative localization", 2016): the last layer is linear, so the score is the mean over the
map of what each place adds, plus the bias. The map is the input of the global mean in the converted network,
whatever its library, and without PyTorch. All others (AlexNet, transformers) get Grad-CAM
(Selvaraju et al., "Grad-CAM: visual explanations from deep networks via gradient-based localization", 2017),
which needs PyTorch.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from fieldmark.inference.classifier import Member, Network
from fieldmark.inference.classifier.ensemble_member import running
from fieldmark.utils.errors import InputError
from fieldmark.utils.typing import ByteArray, FloatArray

if TYPE_CHECKING:
    import onnx
    import torch
    from torch import nn


class NoFeatureMap(InputError):
    """The network has neither a feature map nor tokens of patches."""


@dataclass(frozen=True)
class Activation:
    """What each place of a network's last feature map adds to the score of a class."""

    map_hw: FloatArray  # float32 (h, w); of an exact map the mean is `score - bias`
    score: float  # the class's logit, before the temperature
    bias: float
    exact: bool  # a class activation map; otherwise Grad-CAM, never negative


def activation(member: Member, crop: ByteArray, number: int) -> Activation:
    """Compute what each place of a crop, uint8 (size, size, 3), adds to the score of the class `number`."""
    weight_D = member.head.weight[:, number]
    bias = float(member.head.bias[number])
    mapped = _mapped(member.network)
    if mapped is None:
        map_hw, x_D = _grad_cam(member.network, crop, weight_D)
    else:
        [x_D], [maps_Dhw] = mapped(crop[None])
        map_hw = np.tensordot(weight_D, maps_Dhw, axes=1).astype(np.float32)
    return Activation(map_hw, float(x_D @ weight_D) + bias, bias, mapped is not None)


@lru_cache(maxsize=8)
def _mapped(network: Network) -> Callable[[ByteArray], list[Any]] | None:
    """Return the network with a second output, the map (1, D, h, w) whose mean its features (1, D) are;
    None where they are not the mean over a map."""
    from onnx import helper

    try:
        model = network.graph()
    except InputError:  # a network that cannot be converted runs in PyTorch
        return None
    if not (name := _map_of(model)):
        return None
    model.graph.output.append(helper.make_empty_tensor_value_info(name))
    return running(model)


_ONLY_SHAPE = ("Flatten", "Reshape", "Squeeze", "Identity")


def _map_of(model: onnx.ModelProto) -> str | None:
    """Find the map whose mean over height and width is the output of the graph; return its name."""
    made_by = {name: node for node in model.graph.node for name in node.output}
    node = made_by.get(model.graph.output[0].name)
    while node is not None and node.op_type in _ONLY_SHAPE:
        node = made_by.get(node.input[0])
    if node is None:
        return None
    axes = {axis for a in node.attribute if a.name == "axes" for axis in a.ints}
    is_mean = node.op_type == "GlobalAveragePool" or (
        node.op_type == "ReduceMean" and axes in ({2, 3}, {-1, -2})
    )
    return str(node.input[0]) if is_mean else None


def _grad_cam(network: Network, crop: ByteArray, weight_D: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Compute Grad-CAM of the last feature map before a pooling, and the features.

    Each channel is weighted by the mean over the places of the score's gradient. A transformer's map are the
    patch tokens that enter its last block, since the block's own output may be read at the class token alone.
    """
    import torch

    trunk = network.backbone.trunk
    tokens = _last_tokens(trunk)
    maps: list[torch.Tensor] = []
    thread = threading.get_ident()  # other threads may run the same network

    def save_map(module: nn.Module, _: Any, out: Any) -> None:
        if threading.get_ident() == thread and (
            module is tokens or (tokens is None and _is_map(module, out))
        ):
            maps.append(out)

    def require_grad(_: nn.Module, __: Any, out: torch.Tensor) -> torch.Tensor:
        return out.requires_grad_() if threading.get_ident() == thread else out

    leaves = [module for module in trunk.modules() if not any(module.children())]
    hooks = [trunk.pixels.register_forward_hook(require_grad)]
    hooks += [leaf.register_forward_hook(save_map) for leaf in leaves if leaf is not trunk.pixels]
    try:
        with torch.enable_grad():
            features = trunk(torch.from_numpy(crop[None].copy()))
            if not maps:
                raise NoFeatureMap(
                    f"{network.architecture} has no feature map to draw: a heat map needs a "
                    "convolutional network or a transformer of patches."
                )
            score = features[0] @ torch.from_numpy(weight_D.copy())
            [gradient] = torch.autograd.grad(score, maps[-1])
    finally:
        for hook in hooks:
            hook.remove()
    gradient_Khw, map_Khw = (_channels_first(each.detach()[0], trunk) for each in (gradient, maps[-1]))
    map_hw = torch.tensordot(gradient_Khw.mean(dim=(1, 2)), map_Khw, dims=1).clamp(min=0)
    return map_hw.numpy(), features[0].detach().numpy()


def _is_map(module: nn.Module, out: Any) -> bool:
    """Return whether a module's output is a feature map, and the module no pooling."""
    import torch
    from torch import nn

    pooling = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
    is_map = isinstance(out, torch.Tensor) and out.ndim == 4 and min(out.shape[2:]) > 1
    return is_map and not isinstance(module, pooling)


def _last_tokens(trunk: nn.Module) -> nn.Module | None:
    """Return the norm in front of the last block of a transformer of patches; None for other networks."""
    modules: list[Any] = list(trunk.modules())
    for module in modules:
        if hasattr(module, "num_prefix_tokens") and hasattr(module, "blocks"):
            norm = getattr(module.blocks[-1], "norm1", None)
            return norm if norm is not None and not any(norm.children()) else None
    return None


def _channels_first(found: torch.Tensor, trunk: nn.Module) -> torch.Tensor:
    """Bring a map of channels last, or of tokens after those that are no patches, to (K, h, w)."""
    modules: list[Any] = list(trunk.modules())
    if found.ndim == 3:
        last = any(getattr(module, "output_fmt", "") == "NHWC" for module in modules)
        return found.permute(2, 0, 1) if last else found
    prefix = next(each.num_prefix_tokens for each in modules if hasattr(each, "num_prefix_tokens"))
    for patches in (found[prefix:], found):  # some networks add the class token after these blocks
        side = math.isqrt(len(patches))
        if side * side == len(patches):
            return patches.T.reshape(-1, side, side)
    raise NoFeatureMap("The tokens of the network are no square of patches: it has no heat map.")
