"""Last layers for classes with few photos: the published methods for class imbalance, compared.

All methods work on cached features and give a linear layer. Methods that change the loss are trained in
one sweep (`fieldmark.heads.softmax`), each sampling of photos is a sweep of its own, and methods that
adjust a trained layer are arithmetic on the plain head.

On a frozen network, training the last layer from scratch with evenly sampled classes ("classifier
re-training", Kang et al. 2020, section 4.1) is the same as class-balanced sampling; so `re-training`
starts from the plain head instead.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from fieldmark.evaluation import metrics
from fieldmark.features.labelled import LabelledFeatures
from fieldmark.heads.base import FittedHead, LinearHead, Scaling
from fieldmark.heads.ridge import class_counts, single_class_head
from fieldmark.heads.scaling import Weights, fit_weights, subsample
from fieldmark.heads.selection import schedule
from fieldmark.heads.softmax import Epoch, Hyperparameters, Training, fit_sweep
from fieldmark.utils.typing import BoolArray, DoubleArray, IntArray

RATES = (3e-4, 1e-3, 3e-3)
"""Learning rates of the plain head; the other methods use the middle one."""

PLAIN = "plain"

RARE_BELOW = 30
"""A class with fewer training photos is rare."""

STRENGTHS: dict[str, tuple[float, ...]] = {
    "inverse-frequency": (0.25, 0.5, 1.0),
    "effective-number": (0.9, 0.97, 0.99),
    "adjusted-loss": (0.25, 0.5, 1.0, 1.5, 2.0),
    "root-sampling": (0.5,),
    "balanced-sampling": (1.0,),
    "re-training": (0.5, 1.0),
    "adjusted": (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0),
    "normalised": (0.25, 0.5, 0.75, 1.0),
}
"""The strengths that each method tries: the power; beta; the weight of the prior; the evenness; tau."""

METHODS = tuple(STRENGTHS)

_SAMPLING = ("root-sampling", "balanced-sampling", "re-training")


@dataclass(frozen=True)
class ImbalanceTrial:
    """A head trained by one method with one setting.

    Attributes:
        method: a name in `METHODS`, or `plain`.
        setting: learning rate and strength.
        head: the layer, on unscaled features.
        curve: an entry an epoch, for information only.
    """

    method: str
    setting: tuple[float, float]
    head: LinearHead
    curve: tuple[Epoch, ...] = ()


def prior(count_C: IntArray) -> DoubleArray:
    """Compute the log-shares of the classes; one without photos counts as half a photo: (C,)."""
    smooth_C = np.maximum(count_C, 0.5)
    return np.asarray(np.log(smooth_C / smooth_C.sum()))


def inverse_frequency(count_C: IntArray, power: float) -> DoubleArray:
    """Compute class weights n_c^-power, with mean 1 over the photos, shape (C,)."""
    return _mean_one(count_C, np.maximum(count_C, 1) ** -power)


def effective_number(count_C: IntArray, beta: float) -> DoubleArray:
    """Compute class weights by the effective number of photos, shape (C,).

    (1 - beta) / (1 - beta^n): Cui et al., "Class-balanced loss based on effective number of samples",
    2019, equation 2; scaled to mean 1 over the photos.
    """
    return _mean_one(count_C, (1 - beta) / (1 - beta ** np.maximum(count_C, 1)))


def _mean_one(count_C: IntArray, weight_C: DoubleArray) -> DoubleArray:
    mean = (weight_C * count_C).sum() / max(1, count_C.sum())
    return np.asarray(weight_C / mean)


def adjusted(head: LinearHead, log_prior_C: DoubleArray, strength: float) -> LinearHead:
    """Subtract `strength` times the log-shares of the classes from the logits.

    Menon et al., "Long-tail learning via logit adjustment", 2021, equation 9. With strength 1 the
    predictions are those for equally frequent classes.
    """
    bias = head.bias - (strength * log_prior_C).astype(np.float32)
    return LinearHead(head.weight, bias)


def normalised(head: LinearHead, scaling: Scaling, strength: float) -> LinearHead:
    """Divide each class's logit by the norm of its weights to the power of `strength`.

    The tau-normalisation of Kang et al. 2020, equation 4, on features of zero mean and unit variance.
    The bias is divided as well, unlike there, so that strength 0 leaves the head unchanged.
    """
    own = scaling.unfold(head)
    length_C = np.maximum(np.linalg.norm(own.weight, axis=0), 1e-12) ** strength
    length_C = (length_C / np.exp(np.log(length_C).mean())).astype(np.float32)
    return scaling.fold(LinearHead(own.weight / length_C, own.bias / length_C))


def fit_methods(
    train: LabelledFeatures,
    classes: int,
    training: Training,
    methods: Collection[str] = METHODS,
    monitored: LabelledFeatures | None = None,
    calibration: tuple[LabelledFeatures, LabelledFeatures] | None = None,
) -> list[ImbalanceTrial]:
    """Fit the plain head and the heads of the methods, at all strengths.

    `adjusted` needs logits that are log-probabilities, so the prior is first scaled to the units of the
    plain head's logits, by the temperature that fits photos it was not trained on.

    Args:
        train: training photos; those with label -1 are ignored.
        classes: C.
        training: epochs, batches and order, for all heads.
        methods: names in `METHODS`.
        monitored: photos for the loss and error of the curves; None: no curves.
        calibration: photos to train plain heads on, `train` itself or a part of it, and other photos
            to fit their temperatures on; None: all temperatures are 1.
    """
    known = train.where(train.labels >= 0)
    count_C = class_counts(known, classes)
    log_prior_C = prior(count_C)
    settings = [(PLAIN, 0.0, Hyperparameters(rate)) for rate in RATES]
    in_loss = [each for each in _loss_settings(count_C, log_prior_C) if each[0] in methods]
    trials = _fit_trials(known, classes, training, [*settings, *in_loss], monitored)
    plain = [each for each in trials if each.method == PLAIN]
    for name in [each for each in _SAMPLING if each in methods]:
        initial = plain[1].head if name == "re-training" else None
        for evenness in STRENGTHS[name]:
            setting = name, evenness, Hyperparameters(RATES[1], initial=initial)
            even = replace(training, evenness=evenness)
            trials += _fit_trials(known, classes, even, [setting], monitored)
    temperatures = [1.0] * len(plain)
    if calibration and "adjusted" in methods:
        learn, held_out = calibration
        fitted = plain
        if learn is not train:
            fitted = _fit_trials(learn.where(learn.labels >= 0), classes, training, settings, None)
        temperatures = [_temperature(each.head, held_out, classes) for each in fitted]
    scaling = Scaling.of(known.features)
    for each, temperature in zip(plain, temperatures, strict=True):
        rate = each.setting[0]
        for strength in STRENGTHS["adjusted"]:
            head = adjusted(each.head, log_prior_C, strength * temperature)
            trials.append(ImbalanceTrial("adjusted", (rate, strength), head))
        for strength in STRENGTHS["normalised"]:
            head = normalised(each.head, scaling, strength)
            trials.append(ImbalanceTrial("normalised", (rate, strength), head))
    wanted = [each for each in trials if each.method in {PLAIN, *methods}]
    return [replace(each, head=each.head.exclude_unseen(count_C)) for each in wanted]


def fit(
    train: LabelledFeatures, val: LabelledFeatures, classes: int, seed: int = 0, *, method: str
) -> FittedHead[LinearHead]:
    """Fit the head of one method; choose its strength and scale on validation photos.

    Args:
        train: training photos; those with label -1 are ignored.
        val: validation photos; without any the middle setting is taken.
        classes: C; a class without training photos is never predicted.
        seed: of the order of training.
        method: a name in `METHODS`.
    """
    start = time.perf_counter()
    photos = int((train.labels >= 0).sum())
    if not photos:
        return single_class_head(train, val, classes)
    found = fit_methods(train, classes, schedule(photos, seed), [method], calibration=(train, val))
    heads = [each.head for each in found if each.method == method]
    measured = subsample(val, classes)
    scales = [_fit_scale(head, measured, 1.0) for head in heads]
    numbers = range(len(heads))
    best = min(numbers, key=lambda at: scales[at].loss) if len(measured) else len(heads) // 2
    # The lower bound keeps the sign of the logits, however wrong a few photos are.
    head = heads[best].times(max(scales[best].values[0], 0.05))
    return FittedHead(head, scales[best].loss, time.perf_counter() - start)


def _fit_scale(head: LinearHead, photos: LabelledFeatures, deviation: float) -> Weights:
    s_NC = torch.from_numpy(head.logits_of(photos.features))
    return fit_weights((s_NC,), torch.from_numpy(photos.labels), ((1.0, deviation),))


def _temperature(head: LinearHead, photos: LabelledFeatures, classes: int) -> float:
    """Fit the temperature on photos that the head was not trained on; 1 without any."""
    measured = subsample(photos, classes)
    if not len(measured):
        return 1.0
    return 1 / max(_fit_scale(head, measured, 10.0).values[0], 0.05)


def _loss_settings(
    count_C: IntArray, log_prior_C: DoubleArray
) -> Iterator[tuple[str, float, Hyperparameters]]:
    """Return the settings of the methods that change the loss."""
    weighted: dict[str, Callable[[IntArray, float], DoubleArray]] = {
        "inverse-frequency": inverse_frequency,
        "effective-number": effective_number,
    }
    for name, weights in weighted.items():
        for each in STRENGTHS[name]:
            yield name, each, Hyperparameters(RATES[1], class_weights=tuple(weights(count_C, each)))
    for each in STRENGTHS["adjusted-loss"]:
        yield "adjusted-loss", each, Hyperparameters(RATES[1], offsets=tuple(each * log_prior_C))


def _fit_trials(
    train: LabelledFeatures,
    classes: int,
    training: Training,
    settings: Sequence[tuple[str, float, Hyperparameters]],
    monitored: LabelledFeatures | None,
) -> list[ImbalanceTrial]:
    val = train.where(np.zeros(len(train), np.bool_)) if monitored is None else monitored
    fits = fit_sweep(train, val, classes, training, [each for _, _, each in settings])
    return [
        ImbalanceTrial(
            name,
            (fit.hyperparameters.learning_rate, strength),
            fit.head,
            () if monitored is None else fit.curve,
        )
        for (name, strength, _), fit in zip(settings, fits, strict=True)
    ]


def choose_trial(
    wrong: Sequence[BoolArray], plain_N: BoolArray, labels_N: IntArray, tail_C: BoolArray, loss: float = 0.02
) -> int:
    """Choose the setting with the lowest error on rare classes at nearly the same overall error.

    Among the settings with at most `loss` more mistakes than the plain head, relatively, the one with
    the lowest macro error over the rare classes; if there is none, the one with the fewest mistakes.

    Args:
        wrong: for each setting whether each photo was classified wrongly, shape (N,).
        plain_N: the same for the plain head.
        labels_N: the labels.
        tail_C: which classes are rare; if no photo has one of them, all classes count.

    Returns:
        The number of the setting.
    """
    tail_N = tail_C[labels_N] if tail_C[labels_N].any() else np.ones(len(labels_N), np.bool_)

    def rank(number: int) -> tuple[bool, float, float]:
        wrong_N = wrong[number]
        error_C, _ = metrics.per_class_error(wrong_N[tail_N], labels_N[tail_N], len(tail_C))
        error = float(wrong_N.mean())
        too_many = error > (1 + loss) * float(plain_N.mean())
        return too_many, error if too_many else metrics.macro_average(error_C), error

    return min(range(len(wrong)), key=rank)
