"""The whole training loop of a network: from scratch, all layers, or literally its last layer.

Read from top to bottom. Frozen training on kept features (`fieldmark.heads`) replaces this loop where
only the last layer learns; `transfer="last"` here runs the network itself in every epoch, as the paper
did, and is there to be compared with.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from fieldmark import files, progress, sampling
from fieldmark.backbones.network import Literal as Network
from fieldmark.backbones.network import seeded
from fieldmark.errors import StoreError
from fieldmark.heads.softmax import BETAS, EPSILON, Epoch, cosine

Transfer = Literal["scratch", "all", "last"]


@dataclass(frozen=True)
class FineTuning:
    """How a network is trained.

    Attributes:
        transfer: `scratch` and `all` train every layer (from random and from pretrained weights),
            `last` trains the last layer and freezes the others.
        epochs: passes over the training photos.
        batch_size: photos an update.
        learning_rate: of AdamW at the start; it falls to zero along a cosine.
        weight_decay: decoupled, as in AdamW.
        seed: of the order of photos and of dropout.
        precision: `bfloat16` computes the products in half precision where the processor has it,
            and keeps the weights in float32.
    """

    transfer: Transfer
    epochs: int = 10
    batch_size: int = 64
    learning_rate: float = 1e-4
    weight_decay: float = 0.0
    seed: int = 0
    precision: Literal["float32", "bfloat16"] = "float32"


@dataclass(frozen=True)
class Crops:
    """Crops with their labels.

    Attributes:
        pixels: uint8 (N, S, S, 3), in memory or mapped from disk.
        rows: which of them to use, shape (n,).
        labels: their classes in 0 .. C-1, shape (n,).
        ids: their photo ids.
    """

    pixels: npt.NDArray[np.uint8]
    rows: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    ids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, index: npt.NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        """Some of the crops and their labels."""
        pixels = np.ascontiguousarray(self.pixels[self.rows[index]])
        return torch.from_numpy(pixels), torch.from_numpy(self.labels[index])


def finetune(
    network: Network, train: Crops, val: Crops, how: FineTuning, *, checkpoint: Path | None = None
) -> tuple[list[Epoch], float]:
    """Train a network in place.

    Args:
        network: from `Backbone.literal`.
        train: what to learn from.
        val: where loss and error are measured after every epoch.
        how: the recipe.
        checkpoint: where the state is kept after every epoch; a run that was cut off goes on from
            there, to the same weights. The state of another recipe, other photos or another kind
            of network is passed over.

    Raises:
        StoreError: what lies at `checkpoint` is damaged.

    Returns:
        The curve, an entry an epoch, and the seconds that training took in all.
    """
    trained = _freeze(network, how.transfer)
    optimiser = torch.optim.AdamW(
        trained, lr=how.learning_rate, betas=BETAS, eps=EPSILON, weight_decay=how.weight_decay
    )
    state = _State(network, optimiser, _digest_of(network, train, val, how), checkpoint)
    state.resume()
    hashes = sampling.hashes(train.ids, "order", how.seed)
    batches = math.ceil(len(train) / how.batch_size)
    name = {"scratch": "from scratch", "all": "all layers", "last": "the last layer"}[how.transfer]
    with progress.stage(f"training {name}", how.epochs * len(train)) as stage:
        stage.advance(len(state.curve) * len(train))
        for epoch in range(len(state.curve), how.epochs):
            start = time.perf_counter()
            _set_modes(network, how.transfer)
            total = 0.0
            order = sampling.epoch_order(hashes, epoch)
            for number in range(batches):
                index = order[number * how.batch_size : (number + 1) * how.batch_size]
                step = epoch * batches + number
                for group in optimiser.param_groups:
                    group["lr"] = how.learning_rate * cosine(step, how.epochs * batches)
                with seeded(how.seed, "dropout", step):
                    loss = _loss(network, *train.batch(index), how)
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]  # PyTorch's own is untyped
                optimiser.step()
                total += loss.item() * len(index)
                stage.advance(len(index))
            val_loss, val_error = measure(scores(network, val, how), val.labels)
            state.curve.append(Epoch(epoch + 1, total / len(train), val_loss, val_error))
            state.keep(time.perf_counter() - start)
    return state.curve, state.seconds


def scores(network: Network, crops: Crops, how: FineTuning) -> npt.NDArray[np.float32]:
    """The network's logits in evaluation mode, shape (n, C)."""
    network.eval()
    with torch.inference_mode(), _autocast(how):
        parts = [network(crops.batch(index)[0]).float() for index in _blocks(len(crops), 64)]
    return torch.cat(parts).numpy()


