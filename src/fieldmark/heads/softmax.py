"""Softmax regression on cached features: the paper's "all layers frozen but the last", many at once.

All heads of a sweep (learning rates, weight decays, class subsets) see the same batches in the same
order, so one pass over the features trains all of them (`fieldmark.heads.layers_in_training`).

The update is AdamW (Loshchilov and Hutter, "Decoupled weight decay regularization", 2019) with a cosine
learning rate, exactly as PyTorch computes it, so that training the network itself in the same way gives
the same losses (`fieldmark.training.finetune`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from fieldmark.features.labelled import LabelledFeatures
from fieldmark.heads.base import LinearHead, Scaling
from fieldmark.heads.early_stopping import EarlyStopping
from fieldmark.heads.layers_in_training import LayersInTraining
from fieldmark.utils import cpu, random
from fieldmark.utils.logging import report_epoch
from fieldmark.utils.typing import FloatArray

_LEAST = 1e-12


@dataclass(frozen=True)
class Training:
    """The training schedule, the same for all heads of a sweep.

    Attributes:
        epochs: passes over the training photos.
        batch_size: photos per update.
        seed: of the order of the photos.
        standardise: whether to scale features to zero mean and unit variance first; the result is a
            plain linear layer either way.
        evenness: how evenly classes are sampled: 0 by their photos, 0.5 by the square root of their
            photos, 1 equally (Kang et al., "Decoupling representation and classifier for long-tailed
            recognition", 2020, equation 1, with q = 1 - evenness). Photos of rare classes then occur
            several times an epoch.
        patience: training ends after so many epochs without a new lowest validation loss of any head;
            every head then has the weights of its best epoch. None: all epochs, the last weights.
    """

    epochs: int = 10
    batch_size: int = 64
    seed: int = 0
    standardise: bool = True
    evenness: float = 0.0
    patience: int | None = None


@dataclass(frozen=True)
class Hyperparameters:
    """Settings of one head of a sweep.

    Attributes:
        learning_rate: at the start; it falls to zero along a cosine.
        weight_decay: decoupled, as in AdamW.
        label_smoothing: share of the target that is spread over all classes.
        classes: the classes to learn, as indexes; photos of others are ignored. None: all.
        initial: the layer to start from, on unscaled features; None: zeros.
        class_weights: the weight of a photo of each class in the loss, shape (C,); None: 1.
        offsets: added to the logits in the loss only, shape (C,); None: 0.
    """

    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    classes: tuple[int, ...] | None = None
    initial: LinearHead | None = None
    class_weights: tuple[float, ...] | None = None
    offsets: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Epoch:
    """The measures of an epoch: mean cross-entropies in nats, and the top-1 error.

    Those of validation are NaN without validation photos.
    """

    epoch: int
    train_loss: float
    val_loss: float
    val_error: float

    def to_dict(self) -> dict[str, float | None]:
        """Return JSON values, with None for NaN."""
        return {name: value if math.isfinite(value) else None for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Epoch:
        """Make an epoch from the values of `to_dict`."""
        numbers: dict[str, Any] = {n: math.nan if v is None else v for n, v in values.items()}
        return cls(**numbers)


@dataclass(frozen=True)
class Fit:
    """A trained head and its training history.

    Attributes:
        hyperparameters: that it was trained with.
        head: the layer, on unscaled features.
        curve: one entry an epoch.
        scaled_loss: the validation loss after the logits were scaled to fit the validation photos;
            None where they were not scaled.
        scale: the factor of the logits.
        others: where this is the mean of several heads, the settings of the others; hyperparameters and
            curve are those of the best.
        best_epoch: the epoch that the weights are from; None without early stopping.
        seconds: of the whole sweep.
    """

    hyperparameters: Hyperparameters
    head: LinearHead
    curve: tuple[Epoch, ...] = ()
    scaled_loss: float | None = None
    scale: float = 1.0
    others: tuple[Hyperparameters, ...] = ()
    best_epoch: int | None = None
    seconds: float = field(default=0.0, compare=False)

    @property
    def averaged(self) -> int:
        """Return the number of heads that this is the mean of."""
        return 1 + len(self.others)

    @property
    def unscaled(self) -> LinearHead:
        """Return the layer before its logits were scaled."""
        return self.head.times(1 / self.scale)

    @property
    def val_loss(self) -> float:
        """Return the validation loss in nats; NaN without validation photos."""
        if self.scaled_loss is not None:
            return self.scaled_loss
        return self.curve[(self.best_epoch or len(self.curve)) - 1].val_loss


def by_loss(fit: Fit) -> tuple[bool, float]:
    """Return a sort key, lowest validation loss first; NaN is last, and keeps the order."""
    return math.isnan(fit.val_loss), fit.val_loss


def cosine(step: int, steps: int) -> float:
    """Compute the factor of the learning rate at one step of `steps`, from 1 down to 0."""
    return 0.5 * (1.0 + math.cos(math.pi * step / steps))


def fit(
    train: LabelledFeatures,
    val: LabelledFeatures,
    classes: int,
    training: Training,
    hyperparameters: Hyperparameters,
) -> Fit:
    """Train one head; see `fit_sweep`."""
    return fit_sweep(train, val, classes, training, [hyperparameters])[0]


def fit_sweep(
    train: LabelledFeatures,
    val: LabelledFeatures,
    classes: int,
    training: Training,
    settings: Sequence[Hyperparameters],
    on_epoch: Callable[[int], None] = lambda _: None,
) -> list[Fit]:
    """Train a head for each setting, all in one pass over the features an epoch.

    Args:
        train: training photos; those with label -1 are ignored.
        val: validation photos, for loss and error after each epoch; photos of classes that a head does
            not learn are left out of its measures.
        classes: C; every head has C columns, with bias minus infinity for classes not learned.
        training: the schedule.
        settings: the hyperparameters of each head.
        on_epoch: called with the number of each finished epoch.

    Returns:
        A fit for each setting, in order.
    """
    start = time.perf_counter()
    with cpu.single_threaded(torch_too=True), ThreadPoolExecutor(cpu.cores()) as pool:
        sweep = _Sweep(train, val, classes, training, settings, pool)
        for epoch in range(training.epochs):
            sweep.run(epoch)
            on_epoch(epoch + 1)
            if sweep.is_over():
                break
    seconds = time.perf_counter() - start
    return [replace(result, seconds=seconds) for result in sweep.results()]


class _Sweep:
    """The state of K heads in training."""

    def __init__(
        self,
        train: LabelledFeatures,
        val: LabelledFeatures,
        classes: int,
        training: Training,
        settings: Sequence[Hyperparameters],
        pool: Executor,
    ) -> None:
        self.settings, self.training, self.classes = settings, training, classes
        self.train = train.where(train.labels >= 0)
        self.val = val.where(val.labels >= 0)
        dim = train.features.dim
        scaled = training.standardise and len(self.train) > 0
        self.scaling = Scaling.of(self.train.features) if scaled else Scaling.none(dim)
        self.learned_KC = torch.stack(
            [_mask(hyperparameters.classes, classes) for hyperparameters in settings]
        )
        self.closed_KC = torch.zeros(self.learned_KC.shape).masked_fill(~self.learned_KC, -torch.inf)
        even = [1.0] * classes
        weights = [hyperparameters.class_weights or even for hyperparameters in settings]
        self.counts_KC = torch.tensor(weights, dtype=torch.float32) * self.learned_KC
        none = [0.0] * classes
        offsets = [hyperparameters.offsets or none for hyperparameters in settings]
        self.offset_KC = torch.tensor(offsets, dtype=torch.float32)
        weight_KEC = np.zeros((len(settings), dim + 1, classes), np.float32)
        for number, hyperparameters in enumerate(settings):
            if hyperparameters.initial is not None:
                start = self.scaling.unfold(hyperparameters.initial)
                weight_KEC[number, :-1] = start.weight
                weight_KEC[number, -1] = np.where(np.isfinite(start.bias), start.bias, 0.0)
        rates = [hyperparameters.learning_rate for hyperparameters in settings]
        decays = [hyperparameters.weight_decay for hyperparameters in settings]
        self.layers = LayersInTraining(weight_KEC, rates, decays, training.batch_size, pool)
        self.smoothing_K = torch.tensor([hyperparameters.label_smoothing for hyperparameters in settings])
        self.hashes = random.hashes(self.train.ids, "order", training.seed)
        self.times_N = _times(self.train.labels, classes, training.evenness)
        self.batches = math.ceil(len(self.train) / training.batch_size)
        self.step = 0
        self.curves: list[list[Epoch]] = [[] for _ in settings]
        patience = training.patience
        # Without validation photos there is no early stopping.
        self.stopping = None
        if patience and len(self.val):
            self.stopping = EarlyStopping([self.layers.parameters], patience)

    def run(self, epoch: int) -> None:
        """Train one epoch, and measure on the validation photos."""
        if self.training.evenness:
            order = random.repeated_order(self.hashes, epoch, self.times_N)
        else:
            order = random.epoch_order(self.hashes, epoch)
        loss_K, seen_K = torch.zeros(len(self.settings)), torch.zeros(len(self.settings))
        for start in range(0, len(order), self.training.batch_size):
            index = order[start : start + self.training.batch_size]
            batch_loss_K, batch_seen_K = self._update(index)
            loss_K += batch_loss_K
            seen_K += batch_seen_K
        val_loss_K, val_error_K = self._measure()
        for number, curve in enumerate(self.curves):
            train_loss = float(loss_K[number] / seen_K[number].clamp(min=_LEAST))
            curve.append(Epoch(epoch + 1, train_loss, val_loss_K[number], val_error_K[number]))
        report_epoch(min((curve[-1] for curve in self.curves), key=lambda each: each.val_loss))

    def is_over(self) -> bool:
        """Return whether training is over."""
        losses = [curve[-1].val_loss for curve in self.curves]
        return self.stopping is not None and self.stopping.after_epoch(losses)

    def _logits(self, x_BD: FloatArray) -> tuple[FloatArray, torch.Tensor]:
        """Return the scaled features, with a 1 for the bias, and the logits of all heads (K, B, C)."""
        x_BE = np.ones((len(x_BD), x_BD.shape[1] + 1), np.float32)
        np.subtract(x_BD, self.scaling.mean, out=x_BE[:, :-1])
        x_BE[:, :-1] *= self.scaling.scale
        return x_BE, self.layers.logits(x_BE)

    def _update(self, index: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Make one AdamW step for all heads; return each head's summed loss and number of photos.

        Photos count by the weight of their class; the mean is over the sum of the weights.
        """
        y_B = torch.from_numpy(self.train.labels[index])
        x_BE, s_KBC = self._logits(self.train.features[index])
        counts_KB = self.counts_KC[:, y_B]
        count_K, loss_K = counts_KB.sum(1), torch.zeros(len(self.settings))
        share_KB1 = (counts_KB / count_K.clamp(min=_LEAST)[:, None])[..., None]

        def differentiate(some: slice) -> None:
            """Replace logits by the gradient of the mean cross-entropy: softmax minus target."""
            s = s_KBC[some].add_((self.closed_KC + self.offset_KC)[some, None])
            p = torch.log_softmax(s, -1, out=s)
            label_KB1 = y_B[None, :, None].expand(len(p), -1, 1)
            own_KB, count_KB = p.gather(-1, label_KB1).squeeze(-1), counts_KB[some]
            loss_K[some] = -torch.where(count_KB > 0, own_KB * count_KB, 0.0).sum(1)
            p.exp_()
            if self.smoothing_K.any():
                p -= self._targets(y_B, some)
            else:
                p.scatter_add_(-1, label_KB1, torch.full(label_KB1.shape, -1.0))
            p *= share_KB1[some]

        self.layers.by_layer(differentiate)
        steps = self.training.epochs * self.batches
        # An evenly sampled epoch may be a batch longer.
        self.layers.update(x_BE, s_KBC, cosine(min(self.step, steps), steps))
        self.step += 1
        return loss_K, count_K

    def _targets(self, y_B: torch.Tensor, some: slice) -> torch.Tensor:
        one_BC = functional.one_hot(y_B, self.classes).float()
        even_K1C = (self.learned_KC / self.learned_KC.sum(1, keepdim=True))[some, None]
        smoothing_K11 = self.smoothing_K[some, None, None]
        return one_BC * (1 - smoothing_K11) + smoothing_K11 * even_K1C

    def _measure(self) -> tuple[list[float], list[float]]:
        loss_K, wrong_K = torch.zeros(len(self.settings)), torch.zeros(len(self.settings))
        count_K = torch.zeros(len(self.settings))
        for start, block in self.val.features.blocks(1024):
            y_B = torch.from_numpy(self.val.labels[start : start + len(block)])
            p_KBC = (self._logits(block)[1] + self.closed_KC[:, None]).log_softmax(-1)
            taken_KB = self.learned_KC[:, y_B]
            chosen = p_KBC.gather(-1, y_B[None, :, None].expand(len(p_KBC), -1, 1)).squeeze(-1)
            loss_K -= torch.where(taken_KB, chosen, 0.0).sum(1)
            wrong_K += (taken_KB & (p_KBC.argmax(-1) != y_B)).sum(1)
            count_K += taken_KB.sum(1)
        return (loss_K / count_K).tolist(), (wrong_K / count_K).tolist()

    def results(self) -> list[Fit]:
        if self.stopping:
            self.stopping.restore_best()
        weight_KEC, closed = self.layers.weight_KEC, self.closed_KC.numpy()
        return [
            Fit(
                hyperparameters,
                self.scaling.fold(LinearHead(weight_KEC[k, :-1].copy(), weight_KEC[k, -1] + closed[k])),
                tuple(self.curves[k]),
                best_epoch=self.stopping.best_epoch[k] if self.stopping else None,
            )
            for k, hyperparameters in enumerate(self.settings)
        ]


def _mask(classes: tuple[int, ...] | None, count: int) -> torch.Tensor:
    if classes is None:
        return torch.ones(count, dtype=torch.bool)
    mask = torch.zeros(count, dtype=torch.bool)
    mask[list(classes)] = True
    return mask


def _times(labels_N: np.ndarray, classes: int, evenness: float) -> np.ndarray:
    """Compute how often each photo occurs in an epoch on average, shape (N,); the sum is N."""
    count_C = np.bincount(labels_N, minlength=classes).astype(np.float64)
    share_C = np.where(count_C > 0, count_C ** (1 - evenness), 0.0)
    share_C *= len(labels_N) / max(share_C.sum(), 1e-30)
    return np.asarray((share_C / np.maximum(count_C, 1))[labels_N])
