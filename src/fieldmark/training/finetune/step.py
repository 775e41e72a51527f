"""One update of a network's weights from one batch."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from fieldmark.heads.layers_in_training import BETAS, EPSILON
from fieldmark.models import import_torchvision
from fieldmark.models.network import ClassifierNetwork as Network
from fieldmark.models.network import seeded
from fieldmark.training.finetune import distributed, layers
from fieldmark.training.finetune.adamw8 import AdamW8
from fieldmark.training.finetune.augment import BatchMixer
from fieldmark.training.finetune.config import FineTuning
from fieldmark.training.finetune.device import fabric
from fieldmark.training.finetune.distillation import Teacher

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Logits, float32 (N, C), and labels, int64 (N,), to the mean loss, a scalar."""


class Updater:
    """Update a network in place, with its optimiser and the running mean of its weights.

    Attributes:
        network: on the device of `fabric`.
        optimiser: AdamW, its moments in as many bits as the recipe says.
        average: the mean of the weights, if the recipe has one.
    """

    def __init__(
        self,
        network: Network,
        recipe: FineTuning,
        steps: int,
        loss: Loss | None = None,
        teacher: Teacher | None = None,
    ) -> None:
        self.network, self.recipe, self.steps = network, recipe, steps
        self.fabric = fabric(recipe)
        network.to(self.fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        layers.set_trainable(network, recipe)
        layers.set_checkpointing(network, recipe)
        groups = layers.parameter_groups(network, recipe)
        self.optimiser: torch.optim.Optimizer
        if recipe.optimizer_bits == 8:
            self.optimiser = AdamW8(groups, recipe.learning_rate, BETAS, EPSILON)
        else:
            self.optimiser = torch.optim.AdamW(groups, recipe.learning_rate, BETAS, EPSILON, weight_decay=0.0)
        self.run: Any = network
        if distributed.process_count() > 1:  # all start from the weights of the first process
            self.run = self.fabric.setup_module(network, move_to_device=False)
        self.average = WeightAverage(network, recipe.average)
        self.mixing = BatchMixer(recipe, network.classes)
        self.loss, self.teacher = loss or self.mixing.loss, teacher

    def __call__(
        self, crops: torch.Tensor, labels: torch.Tensor, step: int, photos: int | None = None
    ) -> float:
        """Make an update; return the mean loss of its photos, in nats.

        A batch is computed in as many parts as the recipe says, one after the other; their gradients add
        up to that of the whole batch, except in BatchNorm, which sees one part at a time.

        Args:
            crops, labels: this process's part of the batch; see `data.batches`.
            step: the number of the update.
            photos: the number of photos in the whole batch; None: these.
        """
        recipe = self.recipe
        for group in self.optimiser.param_groups:
            group["lr"] = recipe.learning_rate * recipe.rate(step, self.steps) * group["lr_scale"]
        self.optimiser.zero_grad()
        loss, at = 0.0, 0
        mine = distributed.parts(photos or len(labels), recipe.accumulate)
        for count, (part, index, share) in enumerate(mine, 1):
            end = at + len(index)
            number = step * recipe.accumulate + part
            with self._gradients_stay(last=count == len(mine)):
                mean = self._loss(crops[at:end], labels[at:end], number) * share
                # The gradients of several processes are averaged, not summed.
                self.fabric.backward(mean * distributed.process_count())
            loss, at = loss + mean.item(), end
        if recipe.clip is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), recipe.clip)
        self.optimiser.step()
        self.average.update(step)
        return distributed.sum_over_processes(loss)

    def _gradients_stay(self, *, last: bool) -> AbstractContextManager[None]:
        """Send gradients to the other processes only with the last part of a batch."""
        if distributed.process_count() == 1:
            return nullcontext()
        stay: AbstractContextManager[None] = self.fabric.no_backward_sync(self.run, enabled=not last)
        return stay

    def _loss(self, crops: torch.Tensor, labels: torch.Tensor, number: int) -> torch.Tensor:
        """Compute the mean loss of one part of a batch; `number` counts the parts over the run."""
        crops, targets = self.mixing(crops, labels, number)
        crops = crops.to(self.fabric.device)
        with seeded(self.recipe.seed, "dropout", number), self.fabric.autocast():
            logits = self.run(crops)
        loss = self.loss(logits.float(), targets.to(self.fabric.device))
        return self.teacher.loss(loss, logits.float(), crops) if self.teacher else loss


class WeightAverage:
    """The running mean of the weights (timm's, with its warm-up of the decay); with a decay of 0 the
    weights themselves."""

    def __init__(self, network: Network, decay: float) -> None:
        self.trained = network
        self.of: Any = None
        self._limits: list[tuple[torch.Tensor, torch.Tensor]] = []
        if decay:
            import_torchvision()
            from timm.utils.model_ema import ModelEmaV3

            self.of = ModelEmaV3(network, decay=decay, use_warmup=True)
            pairs = zip(self.of.module.buffers(), network.buffers(), strict=True)
            # The mean of an infinite limit with itself is not a number.
            self._limits = [pair for pair in pairs if pair[1].isinf().any()]

    @property
    def network(self) -> Network:
        """The network with the mean weights: it is measured, and is the result."""
        if self.of is None:
            return self.trained
        mean: Network = self.of.module
        return mean

    def update(self, step: int) -> None:
        """Update the mean after an update of the weights."""
        if self.of is not None:
            self.of.update(self.trained, step)
            for mean, limit in self._limits:
                mean.copy_(limit)

    def into_network(self) -> None:
        """Set the means as the weights of the network."""
        if self.of is not None:
            self.trained.load_state_dict(self.of.module.state_dict())
