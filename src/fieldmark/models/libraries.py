"""The libraries of networks; each has `build` and `renamed`, and gives architectures."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, cast

from fieldmark.models import onnx_graph, open_clip, timm, torchvision, transformers
from fieldmark.models.architecture import Architecture
from fieldmark.utils.errors import InputError, first_line

if TYPE_CHECKING:
    from torch import nn

LIBRARIES = {
    "torchvision": torchvision,
    "timm": timm,
    "open_clip": open_clip,
    "transformers": transformers,
    "onnx": onnx_graph,
}


def of(facts: Architecture) -> ModuleType:
    """Return the module of the library that a network is of."""
    return LIBRARIES[facts.library]


def build(facts: Architecture) -> nn.Module:
    """Build a network with random weights.

    Raises:
        InputError: its library cannot build it, as where a classifier of unknown origin describes it.
    """
    try:
        network = cast("nn.Module", of(facts).build(facts))
        network.get_submodule(facts.last_layer_path)
    except InputError:
        raise
    except Exception as error:  # of a library, by a configuration from anywhere
        raise InputError(
            f"{facts.library} cannot build {facts.name} ({type(error).__name__}: {first_line(error)})."
        ) from error
    return network
