"""Recipes: the runs of a study. A recipe is Python: copy it, change it, and name the file.

fieldmark study paper DATA --out DIR --weights-dir WEIGHTS      the study of the paper
fieldmark study better DATA --out DIR --weights-dir WEIGHTS     heads, rare classes, pruning, ensembles
fieldmark study tuned DATA --out DIR --epochs 3 --test 0.25     fine-tuning beside the last layer alone
fieldmark study my_recipe.py DATA --out DIR    your own: a file with a function `recipe(options)`
"""

from __future__ import annotations

import re
import runpy
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fieldmark.experiments.own import OwnNetwork, code_key
from fieldmark.training.finetune.step import Loss
from fieldmark.utils.choices import Crop, Transfer
from fieldmark.utils.errors import InputError

if TYPE_CHECKING:
    from torch import nn

Mode = Literal["cached", "literal", "finetune", "tuned", "ensemble", "head", "tail", "early"]
"""How a row is made:

    cached      the last layer is trained on cached features
    literal     the network itself is run in every epoch, with its last layer as its library defines it
    finetune    the same, with all layers trained as in the paper
    tuned       all layers, from the best last layer on cached features, by the recipe `finetune.good`
    ensemble    the probabilities of all rows of `members` are averaged
    head        the kind of head `head` is trained on cached features
    tail        the method `head` for rare classes, on cached features
    early       the plain head, stopped when its validation loss no longer falls
"""

Part = Literal["val", "test", "cross"]
"""What the error is measured on; `cross`: training and validation photos, by out-of-fold predictions."""

FIVE = {
    "AlexNet": "alexnet",
    "DenseNet": "densenet121",
    "SqueezeNet": "squeezenet1_1",
    "ShuffleNet": "shufflenet_v2_x0_5",
    "ResNeXt": "resnext50_32x4d",
}
"""The paper's five architectures (Section 4.4.3). It does not give their sizes; these are the smallest
for which torchvision has official weights."""


@dataclass(frozen=True)
class Options:
    """The options that a recipe may use."""

    epochs: int = 10  # passes over the training photos
    long_epochs: int = 100  # the same for runs that are trained for longer
    seed: int = 0  # of the split, of the order of training and of the bootstrap
    prune_below: int | None = None  # one more pruning threshold for the recipe `better`


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
            key of `fieldmark.evaluation.ensemble.WEIGHTINGS`.
        learn, ask: for `head`: the views of a photo that are trained on, each as a photo of its own,
            and those whose probabilities are averaged: `whole`, `mirrored`, `centre`.
        decide: for `head`: the first label is the most `probable`, or the one with the least expected
            `height` of the lowest common ancestor (see `fieldmark.evaluation.taxonomic`).
        prune_below: with `pruned`: the training photos that a class needs; None: the study's number.
        size, crop: the side of the crops in pixels, and how they are made; None: as for `TrainConfig`.
        changes: for `tuned`: fields of `fieldmark.training.finetune.FineTuning` that differ from
            those of the recipe `finetune.good`.
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
    size: int | None = None
    crop: Crop | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
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

    def about(self) -> dict[str, Any]:
        """Return the settings as JSON values, for a key: code by its version or its source.

        Raises:
            InputError: own code has no version, and its source does not say all.
        """
        later = {"decide": "probable", "size": None, "crop": None}  # where unset, older rows keep their keys
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
            *(f"{self.size}px" if self.size else "", self.crop or ""),
            re.sub(r"[^\w.,=-]+", "", ",".join(f"{name}={value}" for name, value in self.changes.items())),
            "" if self.loss is None else re.sub(r"\W+", "", loss) or "loss",
            "test" if self.part == "test" and not self.best_of else "",
        ]
        return "-".join(filter(None, parts))


@dataclass(frozen=True)
class Recipe:
    """A named list of runs, in the order in which their results are wanted."""

    name: str
    title: str
    runs: tuple[Run, ...]


RecipeFunction = Callable[[Options], Recipe]


