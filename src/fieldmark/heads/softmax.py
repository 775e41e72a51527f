"""Softmax regression on cached features: the paper's "all layers frozen but the last", many at once.

All heads of a sweep (learning rates, weight decays, class subsets) see the same batches in the same
order, so one pass over the features trains all of them: their weights are side by side in one matrix,
and a batch costs one matrix product.

The update is AdamW (Loshchilov and Hutter, "Decoupled weight decay regularization", 2019) with a cosine
learning rate, exactly as PyTorch computes it, so that training the network itself in the same way gives
the same losses (`fieldmark.training.finetune`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from fieldmark.features.labelled import LabelledFeatures
from fieldmark.heads.base import LinearHead, Scaling
from fieldmark.heads.early_stopping import EarlyStopping
from fieldmark.utils import random
from fieldmark.utils.logging import report_epoch

BETAS = (0.9, 0.999)
EPSILON = 1e-8

_LEAST = 1e-12

_CACHED_NUMBERS = 1 << 18
"""Weights updated at once: with gradient and moments, 4 MiB in float32."""


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
    sweep = _Sweep(train, val, classes, training, settings)
    for epoch in range(training.epochs):
        sweep.run(epoch)
        on_epoch(epoch + 1)
        if sweep.is_over():
            break
    seconds = time.perf_counter() - start
    return [replace(result, seconds=seconds) for result in sweep.results()]


class _Sweep:
    """The state of K heads: W_DKC, b_KC and AdamW's two moments of each."""

    def __init__(
        self,
        train: LabelledFeatures,
        val: LabelledFeatures,
        classes: int,
        training: Training,
        settings: Sequence[Hyperparameters],
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
        weight = np.zeros((dim, len(settings), classes), np.float32)
        bias = np.zeros((len(settings), classes), np.float32)
        for number, hyperparameters in enumerate(settings):
            if hyperparameters.initial is not None:
                start = self.scaling.unfold(hyperparameters.initial)
                weight[:, number] = start.weight
                bias[number] = np.where(np.isfinite(start.bias), start.bias, 0.0)
        self.parameters = [torch.from_numpy(weight), torch.from_numpy(bias)]
        self.moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in self.parameters]
        # One gradient and one work buffer for all updates: allocation costs as much as the arithmetic.
        self.gradients = [torch.empty_like(p) for p in self.parameters]
        rows = max(1, min(dim, _CACHED_NUMBERS // bias.size))
        self.work = torch.empty((rows, *bias.shape))
        self.rate_K = torch.tensor([hyperparameters.learning_rate for hyperparameters in settings])
        self.decay_K = torch.tensor([hyperparameters.weight_decay for hyperparameters in settings])
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
            self.stopping = EarlyStopping(self.parameters, patience)

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

    def _logits(self, x_BD: torch.Tensor) -> torch.Tensor:
        weight, bias = self.parameters
        s_BKC = (x_BD @ weight.flatten(1)).view(len(x_BD), *bias.shape)
        return s_BKC + (bias + self.closed_KC)

    def _update(self, index: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Make one AdamW step for all heads; return each head's summed loss and number of photos.

        Photos count by the weight of their class; the mean is over the sum of the weights.
        """
        x_BD = torch.from_numpy(self.scaling.apply(self.train.features[index]))
        y_B = torch.from_numpy(self.train.labels[index])
        p_BKC = (self._logits(x_BD) + self.offset_KC).log_softmax(-1)
        label_BK1 = y_B[:, None, None].expand(-1, len(self.settings), 1)
        counts_BK = self.counts_KC[:, y_B].T
        count_K = counts_BK.sum(0)
        own_BK = p_BKC.gather(-1, label_BK1).squeeze(-1)
        loss_K = -torch.where(counts_BK > 0, own_BK * counts_BK, 0.0).sum(0)
        # The gradient of the mean cross-entropy by the logits: softmax minus target.
        g_BKC = p_BKC.exp_()
        if self.smoothing_K.any():
            g_BKC -= self._targets(y_B)
        else:
            g_BKC.scatter_add_(-1, label_BK1, torch.full(label_BK1.shape, -1.0))
        g_BKC *= (counts_BK / count_K.clamp(min=_LEAST))[..., None]
        by_weight, by_bias = self.gradients
        torch.mm(x_BD.T, g_BKC.flatten(1), out=by_weight.flatten(1))
        torch.sum(g_BKC, 0, out=by_bias)
        self._adamw()
        return loss_K, count_K

    def _targets(self, y_B: torch.Tensor) -> torch.Tensor:
        one_BC = functional.one_hot(y_B, self.classes).float()
        even_KC = self.learned_KC / self.learned_KC.sum(1, keepdim=True)
        smoothing_K1 = self.smoothing_K[:, None]
        return one_BC[:, None] * (1 - smoothing_K1) + smoothing_K1 * even_KC

    def _adamw(self) -> None:
        """Apply equations 1 to 12 of the AdamW paper, in the order in which PyTorch computes them.

        In blocks that fit the processor's cache, because memory is the bottleneck.
        """
        steps = self.training.epochs * self.batches
        # An evenly sampled epoch may be a batch longer.
        rate_K1 = (self.rate_K * cosine(min(self.step, steps), steps))[:, None]
        self.step += 1
        beta1, beta2 = BETAS
        bias1, bias2 = 1 - beta1**self.step, 1 - beta2**self.step
        keep_K1 = 1 - rate_K1 * self.decay_K[:, None]
        rate_K1 = rate_K1 / bias1
        rows = len(self.work)
        for whole, by_whole, (first_all, second_all) in zip(
            self.parameters, self.gradients, self.moments, strict=True
        ):
            parts = (whole, by_whole, first_all, second_all)
            blocks = [torch.split(part.view(-1, *self.work.shape[1:]), rows) for part in parts]
            for parameter, gradient, first, second in zip(*blocks, strict=True):
                if self.decay_K.any():
                    parameter.mul_(keep_K1)
                first.lerp_(gradient, 1 - beta1)
                second.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
                update = torch.sqrt(second, out=self.work[: len(second)])
                update.div_(math.sqrt(bias2)).add_(EPSILON)
                torch.div(first, update, out=update)
                parameter.sub_(update.mul_(rate_K1))

    def _measure(self) -> tuple[list[float], list[float]]:
        loss_K, wrong_K = torch.zeros(len(self.settings)), torch.zeros(len(self.settings))
        count_K = torch.zeros(len(self.settings))
        for start, block in self.val.features.blocks(1024):
            y_B = torch.from_numpy(self.val.labels[start : start + len(block)])
            p_BKC = self._logits(torch.from_numpy(self.scaling.apply(block))).log_softmax(-1)
            taken_BK = self.learned_KC[:, y_B].T
            chosen = p_BKC.gather(-1, y_B[:, None, None].expand(-1, len(self.settings), 1)).squeeze(-1)
            loss_K -= torch.where(taken_BK, chosen, 0.0).sum(0)
            wrong_K += (taken_BK & (p_BKC.argmax(-1) != y_B[:, None])).sum(0)
            count_K += taken_BK.sum(0)
        return (loss_K / count_K).tolist(), (wrong_K / count_K).tolist()

    def results(self) -> list[Fit]:
        if self.stopping:
            self.stopping.restore_best()
        weight, bias = (parameter.numpy() for parameter in self.parameters)
        closed = self.closed_KC.numpy()
        return [
            Fit(
                hyperparameters,
                self.scaling.fold(LinearHead(weight[:, k].copy(), bias[k] + closed[k])),
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
