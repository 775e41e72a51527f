"""Last layers for classes with few photos: what the field does about a long tail, side by side.

All of it works on kept features, and every result is a plain linear layer. What changes the loss is an
arm of one sweep (`fieldmark.heads.softmax`); what changes the drawing of photos is a sweep of its own;
what comes after training is arithmetic on the plain head.

On a frozen network, training its last layer anew from nothing with evenly drawn classes ("classifier
re-training", Kang et al. 2020, section 4.1) is the same as class-balanced sampling; `re-training`
goes on from the plain head instead.
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
from fieldmark.heads.scaling import fit_weights, subsample
from fieldmark.heads.selection import schedule
from fieldmark.heads.softmax import Epoch, Hyperparameters, Training, fit_sweep
from fieldmark.utils.typing import BoolArray, DoubleArray, IntArray

RATES = (3e-4, 1e-3, 3e-3)
"""Learning rates that the plain head tries; the others take the middle one."""

PLAIN = "plain"

RARE_BELOW = 30
"""A class with fewer photos to learn from is rare."""


@dataclass(frozen=True)
class ImbalanceTrial:
    """A head that one method gave with one setting.

    Attributes:
        method: its name, a key of `METHODS` or `plain`.
        setting: learning rate and strength.
        head: the layer, on the features as they are.
        curve: an entry an epoch, of what was trained; nothing is chosen by it.
    """

    method: str
    setting: tuple[float, float]
    head: LinearHead
    curve: tuple[Epoch, ...] = ()


def prior(count_C: IntArray) -> DoubleArray:
    """The log of each class's share of the training photos, half a photo for one without: (C,)."""
    smooth_C = np.maximum(count_C, 0.5)
    return np.asarray(np.log(smooth_C / smooth_C.sum()))


def inverse_frequency(count_C: IntArray, power: float) -> DoubleArray:
    """Weights of the classes n_c^-power, 1 in the mean over photos, shape (C,)."""
    return _even(count_C, np.maximum(count_C, 1) ** -power)


def effective_number(count_C: IntArray, beta: float) -> DoubleArray:
    """Weights of the classes by the effective number of their photos, shape (C,).

    (1 - beta) / (1 - beta^n): Cui et al., "Class-balanced loss based on effective number of samples",
    2019, equation 2; brought to 1 in the mean over photos.
    """
    return _even(count_C, (1 - beta) / (1 - beta ** np.maximum(count_C, 1)))


def adjusted(head: LinearHead, log_prior_C: DoubleArray, strength: float) -> LinearHead:
    """Logits less `strength` times the log of the classes' shares.

    Menon et al., "Long-tail learning via logit adjustment", 2021, equation 9. With a strength of 1
    the answers are those for classes that are all equally frequent.
    """
    bias = head.bias - (strength * log_prior_C).astype(np.float32)
    return LinearHead(head.weight, bias)


def normalised(head: LinearHead, scaling: Scaling, strength: float) -> LinearHead:
    """Each class's logit divided by the length of its weights to the power of `strength`.

    The tau-normalisation of Kang et al. 2020, equation 4, on features of zero mean and unit variance.
    The bias is divided as well, where theirs is left out: with a strength of 0 this is the head as
    it was.
    """
    own = scaling.unfold(head)
    length_C = np.maximum(np.linalg.norm(own.weight, axis=0), 1e-12) ** strength
    length_C = (length_C / np.exp(np.log(length_C).mean())).astype(np.float32)
    return scaling.fold(LinearHead(own.weight / length_C, own.bias / length_C))


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
"""What each method tries: the power; beta; the weight of the prior; the evenness; tau."""

METHODS = tuple(STRENGTHS)


def fit_methods(
    train: LabelledFeatures,
    classes: int,
    training: Training,
    methods: Collection[str] = METHODS,
    monitored: LabelledFeatures | None = None,
    calibration: tuple[LabelledFeatures, LabelledFeatures] | None = None,
) -> list[ImbalanceTrial]:
    """The plain head and the methods' heads, all strengths.

    Adjusting afterwards takes logits for log-probabilities, so the prior is first brought into the
    units of the plain head's logits, by the temperature that fits photos it did not learn from.

    Args:
        train: photos to learn from; labels of -1 are passed over.
        classes: C.
        training: epochs, batches and order, for all alike.
        methods: which ones, of `METHODS`.
        watched: photos whose loss and error the curves show, without a say in anything; None: no curves.
        aside: photos to learn plain heads from, `train` itself or a part of it, and others that their
            temperatures are fitted on; None: all are 1.
    """
    learned, train = train, train.where(train.labels >= 0)
    count_C = class_counts(train, classes)
    log_prior_C = prior(count_C)
    settings: list[tuple[str, float, Hyperparameters]] = [
        (PLAIN, 0.0, Hyperparameters(rate)) for rate in RATES
    ]
    settings += [each for each in _loss_settings(count_C, log_prior_C) if each[0] in methods]
    found = _fit_trials(train, classes, training, settings, monitored)
    middle = next(each.head for each in found if each.setting == (RATES[1], 0.0))
    sampled = {"root-sampling": None, "balanced-sampling": None, "re-training": middle}
    for name, initial in [each for each in sampled.items() if each[0] in methods]:
        for evenness in STRENGTHS[name]:
            even, hyperparameters = (
                replace(training, evenness=evenness),
                Hyperparameters(RATES[1], initial=initial),
            )
            found += _fit_trials(
                train, classes, even, [(name, evenness, hyperparameters)], monitored
            )
    scaling, plain_ones = Scaling.of(train.features), [t for t in found if t.method == PLAIN]
    temperatures = [1.0] * len(plain_ones)
    if calibration and "adjusted" in methods:
        again = (
            None if calibration[0] is learned else calibration[0].where(calibration[0].labels >= 0)
        )
        ones = (
            _fit_trials(again, classes, training, settings[: len(RATES)], None)
            if again is not None
            else plain_ones
        )
        temperatures = [_temperature(each.head, calibration[1], classes) for each in ones]
    for plain, temperature in zip(plain_ones, temperatures, strict=True):
        rate = plain.setting[0]
        for each in STRENGTHS["adjusted"]:
            head = adjusted(plain.head, log_prior_C, each * temperature)
            found.append(ImbalanceTrial("adjusted", (rate, each), head))
        for each in STRENGTHS["normalised"]:
            head = normalised(plain.head, scaling, each)
            found.append(ImbalanceTrial("normalised", (rate, each), head))
    wanted = [each for each in found if each.method in {PLAIN, *methods}]
    return [replace(each, head=each.head.exclude_unseen(count_C)) for each in wanted]


