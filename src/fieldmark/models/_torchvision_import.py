"""Importing torchvision where its compiled operators cannot be loaded.

The build of torchvision that the Python package index offers is compiled for the GPU build of
PyTorch. Beside a CPU-only PyTorch its library of operators does not load, and the import ends in
"operator torchvision::nms does not exist", because torchvision describes the shapes of its
detection operators whether they are there or not. The classification networks use none of them:
with their signatures declared (and nothing behind them) the import succeeds.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_declared: list[Any] = []  # torch forgets a declaration as soon as its library object is collected


def import_torchvision() -> ModuleType:
    """Import torchvision, declaring its detection operators first if that is what it takes.

    Anything that imports torchvision in turn (timm) is to be imported after this.
    """
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        _forget_half_import()
        _declare()
        import torchvision
    return torchvision  # type: ignore[no-any-return]


def _declare() -> None:
    import torch

    library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for operator in ("nms", "qnms"):
        library.define(operator + _SIGNATURE)  # type: ignore[no-untyped-call]
    _declared.append(library)


def _forget_half_import() -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
