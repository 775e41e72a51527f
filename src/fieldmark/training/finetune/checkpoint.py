"""The checkpoint of a training run, from which an interrupted run resumes.

It is the state between two updates: the weights, the optimiser's moments, the running mean of the
weights, and the position in the epoch. All else is a function of the recipe and the photos, so a resumed
run gives the same result.
"""

from __future__ import annotations

import time
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from fieldmark.heads.softmax import Epoch
from fieldmark.models.network import storable
from fieldmark.training.finetune import distributed
from fieldmark.utils import io
from fieldmark.utils.errors import StoreError

_SHARE = 20
"""The time between checkpoints is at least this many times the time that writing one took."""


class TrainingState:
    """The state of a run.

    Attributes:
        curve: one entry for each finished epoch.
        batch: the number of finished batches of the current epoch.
        total: the sum of their photos' losses.
        seconds: the time of the run so far, over all restarts.

    Args:
        network: the network in training.
        mean: the running mean of its weights; the network itself where there is none.
        optimiser: its moments are part of the state.
        run: the key of the run.
        path: the file; None: no checkpoints.
        every: the minimum number of seconds between checkpoints.
    """

    def __init__(
        self,
        network: nn.Module,
        mean: nn.Module,
        optimiser: torch.optim.Optimizer,
        run: str,
        path: Path | None,
        every: float,
    ) -> None:
        self.parts = {"network": network} | ({} if mean is network else {"mean": mean})
        self.optimiser, self.run, self.path, self.every = optimiser, run, path, every
        self.curve: list[Epoch] = []
        self.batch, self.total = 0, 0.0
        self.seconds, self._since = 0.0, time.perf_counter()
        self._saved, self._took = self._since, 0.0

    def after_update(self, loss: float, photos: int) -> None:
        """Count a finished batch, and write a checkpoint if it is time."""
        self.batch += 1
        self.total += loss * photos
        if time.perf_counter() - self._saved >= max(self.every, _SHARE * self._took):
            self.save()

    def after_epoch(self, entry: Epoch) -> None:
        """Add the entry of a finished epoch, and write a checkpoint."""
        self.curve.append(entry)
        self.batch, self.total = 0, 0.0
        self.save()

    def save(self) -> None:
        """Write a checkpoint."""
        start = time.perf_counter()
        self.seconds += start - self._since
        self._since = start
        if self.path is None or distributed.process_index():
            return
        tensors = {
            f"{part}.{name}": tensor
            for part, module in self.parts.items()
            for name, tensor in _changing(module, self.parts["network"]).items()
        }
        for number, entry in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{number}.{name}": tensor for name, tensor in entry.items()}
        about = {
            "run": self.run,
            "seconds": str(self.seconds),
            "batch": str(self.batch),
            "total": self.total.hex(),
            "curve": io.to_json([epoch.to_dict() for epoch in self.curve]),
        }
        with io.replacing(self.path) as temporary:
            save_file(storable(tensors), temporary, about)
        self._saved = time.perf_counter()
        self._took = self._saved - start

    def resume(self) -> None:
        """Read the checkpoint, if it is one of this run.

        Raises:
            StoreError: it is damaged.
        """
        if self.path is None or not self.path.exists():
            return
        try:
            with safe_open(self.path, "pt") as kept:
                about = kept.metadata() or {}
                if about["run"] != self.run:
                    return
                tensors = {name: kept.get_tensor(name) for name in kept.keys()}  # noqa: SIM118
            self.curve = [Epoch.from_dict(entry) for entry in io.from_json(about["curve"])]
            self.batch, self.total = int(about["batch"]), float.fromhex(about["total"])
            self.seconds = float(about["seconds"])
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise _damaged(self.path, error) from error
        found: dict[str, dict[str, torch.Tensor]] = {}
        for name, tensor in tensors.items():
            part, _, rest = name.partition(".")
            found.setdefault(part, {})[rest] = tensor
        for part, module in self.parts.items():
            module.load_state_dict(found.get(part, {}), strict=False)
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in found.get("optimiser", {}).items():
            number, _, moment = name.partition(".")
            moments.setdefault(int(number), {})[moment] = tensor
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": moments})


def seconds_spent(path: Path) -> float:
    """Return the seconds that a run took up to its checkpoint; 0 without one.

    Raises:
        StoreError: it is damaged.
    """
    if not path.exists():
        return 0.0
    try:
        with safe_open(path, "pt") as kept:
            return float((kept.metadata() or {})["seconds"])
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> StoreError:
    return StoreError(f"{path} is damaged ({error}): delete it to start again.")


def _changing(module: nn.Module, network: nn.Module) -> dict[str, torch.Tensor]:
    """Return the tensors that training changes, without frozen parameters."""
    frozen = {n for n, p in network.named_parameters() if not p.requires_grad}
    return {n: t for n, t in module.state_dict().items() if n not in frozen}
