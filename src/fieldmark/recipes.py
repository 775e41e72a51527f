"""Recipes: which runs a study is made of. A recipe is Python: copy it, change it, name the file.

fieldmark study paper DATA --out DIR          the paper's study
fieldmark study my_recipe.py DATA --out DIR   yours: a file with a function `recipe(options)`
"""

from __future__ import annotations

import runpy
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from fieldmark.errors import InputError

Mode = Literal["cached", "literal", "finetune", "ensemble"]

FIVE = {
    "AlexNet": "alexnet",
    "DenseNet": "densenet121",
    "SqueezeNet": "squeezenet1_1",
    "ShuffleNet": "shufflenet_v2_x0_5",
    "ResNeXt": "resnext50_32x4d",
}
"""The paper's five architectures (Section 4.4.3). It does not say which size of each; these are the
smallest that torchvision has official weights for."""


@dataclass(frozen=True)
class Options:
    """What the command line says of a study: see `fieldmark study --help`."""

    epochs: int = 10
    long_epochs: int = 100
    seed: int = 0


@dataclass(frozen=True)
class Run:
    """One row of a study: one network, trained one way.

    Attributes:
        table: which table of the study it belongs to.
        label: what to call it there.
        backbone: the network.
        transfer: `scratch` (all layers, from random weights), `all` (all layers, from pretrained
            weights) or `last` (all frozen but the last).
        pruned: whether classes with few training photos are dropped from training.
        epochs: passes over the training photos.
        mode: `cached` trains the last layer on kept features; `literal` runs the network itself in
            every epoch with its last layer as torchvision defines it; `finetune` does so and trains
            all layers; `ensemble` averages the probabilities of all `cached` rows of `members`.
        members: for an ensemble, the table whose rows it averages.
        part: the photos it is measured on.
        best_of: the run repeats the row with the lowest validation error of this table.
    """

    table: str
    label: str
    backbone: str = ""
    transfer: Literal["scratch", "all", "last"] = "last"
    pruned: bool = True
    epochs: int = 10
    mode: Mode = "cached"
    members: str = ""
    part: Literal["val", "test"] = "val"
    best_of: str = ""

    @property
    def id(self) -> str:
        """A name for the row that says what it is; also the name of its file of scores."""
        pruned = "pruned" if self.pruned else "complete"
        parts = [self.table, self.backbone or self.mode, self.transfer, pruned, self.mode]
        return "-".join([*parts, f"{self.epochs}ep"])


@dataclass(frozen=True)
class Recipe:
    """A named list of runs, in the order in which their results are wanted."""

    name: str
    title: str
    runs: tuple[Run, ...]


def paper(options: Options) -> Recipe:
    """The study of "Deep CNNs for large scale species classification".

    Table 2: AlexNet on the complete and on the pruned training set. Figure 4: AlexNet from scratch,
    all layers, last layer. Table 3: the five architectures, pretrained, frozen but the last layer, on
    the pruned set. Then the check of the best on the test set, and what the paper left for future
    work: an ensemble of the five, and more epochs. `literal` repeats the frozen rows of three networks
    the paper's own way, to show what training on kept features changes.

        fieldmark study paper DATA --out DIR --weights-dir WEIGHTS
    """
    epochs = options.epochs
    table3 = [Run("table3", label, name, epochs=epochs) for label, name in FIVE.items()]
    table2 = [
        Run("table2", "Complete train set", "alexnet", pruned=False, epochs=epochs),
        Run("table2", "Pruned train set", "alexnet", pruned=True, epochs=epochs),
    ]
    after = [
        Run("test", "Best of Table 3", best_of="table3", epochs=epochs, part="test"),
        Run("ensemble", "Mean of the five", mode="ensemble", members="table3", epochs=epochs),
        *(Run("epochs", label, name, epochs=options.long_epochs) for label, name in FIVE.items()),
    ]
    literal = [
        Run("literal", label, FIVE[label], epochs=epochs, mode="literal")
        for label in ("ShuffleNet", "SqueezeNet", "AlexNet")
    ]
    figure4 = [
        Run("figure4", "Last layer", "alexnet", epochs=epochs),
        Run("figure4", "All layers", "alexnet", "all", epochs=epochs, mode="finetune"),
        Run("figure4", "From scratch", "alexnet", "scratch", epochs=epochs, mode="finetune"),
    ]
    title = "Deep CNNs for large scale species classification, on your photos"
    return Recipe("paper", title, (*table3, *table2, *after, *literal, *figure4))


RECIPES: dict[str, Callable[[Options], Recipe]] = {"paper": paper}


def find(name: str) -> Callable[[Options], Recipe]:
    """A recipe by its name, or from a Python file of the user's own.

    Raises:
        InputError: there is no such recipe.
    """
    if name in RECIPES:
        return RECIPES[name]
    path = Path(name)
    if path.suffix == ".py" and path.is_file():
        recipe = _run(path, lambda: runpy.run_path(str(path)).get("recipe"))
        if callable(recipe):
            return lambda options: _checked(path, _run(path, lambda: recipe(options)))
        raise InputError(
            f"{path} has no function recipe(options): copy one from fieldmark/recipes.py."
        )
    known = ", ".join(RECIPES)
    raise InputError(f"There is no recipe {name!r}: choose {known}, or name a Python file.")


def _run(path: Path, call: Callable[[], Any]) -> Any:
    """Run the user's own code; what it raises is said in one sentence, with the line it came from."""
    try:
        return call()
    except Exception as error:
        lines = [
            at.lineno
            for at in traceback.extract_tb(error.__traceback__)
            if at.filename == str(path)
        ]
        line = getattr(error, "lineno", None) or (lines[-1] if lines else None)
        where = f"{path}, line {line}" if line else str(path)
        raise InputError(f"{where}: {type(error).__name__}: {error}: mend the recipe.") from error


def _checked(path: Path, value: Any) -> Recipe:
    """The user's recipe; a whole copy of this file has classes of its own, which are as good."""
    try:
        runs = tuple(Run(**asdict(run)) for run in value.runs)
        recipe = Recipe(str(value.name), str(value.title), runs)
    except (AttributeError, TypeError) as error:
        raise InputError(
            f"{path}: recipe(options) has to give a Recipe of Runs, not {type(value).__name__}: "
            "see fieldmark/recipes.py."
        ) from error
    if not runs:
        raise InputError(f"{path}: the recipe has no runs: give it at least one.")
    return recipe
