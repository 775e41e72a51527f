"""The device, the data type and the processes, by Lightning Fabric: a GPU if PyTorch finds one, else the
CPU; one process, or those that `torchrun` has started."""

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

_TIMEOUT = timedelta(days=7)  # the others wait while the first one computes features


def join_processes(transfer: Transfer) -> None:
    """Connect to the other processes of `torchrun`, if any; call it before any long work.

    Raises:
        InputError: there are other processes, and nothing for them to do.
    """
    if distributed.process_count() > 1:
        if transfer == "last":
            raise InputError(
                "Several processes share the training of a whole network: add --transfer all, or "
                "run the command without torchrun."
            )
        _fabric("float32")


def fabric(recipe: FineTuning) -> Fabric:
    """Return the Fabric for the recipe's data type."""
    return _fabric(recipe.precision)


@lru_cache(maxsize=2)
def _fabric(precision: str) -> Fabric:
    for name_ in ("lightning_fabric", "lightning_utilities.core.rank_zero"):
        logging.getLogger(name_).setLevel(logging.WARNING)  # no start messages
    from lightning_fabric import Fabric

    name: Literal["bf16-mixed", "32-true"]
    name = "bf16-mixed" if precision == "bfloat16" else "32-true"
    if distributed.process_count() == 1:
        return Fabric(devices=1, precision=name)
    from lightning_fabric.strategies.ddp import DDPStrategy

    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    together = Fabric(
        devices=here,
        num_nodes=distributed.process_count() // here,
        strategy=DDPStrategy(timeout=_TIMEOUT),
        precision=name,
    )
    together.launch()
    return together
