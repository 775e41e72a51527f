"""What is cut from a network, and put to it: pixels in front, the last layer off or replaced.

The architecture says where the last layer is. With an identity in its place a network gives that
layer's input, whatever comes before: that is the trunk. With a new layer in its place it is the
network to train literally.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from fieldmark.models.architecture import Architecture
from fieldmark.utils.random import hash64


@contextmanager
def seeded(seed: int, *context: object) -> Iterator[None]:
    """Draw PyTorch's random numbers on the CPU as a function of the seed and the context alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(hash64("torch", seed, *context) >> 1)
        yield


class Pixels(nn.Module):
    """uint8 crops (N, S, S, 3) to normalised float32 (N, 3, S, S), channels last in memory."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        mean = torch.tensor(architecture.mean).view(1, 3, 1, 1)
        std = torch.tensor(architecture.std).view(1, 3, 1, 1)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)
        self.mean: torch.Tensor
        self.std: torch.Tensor

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        """Put the channels first, bring to [0, 1], take off the mean, divide by the deviation."""
        return (crops.permute(0, 3, 1, 2).float() / 255.0 - self.mean) / self.std


class Trunk(nn.Module):
    """Crops to features: uint8 (N, S, S, 3) -> float32 (N, D).

    It shares the parameters of the network it was cut from, and stays in evaluation mode: `train()`
    has no effect on it, for a frozen BatchNorm must not learn from what passes through.
    """

    def __init__(self, architecture: Architecture, network: nn.Module) -> None:
        super().__init__()
        self.pixels = Pixels(architecture)
        self.features = with_layer(network, *_cut(architecture))
        super().train(False)

    def train(self, mode: bool = True) -> Trunk:  # noqa: ARG002  # the name is PyTorch's
        """Stay in evaluation mode."""
        return self

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        """The input of the network's last layer, one vector a crop."""
        features = self.features(self.pixels(crops))
        assert isinstance(features, torch.Tensor)
        return features.flatten(1)


def _cut(architecture: Architecture) -> tuple[str, nn.Module]:
    """What is put where, to make a network give the features."""
    if architecture.name.startswith("squeezenet"):
        # Its last layer works on maps; the features are their mean. The network flattens the rest.
        return "classifier", nn.AdaptiveAvgPool2d(1)
    return architecture.last_layer_path, nn.Identity()


def with_layer(network: nn.Module, path: str, layer: nn.Module) -> nn.Module:
    """A network that is `network` in all but the layer at `path`, and shares every other part."""
    twin = copy.copy(network)
    twin.__dict__["_modules"] = dict(network._modules)
    name, _, rest = path.partition(".")
    child = twin._modules[name]
    assert child is not None
    twin._modules[name] = with_layer(child, rest, layer) if rest else layer
    return twin


class ClassifierNetwork(nn.Module):
    """The network itself with its last layer: uint8 (N, S, S, 3) -> float32 scores (N, C).

    Attributes:
        network: the network as its library defines it.
        last_layer: the layer at the architecture's `last_layer_path`.
    """

    def __init__(
        self, architecture: Architecture, network: nn.Module, last_layer_path: str = ""
    ) -> None:
        super().__init__()
        self.pixels = Pixels(architecture)
        self.network = network
        self.last_layer_path = last_layer_path or architecture.last_layer_path
        self.is_pooled = self.last_layer_path != architecture.last_layer_path

    @property
    def last_layer(self) -> nn.Module:
        """The layer that is trained when all others are frozen."""
        return self.network.get_submodule(self.last_layer_path)

    @property
    def classes(self) -> int:
        """C."""
        return int(next(self.last_layer.parameters()).shape[0])

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        """The network's scores for each crop."""
        scores = self.network(self.pixels(crops))
        assert isinstance(scores, torch.Tensor)
        return scores


def literal(
    architecture: Architecture, network: nn.Module, num_classes: int, seed: int
) -> ClassifierNetwork:
    """A copy of `network` with a new last layer for `num_classes`: see `Backbone.literal`."""
    path = architecture.last_layer_path
    with seeded(seed, "last layer", architecture.name, num_classes):
        layer = _new_layer(network.get_submodule(path), num_classes)
    own = copy.deepcopy(with_layer(network, path, layer))
    # An engine may have laid out the backbone's tensors otherwise; training starts from one state.
    own = own.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    model = ClassifierNetwork(architecture, own)
    if isinstance(layer, nn.Conv2d):
        # SqueezeNet of torchvision keeps the number of classes beside the layer.
        model.network.num_classes = num_classes  # type: ignore[assignment]
    return model


def pooled(
    architecture: Architecture, network: nn.Module, num_classes: int, seed: int
) -> ClassifierNetwork:
    """A copy of `network` whose new last layer is linear on the features: see `Backbone.trainable`."""
    if not isinstance(network.get_submodule(architecture.last_layer_path), nn.Conv2d):
        return literal(architecture, network, num_classes, seed)
    with seeded(seed, "last layer", architecture.name, num_classes):
        linear = nn.Linear(architecture.feature_dim, num_classes)
    top = nn.Sequential(nn.Dropout(0.5), nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear)
    copied = copy.deepcopy(with_layer(network, "classifier", top))
    return ClassifierNetwork(architecture, copied, "classifier.3")


def split_last_layer(model: ClassifierNetwork, network: nn.Module) -> tuple[nn.Module, nn.Linear]:
    """What `pooled` put together, after training: the network, and its linear last layer.

    The network gets back the top of `network`, the one it was copied from, so that its tensors have
    the names that its library gives them.
    """
    linear = model.last_layer
    assert isinstance(linear, nn.Linear)
    place = "classifier" if model.is_pooled else model.last_layer_path
    return with_layer(model.network, place, network.get_submodule(place)).eval(), linear


def _new_layer(layer: nn.Module, num_classes: int) -> nn.Module:
    """A new layer with as many outputs as there are classes and the inputs of the old one."""
    if isinstance(layer, nn.Linear):
        return nn.Linear(layer.in_features, num_classes)  # with PyTorch's own initial values
    if isinstance(layer, nn.Conv2d):
        new = nn.Conv2d(layer.in_channels, num_classes, layer.kernel_size[0])
        nn.init.normal_(new.weight, mean=0.0, std=0.01)  # as torchvision begins SqueezeNet's
        assert new.bias is not None
        nn.init.zeros_(new.bias)
        return new
    raise TypeError(f"a last layer of type {type(layer).__name__} is not known here")


def last_layer_parameters(model: ClassifierNetwork) -> list[nn.Parameter]:
    """The parameters that are trained when all layers but the last are frozen."""
    return list(model.last_layer.parameters())
