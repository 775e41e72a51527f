"""Import torchvision where its compiled operators cannot be loaded.

The build of torchvision on PyPI is compiled for the GPU build of PyTorch. With a CPU-only PyTorch its
operators do not load, and the import fails with "operator torchvision::nms does not exist". The
classification networks use no detection operators: with their signatures declared the import succeeds.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_declared: list[Any] = []  # torch drops a declaration when its library object is collected


def import_torchvision() -> ModuleType:
    """Import torchvision, declaring its detection operators first if necessary.

    Packages that import torchvision (timm) must be imported after this.
    """
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]  # half imported
        import torch

        library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        for operator in ("nms", "qnms"):
            library.define(operator + _SIGNATURE)  # type: ignore[no-untyped-call]
        _declared.append(library)
        import torchvision
    return torchvision  # type: ignore[no-any-return]