def measure(s_NC: npt.NDArray[np.float32], y_N: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Mean cross-entropy in nats, and the share of photos whose first label is wrong."""
    logits, labels = torch.from_numpy(s_NC), torch.from_numpy(y_N)
    loss = functional.cross_entropy(logits, labels)
    return float(loss), float((logits.argmax(1) != labels).float().mean())


def _loss(
    network: Network, crops: torch.Tensor, labels: torch.Tensor, how: FineTuning
) -> torch.Tensor:
    with _autocast(how):
        logits = network(crops)
    return functional.cross_entropy(logits.float(), labels)


def _autocast(how: FineTuning) -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16, enabled=how.precision == "bfloat16")


def _blocks(count: int, size: int) -> Iterator[npt.NDArray[np.int64]]:
    for start in range(0, count, size):
        yield np.arange(start, min(count, start + size))


def _freeze(network: Network, transfer: Transfer) -> Sequence[nn.Parameter]:
    """Let gradients reach only what is trained, and say what that is."""
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.requires_grad_(transfer != "last")
    network.last_layer.requires_grad_(True)
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def _set_modes(network: nn.Module, transfer: Transfer) -> None:
    """Training mode; but the BatchNorm of a frozen network keeps its pretrained statistics."""
    network.train()
    if transfer == "last":
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


def _digest_of(network: Network, train: Crops, val: Crops, how: FineTuning) -> str:
    """What a kept state belongs to: the recipe, the photos with their labels, the network's shapes."""
    parts = [[part.ids, files.sha256(part.labels.tobytes())] for part in (train, val)]
    shapes = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
    return files.digest([asdict(how), parts, shapes])


class _State:
    """What is kept after every epoch, and read back when a run that was cut off starts again."""

    def __init__(
        self,
        network: nn.Module,
        optimiser: torch.optim.Optimizer,
        run: str,
        path: Path | None,
    ) -> None:
        self.network, self.optimiser, self.path = network, optimiser, path
        self.run = run
        self.curve: list[Epoch] = []
        self.seconds = 0.0

    def keep(self, seconds: float) -> None:
        self.seconds += seconds
        if self.path is None:
            return
        tensors = {f"network.{name}": tensor for name, tensor in self._trained().items()}
        for number, entry in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{number}.{name}": tensor for name, tensor in entry.items()}
        about = {
            "run": self.run,
            "seconds": str(self.seconds),
            "curve": files.to_json([asdict(epoch) for epoch in self.curve]),
        }
        with files.replacing(self.path) as temporary:
            save_file({name: t.contiguous() for name, t in tensors.items()}, temporary, about)

    def resume(self) -> None:
        if self.path is None or not self.path.exists():
            return
        try:
            with safe_open(self.path, "pt") as kept:
                about = kept.metadata() or {}
                tensors = {name: kept.get_tensor(name) for name in kept.keys()}  # noqa: SIM118
            if about["run"] != self.run:
                return
            self.curve = [Epoch(**entry) for entry in files.from_json(about["curve"])]
            self.seconds = float(about["seconds"])
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise StoreError(
                f"{self.path} is damaged ({error}): delete it to start anew."
            ) from error
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in tensors.items():
            kind, _, rest = name.partition(".")
            if kind == "optimiser":
                number, _, moment = rest.partition(".")
                moments.setdefault(int(number), {})[moment] = tensor
        weights = {n.removeprefix("network."): t for n, t in tensors.items() if "network." in n[:8]}
        self.network.load_state_dict(weights, strict=False)
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": moments})

    def _trained(self) -> dict[str, torch.Tensor]:
        """The tensors that training changes: frozen parameters need not be kept."""
        frozen = {n for n, p in self.network.named_parameters() if not p.requires_grad}
        return {n: t for n, t in self.network.state_dict().items() if n not in frozen}
