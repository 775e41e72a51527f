"""One update of a network's weights, from one batch."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from fieldmark.heads.softmax import BETAS, EPSILON
from fieldmark.models import import_torchvision
from fieldmark.models.network import ClassifierNetwork as Network
from fieldmark.models.network import seeded
from fieldmark.training.finetune import distributed, layers
from fieldmark.training.finetune.augment import Mixing
from fieldmark.training.finetune.config import FineTuning
from fieldmark.training.finetune.device import machine

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Logits, float32 (N, C), and labels, int64 (N,), to the mean loss, a scalar."""


class Updates:
    """A network in training: its optimiser, and the running mean of its weights.

    Attributes:
        network: what is trained, in place, on the device of `machine`.
        optimiser: AdamW.
        average: the mean of the weights, where the recipe has one.
    """

    def __init__(
        self, network: Network, how: FineTuning, steps: int, loss: Loss | None = None
    ) -> None:
        self.network, self.how, self.steps = network, how, steps
        self.machine = machine(how)
        network.to(self.machine.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        layers.choose(network, how)
        self.optimiser = torch.optim.AdamW(
            layers.groups(network, how), how.learning_rate, BETAS, EPSILON, weight_decay=0.0
        )
        self.run: Any = network
        if distributed.world() > 1:  # all start from the weights of the first
            self.run = self.machine.setup_module(network, move_to_device=False)
        self.average = Average(network, how.average)
        self.mixing = Mixing(how, network.classes)
        self.loss = loss or self.mixing.loss

    def __call__(
        self, crops: torch.Tensor, labels: torch.Tensor, step: int, photos: int | None = None
    ) -> float:
        """Do update number `step`; gives the mean loss of its photos, in nats.

        A batch is computed in as many parts as the recipe says, one after the other; their gradients
        add up to that of the whole batch, but for BatchNorm, which sees one part at a time.

        Args:
            crops, labels: what this process computes of the batch; see `data.batches`.
            step: its number.
            photos: how many the whole batch has; None: these.
        """
        how = self.how
        for group in self.optimiser.param_groups:
            group["lr"] = how.learning_rate * how.rate(step, self.steps) * group["lr_scale"]
        self.optimiser.zero_grad()
        loss, at = 0.0, 0
        mine = distributed.parts(photos or len(labels), how.accumulate)
        for count, (part, index, share) in enumerate(mine, 1):
            end = at + len(index)
            number = step * how.accumulate + part
            with self._gradients_stay(last=count == len(mine)):
                mean = self._loss(crops[at:end], labels[at:end], number) * share
                # The gradients of several processes are averaged, not summed.
                self.machine.backward(mean * distributed.world())
            loss, at = loss + mean.item(), end
        if how.clip is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), how.clip)
        self.optimiser.step()
        self.average.update(step)
        return distributed.summed(loss)

    def _gradients_stay(self, *, last: bool) -> AbstractContextManager[None]:
        """Gradients are sent to the other processes with the last part of a batch."""
        if distributed.world() == 1:
            return nullcontext()
        stay: AbstractContextManager[None] = self.machine.no_backward_sync(
            self.run, enabled=not last
        )
        return stay

    def _loss(self, crops: torch.Tensor, labels: torch.Tensor, number: int) -> torch.Tensor:
        """The mean loss of one part of a batch; `number` counts such parts over the whole run."""
        crops, targets = self.mixing(crops, labels, number)
        with seeded(self.how.seed, "dropout", number), self.machine.autocast():
            logits = self.run(crops.to(self.machine.device))
        return self.loss(logits.float(), targets.to(self.machine.device))


class Average:
    """The running mean of the weights: timm's, which follows closely in the first updates and ever
    more slowly up to what the recipe says. Without one, the weights themselves."""

    def __init__(self, network: Network, kept: float) -> None:
        self.trained = network
        self.of: Any = None
        if kept:
            import_torchvision()
            from timm.utils.model_ema import ModelEmaV3

            self.of = ModelEmaV3(network, decay=kept, use_warmup=True)

    @property
    def network(self) -> Network:
        """What is measured, and kept in the end."""
        if self.of is None:
            return self.trained
        mean: Network = self.of.module
        return mean

    def update(self, step: int) -> None:
        """The weights have changed."""
        if self.of is not None:
            self.of.update(self.trained, step)

    def into_network(self) -> None:
        """Give the network the means as its weights."""
        if self.of is not None:
            self.trained.load_state_dict(self.of.module.state_dict())
