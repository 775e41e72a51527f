"""What is known of a network: its architecture, and where its weights came from.

Nothing here imports PyTorch before a network is built, so that the command line starts quickly.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

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
class WeightsInfo:
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
    def line(self) -> str:
        """Return the file with its digest in one line; `random` where there is no file."""
        if not self.pretrained:
            return "random"
        share = "complete" if self.complete else f"{self.filled} of {self.total} tensors"
        return f"{Path(self.source).name} sha256:{self.digest} ({share})"

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
