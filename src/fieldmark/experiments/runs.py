"""The rows of a study, and the recipes that list them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal

from fieldmark.experiments.own import OwnNetwork, code_key
from fieldmark.training.finetune.step import Loss
from fieldmark.utils import io
from fieldmark.utils.choices import Crop, Transfer

if TYPE_CHECKING:
    from torch import nn

Mode = Literal["cached", "literal", "finetune", "tuned", "int8", "ensemble", "head", "tail", "early"]
"""How a row is made:

    cached      the last layer is trained on cached features
    literal     the network itself is run in every epoch, with its last layer as its library defines it
    finetune    the same, with all layers trained as in the paper
    tuned       all layers, from the best last layer on cached features, by the recipe `finetune.good`
    int8        the kept network of the row `source`, computed in 8-bit integers
    ensemble    the probabilities of all rows of `members` are averaged
    head        the kind of head `head` is trained on cached features
    tail        the method `head` for rare classes, on cached features
    early       the plain head, stopped when its validation loss no longer falls
"""

ON_FEATURES = ("cached", "head", "tail", "early")
"""The modes that need nothing but cached features."""

Part = Literal["val", "test", "cross"]
"""What the error is measured on; `cross`: training and validation photos, by out-of-fold predictions."""


@dataclass(frozen=True)
class Options:
    """The options that a recipe may use."""

    epochs: int = 10  # passes over the training photos
    long_epochs: int = 100  # the same for runs that are trained for longer
    seed: int = 0  # of the split, of the order of training and of the bootstrap
    prune_below: int | None = None  # one more pruning threshold for the recipe `better`
    backbones: tuple[str, ...] = ()  # the networks of the recipes `foundation` and `traps`


@dataclass(frozen=True)
class Run:
    """One row of a study: one network, trained in one way.

    Attributes:
        table, label: the table that it belongs to, and its name in the table.
        backbone: the network: a name that `fieldmark.models.load` knows, or the name of `network`.
        transfer: `scratch` (all layers, from random weights), `all` (all layers, from pretrained
            weights), `low-rank` (low-rank updates of all layers, and the last layer), `adapters`
            (biases, normalisations and the last layer) or `last` (all frozen but the last layer).
        pruned: whether classes with few training photos are left out.
        epochs: passes over the training photos; heads and ensembles take as many as they need.
        mode, part: how it is made, and the photos that it is measured on: see `Mode` and `Part`.
        members: for an ensemble, the table whose rows it averages.
        best_of: repeat the row with the lowest validation error of this table.
        head: a kind of head, or a method for rare classes: see `fieldmark.heads`.
        combine: how the weights of an ensemble are found outside the fold that they are measured on, a
            key of `fieldmark.evaluation.ensemble.WEIGHTINGS`, or `pair`: the best two.
        learn, ask: for `head`: the views of a photo that are trained on, each as a photo of its own,
            and those whose probabilities are averaged: `whole`, `mirrored`, `centre`.
        decide: for `head`: the first label is the most `probable`, or the one with the least expected
            `height` of the lowest common ancestor (see `fieldmark.evaluation.taxonomic`).
        prune_below: with `pruned`: the training photos that a class needs; None: the study's number.
        places: for `head` on out-of-fold photos: only those with a known location, of classes at two
            locations or more; `seen`: folds as usual; `new`: no fold learns from the locations that it is
            measured on. None: all photos.
        whole: for `head` on out-of-fold photos: the photos that boxes are of, in place of their crops.
        each: for `head` on out-of-fold photos: how many photos of a class are learned from; None: all.
        size, crop: the side of the crops in pixels, and how they are made; None: as for `TrainConfig`.
        changes: for `tuned`: fields of `fieldmark.training.finetune.FineTuning` that differ from
            those of the recipe `finetune.good`.
        sparsity: for `tuned` with all layers: the share of weights that become zero by magnitude pruning,
            in rounds of `epochs` each (see `fieldmark.training.finetune.magnitude`); None: none.
        channels: the same for the share of channels that are removed (see
            `fieldmark.training.finetune.channels`); None: none.
        teacher: for `tuned`: the label of an earlier row of the table, whose kept network teaches this one
            (see `fieldmark.training.finetune.distillation`); empty: the labels alone.
        source: for `int8`: the label of an earlier row of the table, whose kept network is computed.
        keep: for `tuned`: whether the trained network stays in the folder of the study, and what it takes
            to run it is measured.
        network: a PyTorch network of your own: an `OwnNetwork`, or a function that builds one whose
            output are the features.
        loss: your own loss, of logits (N, C) and labels (N,), instead of the cross-entropy: for
            `cached`, `literal`, `finetune`, `tuned`, and for `head` with the softmax head.
        version: stands for the code of `network` and `loss` when a study is resumed; without it a digest
            of their source does. Change it when code that they call changes.
    """

    table: str
    label: str
    backbone: str = ""
    transfer: Transfer = "last"
    pruned: bool = True
    epochs: int = 10
    mode: Mode = "cached"
    members: str = ""
    part: Part = "val"
    best_of: str = ""
    head: str = ""
    combine: str = "mean"
    learn: tuple[str, ...] = ("whole",)
    ask: tuple[str, ...] = ("whole",)
    decide: Literal["probable", "height"] = "probable"
    prune_below: int | None = None
    places: Literal["seen", "new"] | None = None
    whole: bool = False
    each: int | None = None
    size: int | None = None
    crop: Crop | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    sparsity: float | None = None
    channels: float | None = None
    teacher: str = ""
    source: str = ""
    keep: bool = False
    network: OwnNetwork | Callable[[], nn.Module] | None = None
    loss: Loss | None = None
    version: str = ""

    def __post_init__(self) -> None:
        if self.own:
            name = re.sub(r"[^\w.-]+", "", self.backbone or self.own.name)
            object.__setattr__(self, "backbone", name or "network")

    @property
    def own(self) -> OwnNetwork | None:
        """The user's own network, with its settings."""
        if self.network is None:
            return None
        found = self.network if isinstance(self.network, OwnNetwork) else OwnNetwork(self.network)
        return replace(found, version=found.version or self.version)

    @property
    def smaller(self) -> bool:
        """Whether the network is made smaller in rounds."""
        return self.sparsity is not None or self.channels is not None

    def about(self) -> dict[str, Any]:
        """Return the settings as JSON values, for a key: code by its version or its source.

        Raises:
            InputError: own code has no version, and its source does not say all.
        """
        later = {
            "decide": "probable",
            "each": None,
            "places": None,
            "whole": False,
            "size": None,
            "crop": None,
            "sparsity": None,
            "channels": None,
            "teacher": "",
            "source": "",
            "keep": False,
        }  # where unset, older rows keep their keys
        out = {"network", "loss", "version", *(n for n, unset in later.items() if getattr(self, n) == unset)}
        values = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in out}
        if self.own:
            values["network"] = self.own.key
        if self.loss is not None:
            values["loss"] = code_key(self.loss, self.version, "loss")
        return values

    @property
    def id(self) -> str:
        """A name for the row that tells it from all others; also the name of its file of scores."""
        loss = getattr(self.loss, "__name__", type(self.loss).__name__)
        parts = [
            *(self.table, self.backbone or self.mode, self.transfer),
            *("pruned" if self.pruned else "complete", self.mode),
            "" if self.mode in ("head", "ensemble") else f"{self.epochs}ep",
            # What only some runs have comes last, so that the names of all others stay short.
            *(self.head, "" if self.decide == "probable" else self.decide),
            "" if self.combine == "mean" else self.combine,
            *(() if self.learn == self.ask == ("whole",) else ("+".join(self.learn), "+".join(self.ask))),
            "" if self.prune_below is None else f"below{self.prune_below}",
            "" if self.each is None else f"{self.each}each",
            "" if self.places is None else f"{self.places}-places",
            "whole-photos" if self.whole else "",
            *(f"{self.size}px" if self.size else "", self.crop or ""),
            re.sub(r"[^\w.,=-]+", "", ",".join(f"{name}={value}" for name, value in self.changes.items())),
            "" if self.sparsity is None else f"{self.sparsity}zeros",
            "" if self.channels is None else f"{self.channels}channels",
            "taught" if self.teacher else "",
            re.sub(r"[^\w.]+", "-", f"of-{self.source}") if self.source else "",
            "" if self.loss is None else re.sub(r"\W+", "", loss) or "loss",
            "test" if self.part == "test" and not self.best_of else "",
        ]
        return io.file_name("-".join(filter(None, parts)))


@dataclass(frozen=True)
class Recipe:
    """A named list of runs, in the order in which their results are wanted."""

    name: str
    title: str
    runs: tuple[Run, ...]


RecipeFunction = Callable[[Options], Recipe]
