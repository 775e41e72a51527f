"""The networks of a classifier, and its members: a network with a view and a head."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from fieldmark.data.transforms import Preprocess
from fieldmark.evaluation import calibration, ensemble, metrics
from fieldmark.heads.base import LinearHead
from fieldmark.models import runtime
from fieldmark.models.runtime import graphs
from fieldmark.utils import io
from fieldmark.utils.choices import Compute
from fieldmark.utils.errors import ClassifierError, InputError, NotConvertible, StoreError
from fieldmark.utils.typing import ByteArray, FloatArray

if TYPE_CHECKING:
    import onnx

    from fieldmark.models import Architecture, Backbone


logger = logging.getLogger(__name__)

_loading = threading.RLock()
"""Held while a network is loaded, so that several threads load it once."""


@dataclass(frozen=True, eq=False)
class Network:
    """A backbone by its name and key; its weights are read when they are first needed.

    It can be pickled at any time. A pickle holds the weights, and neither an engine nor a path.
    """

    architecture: str
    weights: str  # `Backbone.key` in float32, at the crop size it was made for
    source: Backbone | Path | None = None  # the backbone itself, or the file that holds its weights
    side: int | None = None  # crop size in pixels, where it is not the one that it was made for
    trained_at: int | None = None  # the crop size that it was made for, where it is not the published one
    runs_in: str | None = None  # the name of its engine; None: what starts fastest, see `_engine`
    facts: Architecture | None = None  # where the name alone does not say how it is built
    tier: runtime.Tier = runtime.EXACT  # how its features are computed

    @classmethod
    def of(cls, backbone: Backbone) -> Network:
        """Return the network of a backbone that is in memory."""
        from fieldmark.models import BACKBONES, timm

        tier, backbone = backbone.tier, backbone.exact
        facts, native = backbone.architecture, backbone.native
        side, own = facts.input_size if native else None, (native or backbone).architecture
        trained_at = own.input_size if own.published_size else None
        described = own.published if own.config else None
        # Some names are torchvision's and timm's: without the prefix they mean torchvision's.
        same = BACKBONES.get(facts.name, facts).library == facts.library
        name, key = facts.name if same else timm.PREFIX + facts.name, (native or backbone).key
        return cls(name, key, backbone, side, trained_at, facts=described, tier=tier)

    @property
    def key(self) -> str:
        """The key of its cached features: `Backbone.key`."""
        return self.tier.key_of(self.exact_key)

    @property
    def exact_key(self) -> str:
        """The key of its features in float32, and of its converted graph."""
        from fieldmark.models import key_for_side

        return self.weights if self.side is None else key_for_side(self.weights, self.side)

    def __getstate__(self) -> dict[str, Any]:
        """Return the fields, with the weights in the place of the path to them."""
        held = self.backbone.exact if isinstance(self.source, Path) else self.source
        return {each.name: getattr(self, each.name) for each in fields(self)} | {"source": held}

    def graph(self) -> onnx.ModelProto:
        """Return the network as a graph, converted before or now; raises InputError if it cannot be."""
        import onnx

        return onnx.load(runtime.cached_graph(self.exact_key) or graphs.graph(self.backbone))

    @property
    def engine(self) -> runtime.Engine:
        """The engine that computes features on this machine; safe to use from several threads."""
        with _loading:
            return self._engine

    @property
    def backbone(self) -> Backbone:
        """The network before the head, with its weights, in its tier; raises ClassifierError if the file is
        damaged."""
        with _loading:
            return self._backbone.computed(self.tier)

    @cached_property
    def _engine(self) -> runtime.Engine:
        """A graph that was converted before is used at once, without PyTorch; a damaged one is
        converted again, and a network that cannot be converted runs in PyTorch if no engine is named."""
        if self.tier.graph is not None:
            return runtime.quantised_engine(self.tier, self.runs_in)
        name = self.runs_in or ("onnxruntime" if self.tier == runtime.EXACT else "auto")
        if (engine := self._without_pytorch(name)) is not None:
            return engine
        try:
            return runtime.engine(self.backbone, name)
        except InputError as error:
            if self.runs_in or self.tier != runtime.EXACT:
                raise
            if not isinstance(error, NotConvertible):  # the disk is full, say
                logger.warning(f"{error} PyTorch runs the network instead, which is slower.")
            return runtime.engine(self.backbone, "torch")

    def _without_pytorch(self, name: str) -> runtime.Engine | None:
        """Return an engine from what the cache has, or None."""
        if name == "auto":
            return runtime.chosen_before(self.exact_key, self._facts, self.tier) if self._facts else None
        if name in runtime.CONVERTED and (graph := runtime.cached_graph(self.exact_key)) is not None:
            with suppress(StoreError):
                return runtime.CONVERTED[name](graph, runtime.BATCH, self.tier)
        return None

    @property
    def _facts(self) -> Architecture | None:
        """The architecture for its crops, where that is known without PyTorch."""
        from fieldmark.models import BACKBONES

        facts = self.facts or BACKBONES.get(self.architecture)
        side = self.side or self.trained_at
        return facts and (facts if side is None else facts.at(side))

    @cached_property
    def _backbone(self) -> Backbone:
        from fieldmark import models
        from fieldmark.inference.classifier import validation

        if isinstance(self.source, models.Backbone):
            return self.source
        if self.source is None:
            raise ClassifierError("This classifier has no weights: load it from its folder.")
        try:
            name = self.facts or self.architecture
            found = models.load(name, weights=self.source, trained_at=self.trained_at)
        except InputError as error:
            raise validation.damaged(self.source.parent, error) from error
        if found.key != self.weights:
            raise ClassifierError(
                f"{self.source} does not hold the weights that the head was trained on: "
                "copy or download the folder again."
            )
        return found if self.side is None else found.at(self.side)


def running(model: onnx.ModelProto) -> Callable[[ByteArray], list[Any]]:
    """Return a function that runs a graph in ONNX Runtime on the CPU: its input to its outputs."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = runtime.cores()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    return lambda value: session.run(None, {name: value})


