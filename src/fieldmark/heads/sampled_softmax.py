"""Sampled softmax for very many classes: a step costs as many classes as are sampled, not C.

The loss needs the sum of exp(s_c) over all classes. It is estimated from some of them by importance
sampling (Bengio and Senécal, "Adaptive importance sampling to accelerate training of a neural
probabilistic language model", 2008; Jean and others, "On using very large target vocabulary for neural
machine translation", 2015): the classes of the batch's photos, and others drawn by their frequency. A
class that is drawn with probability pi counts as exp(s_c) / pi, so the estimate is unbiased; a photo's
own class is always included and counts as it is.

With no more classes than would be drawn, all are used, and the loss is exact. AdamW is applied to the rows of
the drawn classes, as in PyTorch's SparseAdam. Measures and predictions
are exact: they use all classes, block by block, with a running log-sum-exp.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from fieldmark.features.labelled import LabelledFeatures
from fieldmark.heads import selection
from fieldmark.heads.base import LinearHead, Scaling
from fieldmark.heads.layers_in_training import BETAS, EPSILON, adamw
from fieldmark.heads.ridge import class_counts
from fieldmark.heads.scaling import subsample
from fieldmark.heads.softmax import Epoch, Fit, Hyperparameters, Training, by_loss, cosine
from fieldmark.utils import random
from fieldmark.utils.logging import report_epoch
from fieldmark.utils.typing import FloatArray, IntArray

MANY = 20_000
"""With so many classes or more, `heads.default` uses this head."""
DRAWN = 4096
"""Classes drawn per step, beside those of the batch."""
_BLOCK = 8192  # classes at a time, where all are used
_MEASURED = 1 << 28
"""Scores computed to measure a layer: of 2,684 photos with 100,000 classes."""


class Sampled:
    """A last layer in training: a row of weights a class.

    Args:
        count_C: the training photos of each class.
        dim: D.
        training: `batch_size`, `epochs` and `seed` are used.
        learning_rate: of AdamW, at the start.
        drawn: classes drawn per step.
        initial: the layer to start from; None: zeros.
    """

    def __init__(
        self,
        count_C: IntArray,
        dim: int,
        training: Training,
        learning_rate: float,
        drawn: int = DRAWN,
        *,
        initial: LinearHead | None = None,
    ) -> None:
        self.training, self.learning_rate, self.drawn = training, learning_rate, drawn
        self.weight_CE = torch.zeros((len(count_C), dim + 1))  # the last column is the bias
        if initial is not None:
            self.weight_CE[:, :-1] = torch.from_numpy(initial.weight).T
            self.weight_CE[:, -1] = torch.from_numpy(initial.bias)
        self.first_CE, self.second_CE = (torch.zeros_like(self.weight_CE) for _ in range(2))
        self.steps = training.epochs * -(-int(count_C.sum()) // training.batch_size)
        self.step = 0
        share_C = count_C / max(1, count_C.sum())
        # Half by frequency, half evenly: no class is drawn so rarely that its weight is huge.
        q_C = 0.5 * share_C + 0.5 / len(count_C)
        self.ends_C = np.cumsum(q_C)
        missed_C = np.exp(training.batch_size * np.log1p(-share_C.clip(max=0.999999)))
        missed_C *= np.exp(drawn * np.log1p(-q_C.clip(max=0.999999)))
        self.log_pi_C = torch.from_numpy(np.log1p(-missed_C).astype(np.float32))
        self.all = drawn >= len(count_C)

    def update(self, x_BD: FloatArray, y_B: IntArray) -> float:
        """Make one step; return the estimated mean loss of the batch, in nats."""
        if self.all:
            return self._update_all(x_BD, y_B)
        rng = random.generator(self.training.seed, "classes", self.step)
        drawn = np.searchsorted(self.ends_C, rng.random(self.drawn) * self.ends_C[-1])
        some_A, place = np.unique(np.concatenate([y_B, drawn]), return_inverse=True)
        rows_A = torch.from_numpy(some_A)
        own_B1 = torch.from_numpy(place[: len(y_B)].astype(np.int64))[:, None]
        x_BE = torch.from_numpy(np.pad(x_BD, ((0, 0), (0, 1)), constant_values=1.0))
        weight_AE = self.weight_CE[rows_A]
        s_BA = x_BE @ weight_AE.T
        log_pi_A = self.log_pi_C[rows_A]
        s_BA -= log_pi_A
        s_BA.scatter_add_(1, own_B1, log_pi_A.expand(len(y_B), -1).gather(1, own_B1))
        log_p_BA = s_BA.log_softmax(1)
        loss = -float(log_p_BA.gather(1, own_B1).mean())
        g_BA = log_p_BA.exp_()
        g_BA.scatter_add_(1, own_B1, torch.full(own_B1.shape, -1.0))
        self._adamw(rows_A, weight_AE, (g_BA.T @ x_BE) / len(y_B))
        return loss

    def _update_all(self, x_BD: FloatArray, y_B: IntArray) -> float:
        """Make one step with all classes, without copying their weights."""
        x_BE = torch.from_numpy(np.pad(x_BD, ((0, 0), (0, 1)), constant_values=1.0))
        own_B1 = torch.from_numpy(y_B.astype(np.int64))[:, None]
        log_p_BC = (x_BE @ self.weight_CE.T).log_softmax(1)
        loss = -float(log_p_BC.gather(1, own_B1).mean())
        g_BC = log_p_BC.exp_().scatter_add_(1, own_B1, torch.full(own_B1.shape, -1.0))
        rate = self.learning_rate * cosine(min(self.step, self.steps), max(1, self.steps))
        self.step += 1
        gradient_CE = g_BC.div_(len(y_B)).T @ x_BE
        step = torch.tensor(float(self.step))
        adamw(self.weight_CE, gradient_CE, self.first_CE, self.second_CE, step, rate)
        return loss

    def _adamw(self, rows_A: torch.Tensor, weight_AE: torch.Tensor, gradient_AE: torch.Tensor) -> None:
        rate = self.learning_rate * cosine(min(self.step, self.steps), max(1, self.steps))
        self.step += 1
        beta1, beta2 = BETAS
        first = self.first_CE[rows_A].lerp_(gradient_AE, 1 - beta1)
        second = self.second_CE[rows_A].mul_(beta2)
        second.addcmul_(gradient_AE, gradient_AE, value=1 - beta2)
        self.first_CE[rows_A], self.second_CE[rows_A] = first, second
        root = (second / (1 - beta2**self.step)).sqrt_().add_(EPSILON)
        weight_AE.addcdiv_(first, root, value=-rate / (1 - beta1**self.step))
        self.weight_CE[rows_A] = weight_AE

    def head(self) -> LinearHead:
        """Return the layer."""
        weight = self.weight_CE.numpy()
        return LinearHead(np.ascontiguousarray(weight[:, :-1].T), weight[:, -1].copy())


def first(head: LinearHead, x_BD: FloatArray, block: int = _BLOCK) -> tuple[IntArray, FloatArray]:
    """Find the most probable class of each photo without a matrix of all scores.

    Args:
        head: of C classes.
        x_BD: features.
        block: classes at a time; memory is B times this.

    Returns:
        The classes (B,), of equal ones the first, and the log-sum-exp of all logits (B,).
    """
    best, total = (np.full(len(x_BD), -np.inf, np.float32) for _ in range(2))
    which = np.zeros(len(x_BD), np.int64)
    for start in range(0, len(head.bias), block):
        span = slice(start, start + block)
        s_BC = x_BD @ head.weight[:, span] + head.bias[span]
        highest = s_BC.max(1)
        total = np.logaddexp(total, highest + np.log(np.exp(s_BC - highest[:, None]).sum(1)))
        which = np.where(highest > best, start + s_BC.argmax(1), which)
        best = np.maximum(best, highest)
    return which, total


def measure(head: LinearHead, photos: LabelledFeatures) -> tuple[float, float]:
    """Compute the mean cross-entropy in nats and the top-1 error; NaN without photos."""
    if not len(photos):
        return math.nan, math.nan
    loss, wrong = 0.0, 0
    for start, x_BD in photos.features.blocks(1024):
        y_B = photos.labels[start : start + len(x_BD)]
        which, total = first(head, x_BD)
        own = np.einsum("bd,db->b", x_BD, head.weight[:, y_B]) + head.bias[y_B]
        loss += float((total - own).sum())
        wrong += int((which != y_B).sum())
    return loss / len(photos), wrong / len(photos)


def default_settings(initial: LinearHead | None = None) -> list[Hyperparameters]:
    """Return the settings to try, safest first: one from `initial`, such as ridge's, one from zero.

    Measured in docs/scaling.md: classes with few photos are learned far better from the closed form, and
    gradient steps then improve them little, whatever the learning rate.
    """
    return [
        *([Hyperparameters(3e-4, initial=initial)] if initial else [Hyperparameters(3e-3)]),
        Hyperparameters(1e-2),
    ]


def fit_sweep(
    train: LabelledFeatures,
    val: LabelledFeatures,
    classes: int,
    training: Training,
    settings: Sequence[Hyperparameters],
    on_epoch: Callable[[int], None] = lambda _: None,
    drawn: int = DRAWN,
) -> list[Fit]:
    """Train a head for each setting, one after the other; see `softmax.fit_sweep`.

    Of the hyperparameters, `learning_rate` and `initial` are used. The training losses of a curve are
    estimates, the validation losses exact.
    """
    start = time.perf_counter()
    train, val = train.where(train.labels >= 0), subsample(val, classes, _MEASURED)
    count_C = class_counts(train, classes)
    scaling = Scaling.of(train.features) if len(train) else Scaling.none(train.features.dim)
    hashes = random.hashes(train.ids, "order", training.seed)
    found = []
    for hyperparameters in settings:
        initial = scaling.unfold(hyperparameters.initial) if hyperparameters.initial else None
        layer = Sampled(
            count_C, train.features.dim, training, hyperparameters.learning_rate, drawn, initial=initial
        )
        curve = []
        for epoch in range(training.epochs):
            order = random.epoch_order(hashes, epoch)
            loss = 0.0
            for at in range(0, len(order), training.batch_size):
                index = order[at : at + training.batch_size]
                x_BD = scaling.apply(train.features[index])
                loss += layer.update(x_BD, train.labels[index]) * len(index)
            head = scaling.fold(layer.head()).exclude_unseen(count_C)
            curve.append(Epoch(epoch + 1, loss / max(1, len(train)), *measure(head, val)))
            report_epoch(curve[-1])
            on_epoch(epoch + 1)
        found.append(Fit(hyperparameters, head, tuple(curve)))
    seconds = time.perf_counter() - start
    return [replace(each, seconds=seconds) for each in found]


def best_first(
    fits: Sequence[Fit], train: LabelledFeatures, val: LabelledFeatures, start: float
) -> list[Fit]:
    """Calibrate and sort the fits as `selection.best_first` does, but compare them on more photos.

    With 100,000 classes the logits of some hundred photos fit in memory: enough to fit the scale, too
    few to compare two learning rates.
    """
    known = subsample(val, len(fits[0].head.bias), _MEASURED)
    fits = selection.best_first(fits, train, val, start)
    if len(known):
        fits = [replace(each, scaled_loss=measure(each.head, known)[0]) for each in fits]
    return sorted(fits, key=by_loss)
