"""The training loop of a network.

If only the last layer is trained, `fieldmark.heads` does it faster, on cached features;
`transfer="last"` here runs the network in every epoch, as in the paper, for comparison.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from fieldmark.data.loader import LabelledCrops, StreamedCrops
from fieldmark.heads.softmax import Epoch
from fieldmark.models.network import ClassifierNetwork as Network
from fieldmark.training.finetune import distributed, low_rank
from fieldmark.training.finetune.checkpoint import TrainingState
from fieldmark.training.finetune.config import FineTuning
from fieldmark.training.finetune.data import batches
from fieldmark.training.finetune.device import fabric
from fieldmark.training.finetune.distillation import Teacher
from fieldmark.training.finetune.layers import accepted, set_checkpointing, set_modes
from fieldmark.training.finetune.step import Loss, Updater
from fieldmark.utils import io
from fieldmark.utils.logging import progress_bar, report_epoch
from fieldmark.utils.typing import FloatArray, IntArray

_NAMES = {
    "scratch": "from scratch",
    "all": "all layers",
    "low-rank": "low-rank updates",
    "adapters": "biases and normalisations",
    "last": "the last layer",
}


class Stopped(Exception):
    """Training was stopped before its end; a checkpoint is written."""


def finetune(
    network: Network,
    train: LabelledCrops,
    val: LabelledCrops,
    recipe: FineTuning,
    *,
    checkpoint: Path | None = None,
    save_every: float = 30.0,
    stop: Callable[[], bool] = lambda: False,
    loss: Loss | None = None,
    teacher: Teacher | None = None,
) -> tuple[list[Epoch], float]:
    """Train a network in place.

    Args:
        network: from `Backbone.literal` or `Backbone.trainable`.
        train: training crops; with `random_crop` their side may be larger than that of `val`.
        val: validation crops, for loss and error after every epoch.
        recipe: how to train.
        checkpoint: the file for the state, written by the first process; an interrupted run resumes from
            it, with the same result. That of another recipe, network or teacher, or other photos is ignored.
        save_every: seconds between checkpoints; there is also one after each epoch.
        stop: called after each update; whether to stop.
        loss: the loss of logits (N, C) and labels (N,); None: the cross-entropy, as always for `val`.
        teacher: a network whose probabilities are learned beside the labels; None: the labels alone.

    Raises:
        ValueError: the recipe does not crop, and training crops are larger than the others.
        Stopped: `stop` returned true.
        StoreError: `checkpoint` is damaged.

    Returns:
        The curve, an entry an epoch, and the total seconds of training.
    """
    _check_sides(train, val, recipe)
    recipe = accepted(network, recipe, val.side)
    steps = recipe.epochs * math.ceil(len(train) / recipe.batch_size)
    update = Updater(network, recipe, steps, loss, teacher)
    run = _digest_of(network, train, val, recipe, teacher)
    state = TrainingState(network, update.average.network, update.optimiser, run, checkpoint, save_every)
    state.resume()
    distributed.barrier()  # no process writes before all have read
    with progress_bar(f"training {_NAMES[recipe.transfer]}", recipe.epochs * len(train)) as stage:
        stage.advance(len(state.curve) * len(train) + state.batch * recipe.batch_size)
        for epoch in range(len(state.curve), recipe.epochs):
            set_modes(network, recipe)
            for photos in _updates(update, state, train, recipe, epoch, recipe.side(epoch, val.side)):
                if stop():
                    state.save()
                    raise Stopped
                stage.advance(photos)
            val_loss, val_error = measure(_shared(update.average.network, val, recipe), val.labels)
            ended = Epoch(epoch + 1, state.total / len(train), val_loss, val_error)
            state.after_epoch(ended)
            report_epoch(ended)
    update.average.into_network()
    low_rank.merge(network)
    set_checkpointing(network, replace(recipe, checkpointing=False))
    network.to("cpu")
    return state.curve, state.seconds


def _check_sides(train: LabelledCrops, val: LabelledCrops, recipe: FineTuning) -> None:
    if not recipe.random_crop and len(val) and train.side != val.side:
        raise ValueError(f"training crops have {train.side} pixels, validation crops {val.side}")


def _updates(
    update: Updater, state: TrainingState, train: LabelledCrops, recipe: FineTuning, epoch: int, side: int
) -> Iterator[int]:
    """Update the network with each batch of an epoch that is left, and yield the batch's photos."""
    in_epoch = math.ceil(len(train) / recipe.batch_size)
    for crops, labels in batches(train, recipe, epoch, side, first=state.batch):
        photos = min(recipe.batch_size, len(train) - state.batch * recipe.batch_size)
        with distributed.peer_errors():
            batch_loss = update(crops, labels, epoch * in_epoch + state.batch, photos)
        state.after_update(batch_loss, photos)
        yield photos


def scores(network: Network, crops: LabelledCrops, recipe: FineTuning) -> FloatArray:
    """Compute the network's logits in evaluation mode, shape (N, C)."""
    runs_on = fabric(recipe)
    network.to(runs_on.device).eval()
    parts = [torch.empty(0, network.classes)]
    with torch.inference_mode(), runs_on.autocast():
        for start in range(0, len(crops), recipe.scored):
            index = np.arange(start, min(len(crops), start + recipe.scored))
            parts.append(network(crops.batch(index)[0].to(runs_on.device)).float().cpu())
    return torch.cat(parts).numpy()


def _shared(network: Network, crops: LabelledCrops, recipe: FineTuning) -> FloatArray:
    """Compute `scores`, shared among the processes."""
    batches_ = -(-len(crops) // recipe.scored)
    first, end = (
        recipe.scored * (at * batches_ // distributed.process_count())
        for at in (distributed.process_index(), distributed.process_index() + 1)
    )
    mine = replace(
        crops, rows=crops.rows[first:end], labels=crops.labels[first:end], ids=crops.ids[first:end]
    )
    return np.concatenate(distributed.gather(scores(network, mine, recipe)))


def measure(s_NC: FloatArray, y_N: IntArray) -> tuple[float, float]:
    """Compute the mean cross-entropy in nats, and the top-1 error; NaN without photos."""
    logits, labels = torch.from_numpy(s_NC), torch.from_numpy(y_N)
    loss = functional.cross_entropy(logits, labels)
    return float(loss), float((logits.argmax(1) != labels).float().mean())


def _digest_of(
    network: Network, train: LabelledCrops, val: LabelledCrops, recipe: FineTuning, teacher: Teacher | None
) -> str:
    """Compute the key of a checkpoint: the recipe, the labelled photos, the network's shapes, its teacher."""
    parts = [[part.ids, io.sha256(part.labels.tobytes())] for part in (train, val)]
    shapes = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
    taught = [teacher.key] if teacher else []
    return io.digest([recipe.key, isinstance(train.pixels, StreamedCrops), parts, shapes, *taught])