def combined(
    members: Sequence[Member], temperature: float, logits_MNC: Sequence[FloatArray]
) -> tuple[FloatArray, FloatArray]:
    """Compute what `Classifier.combined` returns."""
    heat = np.float32(temperature)
    weights_M = [each.weight for each in members]
    energy_MN = [calibration.energy(logits_NC / heat) for logits_NC in logits_MNC]
    if len(logits_MNC) == 1:
        return logits_MNC[0] / heat, energy_MN[0]
    log_p_MNC = [metrics.log_softmax(logits_NC) for logits_NC in logits_MNC]
    mixed = ensemble.log_mixture(log_p_MNC, weights_M) / temperature
    return mixed.astype(np.float32), np.average(energy_MN, 0, weights_M).astype(np.float32)


def features_of(members: Sequence[Member], by_view: Mapping[Preprocess, ByteArray]) -> list[FloatArray]:
    """Compute what `Classifier.features` returns from the crops of each view."""
    found: dict[tuple[str, Preprocess], FloatArray] = {}
    for network in {each.network.key: each.network for each in members}.values():
        # Its views have crops of one side: all of them are one batch, which keeps every core at work.
        views = list(dict.fromkeys(each.preprocess for each in members if each.network.key == network.key))
        crops = [by_view[view] for view in views]
        features = network.engine(crops[0] if len(crops) == 1 else np.concatenate(crops))
        parts = np.split(features, len(views))
        found |= {(network.key, view): part for view, part in zip(views, parts, strict=True)}
    return [found[each.network.key, each.preprocess] for each in members]


def logits_of(
    members: Sequence[Member], features: Sequence[FloatArray], whose: Path | None
) -> list[FloatArray]:
    """Compute the `Member.logits` of each member from its features of N photos.

    Raises:
        ClassifierError: a head does not fit its backbone, or gives no finite score.
    """
    found = []
    for member, features_ND in zip(members, features, strict=True):
        try:
            found.append(member.logits(features_ND))
        except ValueError as why:
            raise ClassifierError(
                f"{whose or 'This classifier'} has a head of {member.head.weight.shape} that "
                f"cannot be used ({why}): copy or download it again."
            ) from why
    return found


