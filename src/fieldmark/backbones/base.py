"""What a backbone is: the network's facts, its weights' account, and the two together.

Nothing here imports PyTorch before a network is built, so that the command line starts quickly.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from fieldmark import files
from fieldmark.errors import InputError

if TYPE_CHECKING:
    from torch import nn

    from fieldmark.backbones.network import Literal, Trunk

# Part of every feature's key: to be raised whenever `Trunk` computes something else from the same
# weights and the same crop.
FEATURE_DEFINITION = 1

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class Architecture:
    """The facts of one network that hold whatever its weights are.

    Attributes:
        name: what the user calls it.
        library: who defines the network, `torchvision` or `timm`.
        feature_dim: D, the length of a feature vector.
        input_size: the side S of its square crops, in pixels.
        mean, std: what its weights expect pixels in [0, 1] to be normalised with, for R, G, B.
        last_layer: one sentence: what the last layer is, and what its input (the features) is.
        last_layer_path: where that layer is in the network, as PyTorch writes it.
        giga_macs: multiply-adds for one crop, in thousands of millions.
        licence: the terms of the pretrained weights.
        url: where the pretrained weights are published, or "".
    """

    name: str
    library: str
    feature_dim: int
    input_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    last_layer: str
    last_layer_path: str
    giga_macs: float
    licence: str
    url: str

    @property
    def file_name(self) -> str:
        """The name that a copy of the published weights has on this machine."""
        published = self.url.rsplit("/", 1)[-1]
        # Every network on the Hugging Face hub has a file of the same name.
        return f"{self.name}.safetensors" if published == "model.safetensors" else published


@dataclass(frozen=True)
class WeightsAccount:
    """What the weights of a backbone are, tensor by tensor.

    Only the trunk is counted (all but the last layer), for the features depend on nothing else.

    Attributes:
        source: the file's name, or "random (seed N)".
        digest: the SHA-256 of that file; None for random weights.
        filled: how many tensors of the trunk the file filled.
        total: how many tensors the trunk has.
        random: the names of those that kept random values.
        ignored: names in the file that the network has no place for.
    """

    source: str
    digest: str | None
    filled: int
    total: int
    random: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether nothing in the trunk is random."""
        return not self.random

    @property
    def pretrained(self) -> bool:
        """Whether at least a part of the trunk comes from a file."""
        return self.digest is not None

    @property
    def summary(self) -> str:
        """The account as one plain line."""
        if self.digest is None:
            return f"{self.source}: all {self.total} tensors of the trunk random"
        text = f"{self.source} (sha256 {self.digest[:8]}…): "
        text += f"{self.filled} of {self.total} tensors of the trunk filled"
        if self.random:
            text += f"; {', '.join(_layers(self.random))} random"
        return text


def _layers(parameters: tuple[str, ...]) -> list[str]:
    """The layers that some parameters belong to, in order: ("a.1.weight", "a.1.bias") -> ["a.1"]."""
    return list(dict.fromkeys(name.rpartition(".")[0] or name for name in parameters))


def key_at(key: str, side: int) -> str:
    """The key of a backbone on crops of another side than its own, by its own key."""
    return files.digest([key, side])


@dataclass(frozen=True, eq=False)
class Backbone:
    """A network with its weights, in evaluation mode.

    Attributes:
        architecture: the network's facts.
        network: the network as its library defines it, with its own last layer.
        account: where the weights came from and which of them are random.
        native: the same network on the side that it was made for; None: it is that one itself.
    """

    architecture: Architecture
    network: nn.Module
    account: WeightsAccount
    native: Backbone | None = None

    def at(self, side: int) -> Backbone:
        """The same network, its parameters shared, on crops of another side in pixels.

        Raises:
            InputError: the network takes crops of its own side alone.
        """
        native = self.native or self
        facts = native.architecture
        if side == facts.input_size:
            return native
        # Convolutions are nearly all of a network's work, and grow with the area.
        macs = round(facts.giga_macs * (side / facts.input_size) ** 2, 3)
        larger = replace(facts, input_size=side, giga_macs=macs)
        found = Backbone(larger, native.network, native.account, native)
        import torch

        try:
            with torch.inference_mode():
                found.trunk(torch.zeros((1, side, side, 3), dtype=torch.uint8))
        except (RuntimeError, ValueError, AssertionError) as error:
            raise InputError(
                f"{facts.name} takes crops of {facts.input_size} pixels alone, not of {side}."
            ) from error
        return found

    @cached_property
    def trunk(self) -> Trunk:
        """Crops to features: uint8 (N, S, S, 3) -> float32 (N, D), the input of the last layer.

        Normalises inside, and shares its parameters with `network`. Evaluation mode: no dropout,
        BatchNorm with its running statistics.
        """
        from fieldmark.backbones.network import Trunk

        return Trunk(self.architecture, self.network)

    @cached_property
    def key(self) -> str:
        """What its features are kept under: 64 hex digits.

        A digest of the values of the trunk's weights, the architecture and what a feature is
        defined to be; so a random backbone's key depends on its seed, and two files with the same
        values give the same key.
        """
        from fieldmark.backbones.weights import digest_of_values

        if self.native is not None:
            return key_at(self.native.key, self.architecture.input_size)
        facts = self.architecture
        return files.digest(
            {
                "definition": FEATURE_DEFINITION,
                "architecture": [facts.library, facts.name, facts.input_size],
                "pixels": [facts.mean, facts.std],
                "weights": digest_of_values(self.network, facts.last_layer_path),
            }
        )

    def literal(self, num_classes: int, seed: int) -> Literal:
        """A copy of the network itself with a new last layer for `num_classes`, ready to train.

        The new layer is what the library defines for this network (SqueezeNet: dropout, 1x1
        convolution, ReLU, mean; AlexNet: its dropouts stay), with initial values that depend on
        the seed, the architecture and nothing else. It takes uint8 (N, S, S, 3) and gives
        float32 (N, num_classes). Training it leaves this backbone as it is.
        """
        from fieldmark.backbones.network import literal

        return literal(self.architecture, self.network, num_classes, seed)

    def trainable(self, num_classes: int, seed: int) -> Literal:
        """As `literal`, but with a last layer that is linear on the features for every network.

        Only SqueezeNet's differs: its 1x1 convolution and ReLU become a linear layer on the mean.
        """
        from fieldmark.backbones.network import pooled

        return pooled(self.architecture, self.network, num_classes, seed)

    def trained(self, model: Literal) -> tuple[Backbone, nn.Linear]:
        """The backbone and the last layer of what `trainable` gave, after training."""
        from fieldmark.backbones.network import taken_apart

        network, linear = taken_apart(model, self.network)
        return Backbone(self.architecture, network, self.account), linear
