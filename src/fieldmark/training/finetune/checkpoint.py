"""What is kept of a run on the way, and read back when one that was cut off starts again.

The state is a point between two updates: the weights, the optimiser's moments, the running mean of the
weights, and where in which epoch the run is. All else is a function of the recipe and the photos, so
a resumed run is the same run.
"""

from __future__ import annotations

import time
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from fieldmark.heads.softmax import Epoch
from fieldmark.training.finetune import distributed
from fieldmark.utils import io
from fieldmark.utils.errors import StoreError

_SHARE = 20
"""At least this many times as long as keeping the state took is spent on training before the next."""


class TrainingState:
    """A run under way.

    Attributes:
        curve: one entry for each epoch that is done.
        batch: how many batches of the epoch under way are done.
        total: the sum of their photos' losses.
        seconds: how long the run took so far, all its starts together.

    Args:
        network: what is trained.
        mean: the running mean of its weights; the network itself where there is none.
        optimiser: its moments are kept.
        run: what the state belongs to.
        path: where it is kept; None: nowhere.
        every: how many seconds apart, at least.
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
        self._kept, self._took = self._since, 0.0

    def after_update(self, loss: float, photos: int) -> None:
        """One more batch is done."""
        self.batch += 1
        self.total += loss * photos
        if time.perf_counter() - self._kept >= max(self.every, _SHARE * self._took):
            self.save()

    def after_epoch(self, entry: Epoch) -> None:
        """All batches of an epoch are done."""
        self.curve.append(entry)
        self.batch, self.total = 0, 0.0
        self.save()

    def save(self) -> None:
        """Write the state as it is now."""
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
            save_file({name: t.contiguous() for name, t in tensors.items()}, temporary, about)
        self._kept = time.perf_counter()
        self._took = self._kept - start

    def resume(self) -> None:
        """Go to where the kept state is, if it is one of this run.

        Raises:
            StoreError: what lies there is damaged.
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
    """The seconds that a kept run took so far; 0 where none is kept.

    Raises:
        StoreError: what lies there is damaged.
    """
    if not path.exists():
        return 0.0
    try:
        with safe_open(path, "pt") as kept:
            return float((kept.metadata() or {})["seconds"])
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> StoreError:
    return StoreError(f"{path} is damaged ({error}): delete it to start anew.")


def _changing(module: nn.Module, network: nn.Module) -> dict[str, torch.Tensor]:
    """The tensors that training changes: frozen parameters need not be kept."""
    frozen = {n for n, p in network.named_parameters() if not p.requires_grad}
    return {n: t for n, t in module.state_dict().items() if n not in frozen}
