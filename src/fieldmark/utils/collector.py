"""Python's garbage collector, which searches all objects again and again while modules are loaded."""

from __future__ import annotations

import gc
import sys
from importlib import import_module


def resume() -> None:
    """Let the collector run again, over what is made from now on."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


def load(module: str) -> None:
    """Load a module, with those that it imports, without the collector; nothing where it is loaded."""
    if module not in sys.modules:
        gc.disable()
        try:
            import_module(module)
        finally:
            resume()
