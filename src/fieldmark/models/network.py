"""Remove or replace the last layer of a network, and normalise pixels in front of it.

With an identity in place of the last layer a network returns that layer's input: the trunk.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fieldmark.models.architecture import INSIDE, LAST, Architecture
from fieldmark.utils.errors import InputError
from fieldmark.utils.random import hash64


@contextmanager
def seeded(seed: int, *context: object) -> Iterator[None]:
    """Seed PyTorch's random numbers on the CPU by the seed and the context only."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(hash64("torch", seed, *context) >> 1)
        yield


class Pixels(nn.Module):
    """uint8 crops (N, S, S, 3) to normalised float32 (N, 3, S, S), channels last in memory."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.mean: torch.Tensor
        self.std: torch.Tensor
        for name, values in (("mean", architecture.mean), ("std", architecture.std)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        """Move the channels first, scale to [0, 1] and normalise."""
        return (crops.permute(0, 3, 1, 2).float() / 255.0 - self.mean) / self.std


class UnitLength(nn.Module):
    """A network whose output, shape (N, D), is scaled to length 1."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Compute the network's output and scale it."""
        found = self.inner(pixels)
        if isinstance(found, tuple):  # CoCa gives its tokens as well
            found = found[0]
        return nn.functional.normalize(found, dim=-1)


class Pooled(nn.Module):
    """A network of transformers, whose output has a pooled part: (N, 3, S, S) -> (N, D).

    Of one with an image and a text tower the image tower alone is kept; it gives embeddings of length 1.
    """

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.is_pair = hasattr(inner, "get_image_features")
        if self.is_pair:
            for name, _ in list(inner.named_children()):
                if name.startswith("text"):
                    delattr(inner, name)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Compute the pooled output."""
        compute = self.inner.get_image_features if self.is_pair else self.inner
        found = compute(pixel_values=pixels)  # type: ignore[operator]
        pooled: torch.Tensor | None = getattr(found, "pooler_output", None)
        if pooled is None:
            pooled = found.last_hidden_state[:, 0]
        return nn.functional.normalize(pooled, dim=-1) if self.is_pair else pooled.flatten(1)


class GraphNetwork(nn.Module):
    """An ONNX graph, run by ONNX Runtime: normalised crops (N, 3, S, S) to features (N, D).

    Its only tensor is the graph: the bytes of the file, uint8 (`size`,).
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.graph: torch.Tensor
        self.register_buffer("graph", torch.zeros(size, dtype=torch.uint8))
        self._session: Any = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the session, which is made again."""
        return self.__dict__ | {"_session": None}

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Run the graph; a feature map is averaged. Raises RuntimeError where it takes no such crops."""
        try:
            if self._session is None:
                self._session = session(self.graph.cpu().numpy().tobytes())
            given = {self._session.get_inputs()[0].name: pixels.detach().cpu().contiguous().numpy()}
            found = torch.from_numpy(self._session.run(None, given)[0]).to(pixels.device)
        except Exception as error:  # ONNX Runtime's errors have no common root but this
            raise RuntimeError(str(error)) from error
        return found.mean((2, 3)) if found.ndim == 4 else found


def session(data: bytes) -> Any:
    """Return a session of ONNX Runtime that runs a graph on the CPU."""
    import onnx
    import onnxruntime
    from onnx.external_data_helper import _get_all_tensors, uses_external_data

    if any(map(uses_external_data, _get_all_tensors(onnx.load_from_string(data)))):
        raise ValueError("a graph in a classifier reads no other files")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # a refusal is told by the error
    return onnxruntime.InferenceSession(data, options, ["CPUExecutionProvider"])


def with_last(network: nn.Module, dim: int) -> nn.Module:
    """Put a linear layer, `last`, behind a network, then `network`, whose output is (N, dim)."""
    return nn.Sequential(OrderedDict([(INSIDE, network), (LAST, nn.Linear(dim, 1))]))


def giga_macs(network: nn.Module, side: int) -> float:
    """Count multiply-adds on meta tensors, without computation."""
    counter = FlopCounterMode(display=False)
    network.eval().requires_grad_(False)  # the counter's hooks ask for gradients of parameters
    with counter, torch.no_grad():
        network(torch.empty(1, 3, side, side, device="meta"))
    return round(counter.get_total_flops() / 2e9, 3)


class Trunk(nn.Module):
    """Crops to features: uint8 (N, S, S, 3) -> float32 (N, D).

    It shares the parameters of its network, and stays in evaluation mode: `train()` has no effect, since
    a frozen BatchNorm must not be updated.
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
        """Compute the input of the network's last layer, one vector a crop."""
        features: torch.Tensor = self.features(self.pixels(crops))
        return features.flatten(1)


def _cut(architecture: Architecture) -> tuple[str, nn.Module]:
    """Return which layer to replace, and by what, to get the features."""
    if architecture.name.startswith("squeezenet"):
        # Its last layer is a convolution; the features are the mean of its input.
        return "classifier", nn.AdaptiveAvgPool2d(1)
    return architecture.last_layer_path, nn.Identity()


def with_layer(network: nn.Module, path: str, layer: nn.Module) -> nn.Module:
    """Replace the layer at `path` in a network that shares all other layers."""
    twin = copy.copy(network)
    twin.__dict__["_modules"] = dict(network._modules)
    name, _, rest = path.partition(".")
    child = twin._modules[name]
    assert child is not None
    twin._modules[name] = with_layer(child, rest, layer) if rest else layer
    return twin