def paper(options: Options) -> Recipe:
    """Return the study of "Deep CNNs for large scale species classification".

    Its tables 2 and 3 and its Figure 4; the error of the best of Table 3 on the test part; and its future
    work: an ensemble of the five, and more epochs. `literal` repeats the frozen rows of three networks
    as the paper trained them, to show the effect of training on cached features.
    """
    run = partial(Run, epochs=options.epochs)
    literal = ("ShuffleNet", "SqueezeNet", "AlexNet")
    return Recipe(
        "paper",
        "Deep CNNs for large scale species classification, on your photos",
        (
            *(run("table3", label, name) for label, name in FIVE.items()),
            run("table2", "Complete train set", "alexnet", pruned=False),
            run("table2", "Pruned train set", "alexnet", pruned=True),
            run("test", "Best of Table 3", best_of="table3", part="test"),
            run("ensemble", "Mean of the five", mode="ensemble", members="table3"),
            *(Run("epochs", label, name, epochs=options.long_epochs) for label, name in FIVE.items()),
            *(run("literal", label, FIVE[label], mode="literal") for label in literal),
            run("figure4", "Last layer", "alexnet"),
            run("figure4", "All layers", "alexnet", "all", mode="finetune"),
            run("figure4", "From scratch", "alexnet", "scratch", mode="finetune"),
        ),
    )


LITE0 = "tf_efficientnet_lite0"

NETWORKS = {
    "EfficientNet-Lite0": LITE0,
    "SqueezeNet": "squeezenet1_1",
    "ShuffleNet": "shufflenet_v2_x0_5",
    "MobileNet-V2": "mobilenet_v2",
    "AlexNet": "alexnet",
}
"""Networks that are fast on a CPU; the first is the default."""

TAIL = {
    "Plain softmax": "plain",
    "Plain, corrected to even classes": "even",
    "Loss weighted by inverse frequency": "inverse-frequency",
    "Loss weighted by effective number": "effective-number",
    "Square-root sampling": "root-sampling",
    "Class-balanced sampling": "balanced-sampling",
    "Re-training of the plain head": "re-training",
    "Logit adjustment in the loss": "adjusted-loss",
    "Logit adjustment afterwards": "adjusted",
    "Tau-normalisation": "normalised",
}


def better(options: Options) -> Recipe:
    """Return a study of heads, rare classes, pruning, longer training and ensembles, on cached features.

    All rows of a table are measured on the same photos; the first one is the reference.
    """

    def run(table: str, label: str, backbone: str = LITE0, **how: Any) -> Run:
        settings = {"pruned": False, "part": "cross", "epochs": options.epochs}
        return Run(table, label, backbone, **{**settings, **how})

    heads = {"Softmax, the default": "softmax", "Ridge": "ridge"}
    heads |= {"Nearest class mean": "ncm", "Nearest neighbours": "knn"}
    two = ("whole", "mirrored")
    three = (*two, "centre")
    views: dict[str, dict[str, Any]] = {
        "The whole photo": {},
        "Learned from mirrored ones too": {"learn": two},
        "Answers averaged over both": {"ask": two},
        "Learned from both, averaged over both": {"learn": two, "ask": two},
        "The same with the centre of the photo": {"learn": three, "ask": three},
    }
    ways = {"Mean": "mean", "Fitted weights": "weights", "Greedy selection": "greedy"}
    tail = [run("tail", label, mode="tail", head=name) for label, name in TAIL.items()]
    return Recipe(
        "better",
        "Better than the paper: what pays on your photos",
        (
            *(run("heads", label, mode="head", head=name) for label, name in heads.items()),
            run("heads", "Default, least expected height", mode="head", head="softmax", decide="height"),
            *(run("views", label, mode="head", head="softmax", **how) for label, how in views.items()),
            *tail,
            *(replace(each, table="tail-test", part="test") for each in tail),
            run("prune", "All classes", mode="tail", head="plain"),
            *(
                run("prune", label, mode="tail", head=head, pruned=True, prune_below=number)
                for number in sorted({20, 30, 50, options.prune_below or 30})
                for label, head in (
                    (f"Learned without those below {number}", "plain"),
                    (f"Learned with, never answers those below {number}", "masked"),
                )
            ),
            *(
                run("epochs", f"{number} epochs", mode="tail", head="plain", epochs=number)
                for number in dict.fromkeys((options.epochs, 3, 30, options.long_epochs))
            ),
            run("epochs", "Stopped early", mode="early", epochs=options.long_epochs),
            *(run("networks", label, name, mode="head", head="softmax") for label, name in NETWORKS.items()),
            *(
                run("together", label, "", mode="ensemble", members="networks", combine=way)
                for label, way in ways.items()
            ),
        ),
    )


