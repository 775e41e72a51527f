"""Estimate the memory of fine-tuning by a recipe, and refuse what does not fit into this computer."""

from __future__ import annotations

import copy
import logging
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fieldmark.models.network import ClassifierNetwork as Network
from fieldmark.training.finetune import layers
from fieldmark.training.finetune.adamw8 import state_bytes
from fieldmark.training.finetune.config import FineTuning
from fieldmark.training.finetune.device import fabric
from fieldmark.utils import memory
from fieldmark.utils.errors import InputError
from fieldmark.utils.memory import gib

logger = logging.getLogger(__name__)

_SLACK = 1.3
"""What the process takes for a byte of activations, since freed blocks are not all used again: measured peaks
are 1.0 to 1.8 times the sum of the tensors (docs/finetune.md)."""


@dataclass(frozen=True)
class Memory:
    """Bytes that a training takes.

    Attributes:
        network: of the weights.
        mean: of the running mean of the weights.
        gradients, optimiser: of what is trained.
        photo: of a photo's activations, at the full side.
        scored: of a photo that is scored.
        recipe: how many photos are computed at once.
    """

    network: int
    mean: int
    gradients: int
    optimiser: int
    photo: int
    scored: int
    recipe: FineTuning

    @property
    def fixed(self) -> int:
        """All that does not depend on the number of photos, without the network, which exists already."""
        return self.mean + self.gradients + self.optimiser

    @property
    def activations(self) -> int:
        """Of the photos that are computed at once, in training or when they are scored."""
        tensors = max(self.photo * self.recipe.at_once, self.scored * self.recipe.scored)
        return round(_SLACK * tensors)

    @property
    def more(self) -> int:
        """All but the network."""
        return self.fixed + self.activations

    @property
    def parts(self) -> str:
        """Return what takes how much, in words."""
        return (
            f"weights {gib(self.network + self.mean)}, gradients and optimiser "
            f"{gib(self.gradients + self.optimiser)}, activations of {self.recipe.at_once} photos "
            f"{gib(self.activations)}"
        )


def check(network: Network, recipe: FineTuning, side: int, *, options: bool = True) -> Memory:
    """Estimate the memory of a training, log it, and compare it with what is available.

    Args:
        network: it is left unchanged.
        recipe: how it would be trained.
        side: of its crops, in pixels.
        options: whether a refusal names options of `fieldmark train` with which it would fit.

    Raises:
        InputError: it does not fit, with what would; or the network cannot be trained so.
    """
    room = _room()
    found = estimate(network, recipe, side, room)
    told = f"about {gib(found.network + found.more)} of memory ({found.parts})"
    logger.info(f"Fine-tuning takes {told}; {gib(room) if room else 'an unknown amount'} is available.")
    if room is None or found.more <= room:
        return found
    short = f"Fine-tuning would take {told}, and {gib(room)} is available"
    if not options:
        raise InputError(f"{short}.")
    ways = [*_fitting(network, found, side, room), "--transfer last, which keeps no activations"]
    raise InputError(f"{short}: add {', or '.join(ways)}.")


def estimate(network: Network, recipe: FineTuning, side: int, room: int | None = None) -> Memory:
    """Estimate the memory of a training by one or two photos on the CPU.

    Args:
        network: it is left unchanged.
        recipe: how it would be trained.
        side: of its crops, in pixels.
        room: bytes; if more are needed before any photo, activations are not measured and stand as 0.

    Raises:
        InputError: the network has no activation checkpointing, and the recipe asks for it.
    """
    network = copy.deepcopy(network).cpu()
    weights = _size(network.parameters()) + _size(network.buffers())
    layers.set_trainable(network, recipe)
    layers.set_checkpointing(network, recipe)
    layers.set_modes(network, recipe)
    trained = [each for each in network.parameters() if each.requires_grad]
    moments = state_bytes((each.numel() for each in trained), recipe.optimizer_bits)
    fixed = (weights if recipe.average else 0), _size(trained), moments
    if room is not None and sum(fixed) > room:
        return Memory(weights, *fixed, 0, 0, recipe)

    def train(photos: int) -> None:
        with fabric(recipe).autocast():
            scores = network(torch.zeros((photos, side, side, 3), dtype=torch.uint8))
        scores.float().sum().backward()

    def score(photos: int) -> None:
        with torch.inference_mode():
            network(torch.zeros((photos, side, side, 3), dtype=torch.uint8))

    first = 1 + recipe.learns_statistics  # BatchNorm takes no statistics of one photo
    train(first)  # creates the gradients
    photo = _of_one_more(train, first)
    network.eval()
    return Memory(weights, *fixed, photo, _of_one_more(score), recipe)


def _of_one_more(run: Callable[[int], None], first: int = 1) -> int:
    """Return the bytes by which the peak for two photos is above that for one."""
    peaks: list[int] = []
    for photos in (first, first + 1):
        peak = _Peak()
        with peak:
            run(photos)
        peaks.append(peak.most)
    return max(peaks[1] - peaks[0], 0)


class _Peak(TorchDispatchMode):  # type: ignore[no-untyped-call]  # PyTorch does not type it
    """Count the bytes of the tensors that exist at the same time within a block, as they are created."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.most = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, and count the storages that it created."""
        given = {_address(each) for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)}
        found = func(*args, **(kwargs or {}))
        for each in tree_leaves(found):
            if isinstance(each, torch.Tensor) and _address(each) not in given | self._known | {0}:
                storage = each.untyped_storage()
                self._known.add(storage.data_ptr())
                self.now += storage.nbytes()
                self.most = max(self.most, self.now)
                weakref.finalize(storage, self._freed, storage.data_ptr(), storage.nbytes())
        return found

    def _freed(self, address: int, size: int) -> None:
        self._known.discard(address)
        self.now -= size


def _address(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _size(tensors: Iterable[torch.Tensor]) -> int:
    return sum(each.numel() * each.element_size() for each in tensors)


def _room() -> int | None:
    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0])
    return memory.available()


def _fitting(network: Network, found: Memory, side: int, room: int) -> Iterator[str]:
    """Yield the options that fit into `room` bytes, with their memory: single ones, else all together."""
    recipe = found.recipe
    ways: dict[str, dict[str, Any]] = {"": {}}
    if not recipe.checkpointing:
        ways["--checkpointing"] = {"checkpointing": True}
    if recipe.transfer in ("all", "scratch"):
        if recipe.optimizer_bits != 8:
            ways["--optimizer-bits 8"] = {"optimizer_bits": 8}
        ways["--transfer low-rank"] = {"transfer": "low-rank"}
    every = {name: value for change in ways.values() for name, value in change.items()}
    told: list[str] = []
    for option, change in [*ways.items(), (" ".join(ways).strip(), every)]:
        if change == every and told:
            break
        with suppress(InputError):  # a network without checkpointing
            measured = estimate(network, replace(recipe, **change), side, room) if change else found
            parts = (recipe.accumulate << times for times in range(recipe.batch_size.bit_length()))
            tried = (replace(measured, recipe=replace(measured.recipe, accumulate=count)) for count in parts)
            if fits := next((each for each in tried if each.more <= room), None):
                count = fits.recipe.accumulate
                names = [option] * bool(option) + [f"--accumulate {count}"] * (count > recipe.accumulate)
                told.append(f"{' '.join(names)} ({gib(fits.network + fits.more)})")
    yield from told
