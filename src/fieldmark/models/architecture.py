"""The architecture of a network, and the source of its weights; without importing PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class Architecture:
    """The properties of a network that do not depend on its weights.

    Attributes:
        name: its name for users.
        library: `torchvision` or `timm`.
        feature_dim: D, the length of a feature vector.
        input_size: the side S of its square crops, in pixels.
        mean, std: normalisation of pixels in [0, 1], for R, G, B.
        last_layer: one sentence about the last layer and its input, the features.
        last_layer_path: the path of that layer in the network, as PyTorch writes it.
        giga_macs: multiply-adds for one crop, in units of 10^9.
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
        """Return the local file name of the published weights."""
        published = self.url.rsplit("/", 1)[-1]
        # Every network on the Hugging Face hub has a file of the same name.
        return f"{self.name}.safetensors" if published == "model.safetensors" else published


@dataclass(frozen=True)
class WeightsInfo:
    """The source of a backbone's weights.

    Only the trunk is counted (all but the last layer), which the features depend on.

    Attributes:
        source: the file's name, or "random (seed N)".
        digest: the SHA-256 of that file; None for random weights.
        filled: how many tensors of the trunk the file filled.
        total: how many tensors the trunk has.
        random: the names of the tensors with random values.
        ignored: names in the file that the network does not have.
    """

    source: str
    digest: str | None
    filled: int
    total: int
    random: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Return whether nothing in the trunk is random."""
        return not self.random

    @property
    def pretrained(self) -> bool:
        """Return whether at least a part of the trunk comes from a file."""
        return self.digest is not None

    @property
    def line(self) -> str:
        """Return the file with its digest in one line; `random` where there is no file."""
        if not self.pretrained:
            return "random"
        share = "complete" if self.complete else f"{self.filled} of {self.total} tensors"
        return f"{Path(self.source).name} sha256:{self.digest} ({share})"

    @property
    def summary(self) -> str:
        """Return the source and completeness of the weights in one line."""
        if self.digest is None:
            return f"{self.source}: all {self.total} tensors of the trunk random"
        text = f"{self.source} (sha256 {self.digest[:8]}…): "
        text += f"{self.filled} of {self.total} tensors of the trunk filled"
        if self.random:
            text += f"; {', '.join(_layers(self.random))} random"
        return text


def _layers(parameters: tuple[str, ...]) -> list[str]:
    """Return the layers of some parameters, in order: ("a.1.weight", "a.1.bias") -> ["a.1"]."""
    return list(dict.fromkeys(name.rpartition(".")[0] or name for name in parameters))
