"""The device and the precision, by Lightning Fabric: a GPU where PyTorch finds one, else the CPU."""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import TYPE_CHECKING

from fieldmark.finetune.recipe import FineTuning

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def machine(how: FineTuning) -> Fabric:
    """What the network runs on, in the recipe's precision."""
    return _machine(how.precision)


@lru_cache(maxsize=2)
def _machine(precision: str) -> Fabric:
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it greets otherwise
    from lightning_fabric import Fabric

    return Fabric(devices=1, precision="bf16-mixed" if precision == "bfloat16" else "32-true")
