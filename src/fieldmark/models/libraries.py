"""The libraries of networks; each has `build` and `renamed`, and gives architectures."""

from __future__ import annotations

from types import ModuleType

from fieldmark.models import open_clip, timm, torchvision, transformers
from fieldmark.models.architecture import Architecture

LIBRARIES = {"torchvision": torchvision, "timm": timm, "open_clip": open_clip, "transformers": transformers}


def of(facts: Architecture) -> ModuleType:
    """Return the module of the library that a network is of."""
    return LIBRARIES[facts.library]
