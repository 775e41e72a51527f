"""The architecture of a network, and the source of its weights; without importing PyTorch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fieldmark.data.transforms import PAPER_CROP, Preprocess

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)

HUB = "https://huggingface.co"
HUB_FILES = (
    *("open_clip_model.safetensors", "model.safetensors"),
    *("open_clip_pytorch_model.bin", "pytorch_model.bin"),
)
"""Files of weights on the Hugging Face hub, the preferred ones first."""


def triple(values: Any) -> tuple[float, float, float]:
    """Return three values, for R, G and B, as numbers."""
    red, green, blue = map(float, values)
    return red, green, blue


INSIDE, LAST = "network", "last"
"""The modules of a network that has no single last layer of its own: see `network.with_last`."""


@dataclass(frozen=True)
class Architecture:
    """The properties of a network that do not depend on its weights."""

    name: str  # for users
    library: str  # a key of `libraries.LIBRARIES`
    feature_dim: int  # D, the length of a feature vector
    input_size: int  # the side S of its square crops, in pixels
    mean: tuple[float, float, float]  # of pixels in [0, 1], for R, G, B
    std: tuple[float, float, float]
    last_layer: str  # one sentence about the last layer and its input, the features
    last_layer_path: str  # of that layer in the network, as PyTorch writes it
    giga_macs: float  # multiply-adds for one crop, in units of 10^9
    licence: str  # the terms of the pretrained weights
    url: str  # where the pretrained weights are published, or ""
    preprocess: Preprocess = PAPER_CROP  # how it was published, in the proportions of its own side
    published_size: int | None = None  # the side that it was published for, where `input_size` is another
    config: str = ""  # JSON that the library builds the network from, "" where its name is enough

    def at(self, side: int) -> Architecture:
        """Return the same for crops of another side in pixels."""
        # Convolutions dominate the cost, and grow with the area.
        macs = round(self.giga_macs * (side / self.input_size) ** 2, 3)
        published = self.published_size or self.input_size
        return replace(self, input_size=side, giga_macs=macs, published_size=published)

    @property
    def trains(self) -> bool:
        """Return whether the network itself can be fine-tuned."""
        return self.library != "onnx"

    @property
    def published(self) -> Architecture:
        """Return the same for crops of the side that it was published for."""
        return replace(self.at(self.published_size or self.input_size), published_size=None)

    @property
    def file_name(self) -> str:
        """Return the local file name of the published weights."""
        published = Path(self.url.rsplit("/", 1)[-1])
        # Every network on the Hugging Face hub has a file of one of these names.
        return self.stem + published.suffix if published.name in HUB_FILES else published.name

    @property
    def stem(self) -> str:
        """Return the name as that of a file: `hf-hub:OWNER/NAME` is `OWNER--NAME`."""
        return self.name.partition(":")[2].replace("/", "--") or self.name


@dataclass(frozen=True)
class WeightsInfo:
    """The source of a backbone's weights.

    Only the trunk is counted (all but the last layer), which the features depend on.
    """

    source: str  # the file's name, or "random (seed N)"
    digest: str | None  # the SHA-256 of that file; None for random weights
    filled: int  # how many tensors of the trunk the file filled
    total: int  # how many tensors the trunk has
    random: tuple[str, ...] = ()  # the names of the tensors with random values
    ignored: tuple[str, ...] = ()  # names in the file that the network does not have

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
            return f"{self.source} weights, nothing is pretrained"
        # The layers with random values, in order: a.1.weight, a.1.bias -> a.1
        layers = dict.fromkeys(name.rpartition(".")[0] or name for name in self.random)
        rest = f"; {', '.join(layers)} random" if layers else ""
        filled = "complete" if self.complete else f"{self.filled} of {self.total} tensors"
        return f"pretrained weights ({filled}) from {self.source}, sha256 {self.digest[:8]}…{rest}"
