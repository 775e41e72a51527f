"""The whole training loop of a network. Read from top to bottom.

Frozen training on kept features (`fieldmark.heads`) replaces this loop where only the last layer
learns; `transfer="last"` here runs the network itself in every epoch, as the paper did, and is there
to be compared with.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from fieldmark.data.loader import LabelledCrops, Streamed
from fieldmark.heads.softmax import Epoch
from fieldmark.models.network import ClassifierNetwork as Network
from fieldmark.training.finetune import distributed, low_rank
from fieldmark.training.finetune.checkpoint import State
from fieldmark.training.finetune.config import FineTuning
from fieldmark.training.finetune.data import batches
from fieldmark.training.finetune.device import machine
from fieldmark.training.finetune.layers import set_modes
from fieldmark.training.finetune.step import Loss, Updates
from fieldmark.utils import io
from fieldmark.utils.logging import progress_bar, report_epoch
from fieldmark.utils.typing import FloatArray, IntArray

_SCORED = 64  # photos at a time
_NAMES = {
    "scratch": "from scratch",
    "all": "all layers",
    "low-rank": "low-rank updates",
    "adapters": "biases and normalisations",
    "last": "the last layer",
}


class Stopped(Exception):
    """Training was told to stop before its end; its state is kept."""


def finetune(
    network: Network,
    train: LabelledCrops,
    val: LabelledCrops,
    how: FineTuning,
    *,
    checkpoint: Path | None = None,
    keep_every: float = 30.0,
    stop: Callable[[], bool] = lambda: False,
    loss: Loss | None = None,
) -> tuple[list[Epoch], float]:
    """Train a network in place.

    Args:
        network: from `Backbone.literal` or `Backbone.trainable`.
        train: what to learn from; with `random_crop` their side may be larger than that of `val`.
        val: where loss and error are measured after every epoch.
        how: the recipe.
        checkpoint: where the state is kept, by the first of several processes; a run that was cut
            off goes on from there, to the same weights. The state of another recipe, other photos or
            another kind of network is passed over.
        keep_every: the state is kept after an epoch, and within it after so many seconds.
        stop: asked after each update whether to stop.
        loss: the loss of logits (N, C) and labels (N,) that is minimised; None: the cross-entropy. The
            curve's training loss is this loss, its validation loss always the cross-entropy.

    Raises:
        ValueError: crops that the recipe does not cut are larger than those that are measured.
        Stopped: `stop` said so.
        StoreError: what lies at `checkpoint` is damaged.

    Returns:
        The curve, an entry an epoch, and the seconds that training took in all.
    """
    if not how.random_crop and len(val) and train.side != val.side:
        raise ValueError(f"crops of {train.side} pixels are learned and of {val.side} measured")
    in_epoch = math.ceil(len(train) / how.batch_size)
    update = Updates(network, how, steps=how.epochs * in_epoch, loss=loss)
    run = _digest_of(network, train, val, how)
    state = State(network, update.average.network, update.optimiser, run, checkpoint, keep_every)
    state.resume()
    distributed.wait()  # none writes before all have read
    with progress_bar(f"training {_NAMES[how.transfer]}", how.epochs * len(train)) as stage:
        stage.advance(len(state.curve) * len(train) + state.batch * how.batch_size)
        for epoch in range(len(state.curve), how.epochs):
            set_modes(network, how)
            side = how.side(epoch, val.side)
            for crops, labels in batches(train, how, epoch, side, first=state.batch):
                photos = min(how.batch_size, len(train) - state.batch * how.batch_size)
                with distributed.heard():
                    found = update(crops, labels, epoch * in_epoch + state.batch, photos)
                state.after_update(found, photos)
                if stop():
                    state.keep()
                    raise Stopped
                stage.advance(photos)
            val_loss, val_error = measure(_shared(update.average.network, val, how), val.labels)
            ended = Epoch(epoch + 1, state.total / len(train), val_loss, val_error)
            state.after_epoch(ended)
            report_epoch(ended)
    update.average.into_network()
    low_rank.merge(network)
    network.to("cpu")
    return state.curve, state.seconds


def scores(network: Network, crops: LabelledCrops, how: FineTuning) -> FloatArray:
    """The network's logits in evaluation mode, shape (n, C)."""
    runs_on = machine(how)
    network.to(runs_on.device).eval()
    parts = [torch.empty(0, network.classes)]
    with torch.inference_mode(), runs_on.autocast():
        for start in range(0, len(crops), _SCORED):
            index = np.arange(start, min(len(crops), start + _SCORED))
            parts.append(network(crops.batch(index)[0].to(runs_on.device)).float().cpu())
    return torch.cat(parts).numpy()


def _shared(network: Network, crops: LabelledCrops, how: FineTuning) -> FloatArray:
    """`scores`, of which each process that trains together computes a stretch."""
    batches_ = -(-len(crops) // _SCORED)
    first, end = (
        _SCORED * (at * batches_ // distributed.world())
        for at in (distributed.rank(), distributed.rank() + 1)
    )
    mine = replace(
        crops, rows=crops.rows[first:end], labels=crops.labels[first:end], ids=crops.ids[first:end]
    )
    return np.concatenate(distributed.gathered(scores(network, mine, how)))


def measure(s_NC: FloatArray, y_N: IntArray) -> tuple[float, float]:
    """Mean cross-entropy in nats, and the share of photos whose first label is wrong; NaN of none."""
    logits, labels = torch.from_numpy(s_NC), torch.from_numpy(y_N)
    loss = functional.cross_entropy(logits, labels)
    return float(loss), float((logits.argmax(1) != labels).float().mean())


def _digest_of(network: Network, train: LabelledCrops, val: LabelledCrops, how: FineTuning) -> str:
    """What a kept state belongs to: the recipe, the photos with their labels, the network's shapes."""
    parts = [[part.ids, io.sha256(part.labels.tobytes())] for part in (train, val)]
    shapes = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
    return io.digest([asdict(how), isinstance(train.pixels, Streamed), parts, shapes])
