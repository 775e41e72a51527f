"""The device, the precision and the processes, by Lightning Fabric: a GPU where PyTorch finds one, else
the CPU; one process, or those that `torchrun` has started."""

from __future__ import annotations

import logging
import os
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from fieldmark.training.finetune import distributed
from fieldmark.training.finetune.config import FineTuning
from fieldmark.utils.choices import Transfer
from fieldmark.utils.errors import InputError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_PATIENCE = timedelta(days=7)  # the others wait while the first one computes features


def join(transfer: Transfer) -> None:
    """Where `torchrun` has started this process, meet the others; to be called before any long work.

    Raises:
        InputError: there are others, and nothing for them to do.
    """
    if distributed.world() > 1:
        if transfer == "last":
            raise InputError(
                "Several processes share the training of a whole network: add --transfer all, or "
                "run the command without torchrun."
            )
        _machine("float32")


def machine(how: FineTuning) -> Fabric:
    """What the network runs on, in the recipe's precision."""
    return _machine(how.precision)


@lru_cache(maxsize=2)
def _machine(precision: str) -> Fabric:
    for name_ in ("lightning_fabric", "lightning_utilities.core.rank_zero"):
        logging.getLogger(name_).setLevel(logging.WARNING)  # they greet otherwise
    from lightning_fabric import Fabric

    name: Literal["bf16-mixed", "32-true"]
    name = "bf16-mixed" if precision == "bfloat16" else "32-true"
    if distributed.world() == 1:
        return Fabric(devices=1, precision=name)
    from lightning_fabric.strategies.ddp import DDPStrategy

    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    together = Fabric(
        devices=here,
        num_nodes=distributed.world() // here,
        strategy=DDPStrategy(timeout=_PATIENCE),
        precision=name,
    )
    together.launch()
    return together
