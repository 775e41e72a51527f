"""Networks and losses of the user's own, for the runs of a study."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fieldmark.features.labelled import LabelledFeatures
from fieldmark.heads.base import LinearHead, Scaling
from fieldmark.heads.layers_in_training import BETAS, EPSILON
from fieldmark.heads.softmax import Epoch, Hyperparameters, Training, cosine
from fieldmark.models.architecture import IMAGENET_MEAN, IMAGENET_STD, Architecture, WeightsInfo
from fieldmark.models.backbone import Backbone
from fieldmark.models.network import seeded, with_layer
from fieldmark.models.weights import digest_of_values, random_weights_info
from fieldmark.training.finetune.step import Loss
from fieldmark.utils import io, random
from fieldmark.utils.errors import InputError
from fieldmark.utils.typing import FloatArray


@dataclass(frozen=True)
class OwnNetwork:
    """A PyTorch network that is not in timm or torchvision.

    Attributes:
        build: gives a new network: normalised float32 crops (N, 3, S, S) to features (N, D), or, with a
            `last_layer`, to the scores of any number of classes.
        last_layer: the path of its last layer, an `nn.Linear`; its input are the features. Empty: the
            output of the network are the features.
        side: the side S of its crops, in pixels.
        mean, std: for normalising pixels in [0, 1], for red, green and blue.
        pretrained: whether `build` loads weights; without, every row is marked as random weights.
        version: stands for the code of `build` when a study is resumed. Empty: a digest of its source.
    """

    build: Callable[[], nn.Module]
    last_layer: str = ""
    side: int = 224
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    pretrained: bool = False
    version: str = ""

    @property
    def name(self) -> str:
        """The name of the function or class that builds it."""
        return getattr(self.build, "__name__", "") or type(self.build).__name__

    @property
    def key(self) -> str:
        """A digest of the code and of the settings."""
        code = code_key(self.build, self.version, "network")
        return io.digest([code, self.last_layer, self.side, self.mean, self.std, self.pretrained])


def code_key(function: Callable[..., Any], version: str, what: str) -> str:
    """Return what stands for a function's code: its version, or else a digest of its source.

    Raises:
        InputError: the source does not say what the function does, and there is no version.
    """
    if version:
        return f"version {version}"
    name = getattr(function, "__name__", repr(function))
    try:
        source = inspect.getsource(function)
    except (TypeError, OSError):
        source = ""
    if not source or name == "<lambda>" or getattr(function, "__closure__", None):
        raise InputError(
            f"The {what} {name} is a lambda, depends on variables around it, or has no source, so a "
            "resumed study could not tell whether it changed: give it a version, or write it as a "
            "function of its own."
        )
    return io.sha256(source.encode())


def backbone(own: OwnNetwork, name: str, seed: int) -> Backbone:
    """Build a network of the user's own; random weights depend on the seed.

    Raises:
        InputError: it is not a network whose features can be computed, in one sentence.
    """
    crops = torch.zeros((2, 3, own.side, own.side))
    try:
        with seeded(seed, "weights", name), torch.no_grad():
            network = own.build().eval()
            if own.last_layer:
                last = network.get_submodule(own.last_layer)
                if not isinstance(last, nn.Linear):
                    raise TypeError(f"its last layer is {type(last).__name__}, not Linear")
                features = with_layer(network, own.last_layer, nn.Identity())(crops).flatten(1)
            else:
                features = network(crops).flatten(1)
                last = nn.Linear(features.shape[1], 1)
            if features.shape != (len(crops), last.in_features):
                raise ValueError(f"features of shape {tuple(features.shape)} for {len(crops)} crops")
            with FlopCounterMode(display=False) as counter:
                network(crops[:1])
    except Exception as error:
        raise InputError(
            f"The network {name} does not give features for crops of {own.side} pixels "
            f"({type(error).__name__}: {error}): see fieldmark.experiments.OwnNetwork."
        ) from error
    path = own.last_layer or "2"
    whole = network if own.last_layer else nn.Sequential(network, nn.Flatten(1), last)
    facts = Architecture(
        name=f"own:{name}",
        library=f"own:{own.key}",
        feature_dim=last.in_features,
        input_size=own.side,
        mean=own.mean,
        std=own.std,
        last_layer="a linear layer on the features",
        last_layer_path=path,
        giga_macs=max(round(counter.get_total_flops() / 2e9, 3), 0.001),
        licence="",
        url="",
    )
    account = random_weights_info(facts, whole, seed)
    if own.pretrained:
        digest, total = digest_of_values(whole, path), account.total
        account = WeightsInfo(f"own weights of {name}", digest, total, total)
    return Backbone(facts, whole.eval(), account)


def fit_head(
    train: LabelledFeatures, val: LabelledFeatures, classes: int, training: Training, loss: Loss
) -> tuple[LinearHead, list[Epoch], float]:
    """Train a last layer on cached features with a loss of the user's own; return it, its curve and seconds.

    AdamW with a cosine learning rate on standardised features, as `fieldmark.heads.softmax`.
    """
    train = train.where(train.labels >= 0)
    start, scaling = time.perf_counter(), Scaling.of(train.features)
    x_ND = torch.from_numpy(scaling.apply(train.features[slice(None)]))
    y_N = torch.from_numpy(train.labels)
    weight = torch.zeros((train.features.dim, classes), requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    rate = Hyperparameters().learning_rate
    optimiser = torch.optim.AdamW([weight, bias], rate, BETAS, EPSILON, weight_decay=0.0)
    curve: list[Epoch] = []
    hashes = random.hashes(train.ids, "order", training.seed)
    in_epoch = -(-len(y_N) // training.batch_size)
    for epoch in range(training.epochs):
        order = random.epoch_order(hashes, epoch)
        total = 0.0
        for number in range(in_epoch):
            rows = order[number * training.batch_size : (number + 1) * training.batch_size]
            step = epoch * in_epoch + number
            optimiser.param_groups[0]["lr"] = rate * cosine(step, training.epochs * in_epoch)
            optimiser.zero_grad()
            mean = loss(x_ND[rows] @ weight + bias, y_N[rows])
            mean.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            total += mean.item() * len(rows)
        head = scaling.fold(LinearHead(weight.detach().numpy(), bias.detach().numpy()))
        curve.append(Epoch(epoch + 1, total / len(y_N), *_measure(head, val, loss)))
    return head, curve, time.perf_counter() - start


def _measure(head: LinearHead, val: LabelledFeatures, loss: Loss) -> tuple[float, float]:
    """The user's loss and the error on the validation photos; NaN without any."""
    known = val.where(val.labels >= 0)
    logits_NC: FloatArray = head.logits_of(known.features)
    if not len(logits_NC):
        return float("nan"), float("nan")
    found = loss(torch.from_numpy(logits_NC), torch.from_numpy(known.labels))
    return found.item(), float((logits_NC.argmax(1) != known.labels).mean())