def name_of(architecture: str, view: Preprocess, side: int | None) -> str:
    """Name a network and its view for a person; `side` where it is not the network's own."""
    told = [f"{side} px"] * (side is not None)
    told += ["central crop"] * (view.fit == "crop") + ["padded"] * (view.fit == "pad")
    told += ["mirrored"] * view.flip
    return f"{architecture} ({', '.join(told)})" if told else architecture


@dataclass(frozen=True, eq=False)
class Member:
    """A network with the view of a photo that it is given, and a head.

    Scores are divided by its temperature, so that its own probabilities are calibrated; 1 where it is the
    only member, since the classifier has a temperature as well. The weights of all members sum to 1.
    """

    network: Network
    preprocess: Preprocess
    head: LinearHead
    temperature: float = 1.0
    weight: float = 1.0

    @property
    def name(self) -> str:
        """The network's name, with the view where it is not the usual one."""
        return name_of(self.network.architecture, self.preprocess, self.network.side)

    @property
    def digested(self) -> list[Any]:
        """What a score depends on, the tensors by their digests."""
        facts = (self.network.architecture, self.network.key, self.preprocess.to_json())
        tensors = (io.sha256(each.tobytes()) for each in self.head.tensors().values())
        return [*facts, *tensors, self.temperature, self.weight]

    def to_json(self) -> dict[str, Any]:
        """Return all but the tensors as a JSON object."""
        return {
            "architecture": self.network.architecture,
            "preprocess": io.from_json(self.preprocess.to_json()),
            "temperature": self.temperature,
            "weight": self.weight,
        }

    def only(self, columns: list[int]) -> LinearHead:
        """Return the head of some of the classes."""
        return LinearHead(np.ascontiguousarray(self.head.weight[:, columns]), self.head.bias[columns])

    def logits(self, features_ND: FloatArray) -> FloatArray:
        """Compute scores divided by the member's temperature, shape (N, C).

        Raises:
            ValueError: the head does not fit the network, or gives no finite score.
        """
        if features_ND.shape[1] != self.head.weight.shape[0]:
            raise ValueError(f"the backbone gives {features_ND.shape[1]} features")
        with np.errstate(over="ignore", invalid="ignore"):
            logits_NC = self.head.logits(features_ND) / np.float32(self.temperature)
        if not np.isfinite(logits_NC.max(axis=1)).all():
            raise ValueError("its scores are beyond what a number can hold")
        return logits_NC


def computed(
    members: tuple[Member, ...], compute: str | None, whose: str = "This classifier"
) -> tuple[Member, ...]:
    """Return members whose networks are computed in another tier; None and "auto": as they are.

    Raises:
        InputError: there is no such tier, or a network carries no int8 graph.
    """
    if compute not in (None, *get_args(Compute)):
        raise InputError(f"there is no compute {compute!r}: name {', '.join(get_args(Compute))}.")
    if compute == "int8" and not all(each.network.tier.graph for each in members):
        raise InputError(
            f"{whose} carries no int8 graph: train it with --compute int8, or use --compute exact."
        )
    if compute in (None, "auto", "int8"):
        return members
    if any(each.network.tier.graph for each in members):
        logger.warning(
            f"The last layer learned from features in int8: computed {compute}, its answers differ, and "
            "their calibration does not hold."
        )
    return with_networks(members, tier=runtime.HALF if compute == "half" else runtime.EXACT)


def with_networks(members: tuple[Member, ...], **changes: Any) -> tuple[Member, ...]:
    """Return members with the same changes of all their networks; members that share one still do."""
    networks = {each.network.key: replace(each.network, **changes) for each in members}
    return tuple(replace(each, network=networks[each.network.key]) for each in members)
