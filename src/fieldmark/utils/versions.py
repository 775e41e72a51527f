"""The versions of the software that numbers depend on."""

from __future__ import annotations

import platform
from importlib import metadata

from fieldmark import __version__


def versions() -> dict[str, str]:
    """The versions of what the numbers depend on."""
    packages = ("numpy", "onnxruntime", "pillow", "simplejpeg", "timm", "torch", "torchvision")
    found = {name: metadata.version(name) for name in packages}
    return {"fieldmark": __version__, "python": platform.python_version(), **found}
