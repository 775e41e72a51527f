"""Recipes: the runs of a study. A recipe is Python: copy it, change it, and name the file.

fieldmark study paper DATA --out DIR --weights-dir WEIGHTS      the study of the paper
fieldmark study better DATA --out DIR --weights-dir WEIGHTS     heads, rare classes, pruning, ensembles
fieldmark study tuned DATA --out DIR --epochs 3 --test 0.25     fine-tuning beside the last layer alone
fieldmark study foundation DATA --out DIR --backbone NAME ...   networks of today, frozen and fine-tuned
fieldmark study compact DATA --out DIR --epochs 3               fewer weights, and smaller networks
fieldmark study my_recipe.py DATA --out DIR    your own: a file with a function `recipe(options)`
"""

from __future__ import annotations

import runpy
import traceback
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fieldmark import models
from fieldmark.experiments.runs import Options, Recipe, RecipeFunction, Run
from fieldmark.utils.choices import Transfer
from fieldmark.utils.errors import InputError

if TYPE_CHECKING:
    pass

FIVE = {
    "AlexNet": "alexnet",
    "DenseNet": "densenet121",
    "SqueezeNet": "squeezenet1_1",
    "ShuffleNet": "shufflenet_v2_x0_5",
    "ResNeXt": "resnext50_32x4d",
}
"""The paper's five architectures (Section 4.4.3). It does not give their sizes; these are the smallest
for which torchvision has official weights."""


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


SPARSITIES = (0.5, 0.8, 0.9)
"""Shares of weights that are zero, in the recipe `compact`."""
CHANNELS = (0.3, 0.5)
"""Shares of channels that are removed there."""


def compact(options: Options) -> Recipe:
    """Return a study of smaller models: without small weights or channels, in int8, smaller networks.

    The first of `options.backbones` (or the default network) is where it starts; it also teaches the
    others, which are the smaller ones. All layers are trained, by the same recipe; measured on the test part,
    which no choice used.
    """
    start, *smaller = options.backbones or (LITE0, "mobilenet_v2", "squeezenet1_1", "shufflenet_v2_x0_5")
    how: dict[str, Any] = {"pruned": False, "part": "test", "epochs": options.epochs}

    def whole(label: str, name: str, **more: Any) -> Run:
        return Run("compact", label, name, "all", mode="tuned", keep=True, **how, **more)

    def int8(source: str, name: str) -> Run:
        return Run("compact", f"{source}, int8", name, "all", mode="int8", source=source, **how)

    fewer = {f"{start}, {share:.0%} fewer channels": share for share in CHANNELS}
    taught = {name: f"{name}, taught by {start}" for name in smaller}
    return Recipe(
        "compact",
        "Smaller models on your photos",
        (
            whole(start, start),
            *(whole(f"{start}, {share:.0%} zeros", start, sparsity=share) for share in SPARSITIES),
            *(whole(label, start, channels=share) for label, share in fewer.items()),
            *(whole(name, name) for name in smaller),
            *(whole(label, name, teacher=start) for name, label in taught.items()),
            *(int8(name, name) for name in (start, *smaller)),
            *(int8(label, name) for name, label in taught.items()),
            *(int8(label, start) for label in fewer),
        ),
    )


FEW = (1, 2, 5, 10)
"""Photos of a class that are learned from, in the recipe `foundation`."""


PLACES: dict[str, Literal["seen", "new"]] = {"known places": "seen", "new places": "new"}


def foundation(options: Options) -> Recipe:
    """Return a study of networks: frozen with a linear layer or nearest neighbours, with few photos, tuned.

    The networks are those of `options.backbones`, or all that fieldmark lists whose weights are here. Frozen
    ones are measured on the same photos, so that their rows are compared in pairs; the fine-tuned ones on the
    test part, beside their last layers. Fine-tuning comes last, since it takes hours on a CPU.
    """
    names = options.backbones or tuple(models.available())
    frozen: dict[str, Any] = {"pruned": False, "part": "cross", "mode": "head", "epochs": options.epochs}
    tuned: dict[str, Any] = {**frozen, "part": "test", "mode": "tuned"}
    ways: dict[str, Transfer] = {"low-rank updates": "low-rank", "all layers": "all"}
    together = {"Best pair": "pair", "Mean": "mean", "Fitted weights": "weights"} if len(names) > 1 else {}
    return Recipe(
        "foundation",
        "Which network pays on your photos",
        (
            *(Run("networks", name, name, head="logistic", **frozen) for name in names),
            *(Run("neighbours", name, name, head="knn", **frozen) for name in names),
            *(
                Run("few", f"{name}, {each} a class", name, head="logistic", each=each, **frozen)
                for each in FEW
                for name in names
            ),
            *(
                Run("places", f"{name}, {label}", name, head="logistic", places=places, **frozen)
                for name in names
                for label, places in PLACES.items()
            ),
            *(
                Run("together", label, **{**frozen, "mode": "ensemble"}, members="networks", combine=way)
                for label, way in together.items()
            ),
            *(
                Run("tuned", f"{name}, last layer", name, head="logistic", **{**tuned, "mode": "head"})
                for name in names
            ),
            *(
                Run("tuned", f"{name}, {label}", name, transfer, **tuned)
                for label, transfer in ways.items()
                for name in names
            ),
        ),
    )


def traps(options: Options) -> Recipe:
    """Return a study of boxes beside the whole photos that they are of, at new and at known places.

    The networks are those of `options.backbones`, or the default. The rows of a table have the same items:
    each box of an animal, with the label of its photo.
    """
    names = options.backbones or (LITE0,)
    how: dict[str, Any] = {"pruned": False, "part": "cross", "mode": "head", "head": "logistic"}
    tables: dict[str, Literal["seen", "new"]] = {"boxes": "new", "boxes-known": "seen"}
    return Recipe(
        "traps",
        "Boxes and whole photos, at new and at known places",
        tuple(
            Run(
                table,
                f"{name}, {'whole photos' if whole else 'boxes'}",
                name,
                places=places,
                whole=whole,
                epochs=options.epochs,
                **how,
            )
            for table, places in tables.items()
            for whole in (True, False)
            for name in names
        ),
    )


RECIPES: dict[str, RecipeFunction] = {
    **{"paper": paper, "better": better, "tuned": tuned, "foundation": foundation, "traps": traps},
    "compact": compact,
}


def find(name: str) -> RecipeFunction:
    """Return a recipe by its name, or from a Python file; raises InputError if there is none."""
    if name in RECIPES:
        return RECIPES[name]
    path = Path(name)
    if path.suffix == ".py" and path.is_file():
        models.import_torchvision()  # a recipe may import timm, whatever build of torchvision is here
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
        if options.backbones and recipe in (paper, better, tuned):
            raise InputError(
                f"The recipe {recipe.__name__} names its networks itself: leave --backbone out, or take "
                "the recipe foundation."
            )
        return recipe(options)
    runs = tuple(recipe)
    if not runs or not all(isinstance(run, Run) for run in runs):
        raise InputError(
            "A recipe is a name, a Recipe, a function of Options, or a list of Run with at least one: "
            "this is none of these."
        )
    return Recipe("own", "A study of your own", runs)