def fit(
    method: str, train: LabelledFeatures, val: LabelledFeatures, classes: int, seed: int = 0
) -> FittedHead:
    """The head of one method, its strength and the scale of its logits chosen on validation photos.

    Args:
        method: of `METHODS`.
        train: photos to learn from; labels of -1 are passed over.
        val: photos to choose by; without any the middle one of the settings is taken.
        classes: C; a class without a training photo is never the answer.
        seed: of the order of training.
    """
    start = time.perf_counter()
    if not (train.labels >= 0).any():
        return single_class_head(train, val, classes)
    training = schedule(int((train.labels >= 0).sum()), seed)
    found = fit_methods(train, classes, training, [method], calibration=(train, val))
    heads = [each.head for each in found if each.method == method]
    measured = subsample(val, classes)
    labels = torch.from_numpy(measured.labels)
    scales = []
    for head in heads:
        s_NC = torch.from_numpy(head.logits_of(measured.features))
        scales.append(fit_weights((s_NC,), labels, ((1.0, 1.0),)))
    numbers = range(len(heads))
    best = min(numbers, key=lambda at: scales[at].loss) if len(measured) else len(heads) // 2
    # Never turned round or taken to nothing, however wrong a handful of photos is.
    head = heads[best].times(max(scales[best].values[0], 0.05))
    return FittedHead(head, scales[best].loss, time.perf_counter() - start)


def _temperature(head: LinearHead, photos: LabelledFeatures, classes: int) -> float:
    """What the head's logits are divided by to fit photos that it did not learn from; 1 without any."""
    measured = subsample(photos, classes)
    if not len(measured):
        return 1.0
    s_NC = torch.from_numpy(head.logits_of(measured.features))
    (factor,) = fit_weights((s_NC,), torch.from_numpy(measured.labels), ((1.0, 10.0),)).values
    return 1 / max(factor, 0.05)


def _loss_settings(
    count_C: IntArray, log_prior_C: DoubleArray
) -> Iterator[tuple[str, float, Hyperparameters]]:
    """What changes the loss."""
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
    fits = fit_sweep(
        train, val, classes, training, [hyperparameters for _, _, hyperparameters in settings]
    )
    return [
        ImbalanceTrial(
            name,
            (hyperparameters.learning_rate, strength),
            fit.head,
            () if monitored is None else fit.curve,
        )
        for (name, strength, hyperparameters), fit in zip(settings, fits, strict=True)
    ]


def _even(count_C: IntArray, weight_C: DoubleArray) -> DoubleArray:
    mean = (weight_C * count_C).sum() / max(1, count_C.sum())
    return np.asarray(weight_C / mean)


def choose_trial(
    wrong: Sequence[BoolArray],
    plain_N: BoolArray,
    labels_N: IntArray,
    tail_C: BoolArray,
    loss: float = 0.02,
) -> int:
    """Which setting helps rare classes most at no cost that counts; its number.

    Of the settings whose mistakes over all photos are at most `loss` more than plain's, relatively, the
    one with the lowest error over the rare classes, each class counting the same; where none is as
    good, the one with the fewest mistakes.

    Args:
        wrong: for each setting whether each photo was named wrongly, shape (N,).
        plain_N: the same for the plain head.
        labels_N: the photos' classes.
        tail_C: which classes are rare; where none occurs among the photos, all count.
    """
    tail_N = tail_C[labels_N] if tail_C[labels_N].any() else np.ones(len(labels_N), np.bool_)

    def rank(number: int) -> tuple[bool, float, float]:
        wrong_N = wrong[number]
        error_C, _ = metrics.per_class_error(wrong_N[tail_N], labels_N[tail_N], len(tail_C))
        dear = float(wrong_N.mean()) > (1 + loss) * float(plain_N.mean())
        over_all = float(wrong_N.mean())
        return dear, over_all if dear else metrics.macro_average(error_C), over_all

    return min(range(len(wrong)), key=rank)