PARTS: dict[str, dict[str, Any]] = {
    "All of it": {},
    "Without the last layer learned first": {"head_first": False},
    "One learning rate for all layers": {"layer_decay": 1.0},
    "Without warm-up": {"warm_up": 0.0},
    "Without weight decay": {"weight_decay": 0.0},
    "Without clipping of gradients": {"clip": None},
    "Without label smoothing": {"label_smoothing": 0.0},
    "Without RandAugment": {"rand_augment": ""},
    "Photos as they are: no crops, no RandAugment": {
        **{"random_crop": False, "rand_augment": "", "sides": (1.0,)}
    },
    "Crops of the full side from the start": {"sides": (1.0,)},
    "Without the running mean of the weights": {"average": 0.0},
    "BatchNorm learns its statistics": {"frozen_statistics": False},
    "With mixup": {"mixup": 0.2},
    "With CutMix": {"cutmix": 1.0},
    "In half precision": {"precision": "bfloat16"},
}
"""The parts of the recipe `finetune.good`, each removed (or added) alone."""


def tuned(options: Options) -> Recipe:
    """Return a study of fine-tuning beside the last layer that it starts from, and of its recipe's parts.

    Measured on the test part, which no choice used. All rows but the first run the default network in
    every epoch: `--only tuned` leaves the parts of the recipe out.
    """

    def run(table: str, label: str, **how: Any) -> Run:
        settings = {"pruned": False, "part": "test", "epochs": options.epochs, "mode": "tuned"}
        return Run(table, label, LITE0, **{**settings, **how})

    return Recipe(
        "tuned",
        "Fine-tuning beside the last layer",
        (
            run("tuned", "Last layer, on kept features", mode="head", head="softmax"),
            run("tuned", "All layers", transfer="all"),
            run("tuned", "Low-rank updates", transfer="low-rank"),
            run("tuned", "Biases and normalisations", transfer="adapters"),
            *(run("parts", label, transfer="all", changes=how) for label, how in PARTS.items()),
        ),
    )


RECIPES: dict[str, RecipeFunction] = {"paper": paper, "better": better, "tuned": tuned}


def find(name: str) -> RecipeFunction:
    """Return a recipe by its name, or from a Python file; raises InputError if there is none."""
    if name in RECIPES:
        return RECIPES[name]
    path = Path(name)
    if path.suffix == ".py" and path.is_file():
        recipe = _run(path, lambda: runpy.run_path(str(path)).get("recipe"))
        if callable(recipe):
            return lambda options: _checked(path, _run(path, lambda: recipe(options)))
        raise InputError(
            f"{path} has no function recipe(options): copy one from fieldmark/experiments/recipes.py."
        )
    raise InputError(f"There is no recipe {name!r}: choose {', '.join(RECIPES)}, or name a Python file.")


def _run(path: Path, call: Callable[[], Any]) -> Any:
    """Run the user's code; turn an exception into one sentence with the line that raised it."""
    try:
        return call()
    except Exception as error:
        lines = [at.lineno for at in traceback.extract_tb(error.__traceback__) if at.filename == str(path)]
        line = getattr(error, "lineno", None) or (lines[-1] if lines else None)
        where = f"{path}, line {line}" if line else str(path)
        raise InputError(f"{where}: {type(error).__name__}: {error}: correct the recipe.") from error


def _checked(path: Path, value: Any) -> Recipe:
    """The user's recipe, in this module's classes: a copy of this file has classes of its own."""
    try:
        runs = tuple(
            Run(**{each.name: getattr(run, each.name) for each in fields(run)}) for run in value.runs
        )
        recipe = Recipe(str(value.name), str(value.title), runs)
    except (AttributeError, TypeError) as error:
        raise InputError(
            f"{path}: recipe(options) has to return a Recipe of Runs, not {type(value).__name__}: "
            "see fieldmark/experiments/recipes.py."
        ) from error
    if not runs:
        raise InputError(f"{path}: the recipe has no runs: give it at least one.")
    return recipe


def recipe_of(recipe: str | Recipe | Sequence[Run] | RecipeFunction, options: Options) -> Recipe:
    """Return the recipe that is given by a name or Python file, by a function of the options, or by its runs.

    Raises:
        InputError: it is none of these.
    """
    if isinstance(recipe, Recipe):
        return recipe
    if isinstance(recipe, str):
        recipe = find(recipe)
    if callable(recipe):
        return recipe(options)
    runs = tuple(recipe)
    if not runs or not all(isinstance(run, Run) for run in runs):
        raise InputError(
            "A recipe is a name, a Recipe, a function of Options, or a list of Run with at least one: "
            "this is none of these."
        )
    return Recipe("own", "A study of your own", runs)