def _crashes_with_channels_last(layer: nn.Conv2d) -> bool:
    """Whether PyTorch's gradient of this layer ends the process (oneDNN without AVX-512; stems of RepVGG)."""
    points = (layer.kernel_size, layer.padding) == ((1, 1), (0, 0))
    return points and max(layer.stride) > 1 and layer.in_channels < 4


@dataclass(frozen=True)
class _EveryNth:
    """Gives a layer of stride 1 each n-th row and column: all that a stride of n reads of points."""

    strides: tuple[int, ...]

    def __call__(self, _layer: nn.Module, given: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        rows, columns = self.strides
        return (given[0][..., ::rows, ::columns],)


class ClassifierNetwork(nn.Module):
    """The network itself with its last layer: uint8 (N, S, S, 3) -> float32 scores (N, C)."""

    def __init__(self, architecture: Architecture, network: nn.Module, last_layer_path: str = "") -> None:
        super().__init__()
        self.pixels = Pixels(architecture)
        self.network = network  # as its library defines it
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d) and _crashes_with_channels_last(layer):
                layer.register_forward_pre_hook(_EveryNth(layer.stride))
                layer.stride = (1, 1)
        self.last_layer_path = last_layer_path or architecture.last_layer_path
        self.is_pooled = self.last_layer_path != architecture.last_layer_path

    @property
    def last_layer(self) -> nn.Module:
        """Return the layer that is trained when all others are frozen."""
        return self.network.get_submodule(self.last_layer_path)

    @property
    def classes(self) -> int:
        """Return C."""
        return int(next(self.last_layer.parameters()).shape[0])

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        """Compute the network's scores for each crop."""
        scores: torch.Tensor = self.network(self.pixels(crops))
        return scores


def literal(architecture: Architecture, network: nn.Module, num_classes: int, seed: int) -> ClassifierNetwork:
    """Copy a network with a new last layer for `num_classes`: see `Backbone.literal`."""
    if not architecture.trains:
        raise InputError(
            f"{architecture.name} is an ONNX graph, which is not trained itself: leave --transfer out."
        )
    path = architecture.last_layer_path
    with seeded(seed, "last layer", architecture.name, num_classes):
        layer = _new_layer(network.get_submodule(path), num_classes)
    own = copy.deepcopy(with_layer(network, path, layer))
    # An engine may have changed the memory format; training starts from one state.
    own = own.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    model = ClassifierNetwork(architecture, own)
    if isinstance(layer, nn.Conv2d):
        # torchvision's SqueezeNet stores the number of classes separately.
        model.network.num_classes = num_classes  # type: ignore[assignment]
    return model


def pooled(architecture: Architecture, network: nn.Module, num_classes: int, seed: int) -> ClassifierNetwork:
    """Copy a network with a linear last layer on the features: see `Backbone.trainable`."""
    if not isinstance(network.get_submodule(architecture.last_layer_path), nn.Conv2d):
        return literal(architecture, network, num_classes, seed)
    with seeded(seed, "last layer", architecture.name, num_classes):
        linear = nn.Linear(architecture.feature_dim, num_classes)
    place, _ = _cut(architecture)
    own = [nn.Dropout(0.5), nn.AdaptiveAvgPool2d(1)] if place != architecture.last_layer_path else []
    top = nn.Sequential(*own, nn.Flatten(), linear)
    return ClassifierNetwork(
        architecture, copy.deepcopy(with_layer(network, place, top)), f"{place}.{len(top) - 1}"
    )


def split_last_layer(model: ClassifierNetwork, network: nn.Module) -> tuple[nn.Module, nn.Linear]:
    """Split the result of `pooled`, after training, into the network and its linear last layer.

    The network gets back the last layer of `network`, so that its tensors have their original names.
    """
    linear = model.last_layer
    assert isinstance(linear, nn.Linear)
    place = model.last_layer_path.rpartition(".")[0] if model.is_pooled else model.last_layer_path
    return with_layer(model.network, place, network.get_submodule(place)).eval(), linear


def storable(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Make tensors contiguous, each in memory of its own, as safetensors needs them; a few networks use a
    layer twice."""
    found: dict[str, torch.Tensor] = {}
    addresses: set[int] = set()
    for name, tensor in tensors.items():
        whole = tensor.contiguous()
        address = whole.untyped_storage().data_ptr()
        found[name] = whole.clone() if address in addresses else whole
        addresses.add(address)
    return found


def _new_layer(layer: nn.Module, num_classes: int) -> nn.Module:
    """Return a new layer with one output a class and the inputs of the old one."""
    if isinstance(layer, nn.Linear):
        return nn.Linear(layer.in_features, num_classes)  # with PyTorch's own initial values
    if not isinstance(layer, nn.Conv2d):
        raise TypeError(f"a last layer of type {type(layer).__name__} is not supported")
    new = nn.Conv2d(layer.in_channels, num_classes, layer.kernel_size[0])
    nn.init.normal_(new.weight, mean=0.0, std=0.01)  # as torchvision begins SqueezeNet's
    assert new.bias is not None
    nn.init.zeros_(new.bias)
    return new
