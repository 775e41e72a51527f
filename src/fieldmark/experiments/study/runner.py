"""A study from its first photo to its page: rows as soon as their features are there."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path

from fieldmark.data.subset import read
from fieldmark.experiments.recipes import Recipe, Run
from fieldmark.experiments.study import modes
from fieldmark.experiments.study.config import StudyConfig
from fieldmark.experiments.study.context import Row, Work
from fieldmark.experiments.study.data import Data
from fieldmark.experiments.study.keys import key
from fieldmark.experiments.study.networks import load
from fieldmark.experiments.study.writing import KIND, Writer
from fieldmark.features.extraction import Extraction
from fieldmark.features.extractor import PAPER_CROP, FeatureExtractor
from fieldmark.training.finetune import FineTuning
from fieldmark.utils import io
from fieldmark.utils.errors import InputError
from fieldmark.utils.publishing import claimed

logger = logging.getLogger(__name__)

ON_FEATURES = ("cached", "head", "tail", "early")
"""The modes that need nothing but kept features."""


def study(data: Path, out: Path, recipe: Recipe, config: StudyConfig, *, command: str) -> Row:
    """Run a recipe on some photos; gives the content of `study.json`.

    Raises:
        InputError: anything about the photos, the folder or the recipe that stands in the way.
        StoreError: another process writes to the folder.
    """
    with claimed(out, KIND):
        return _study(data, out, recipe, config, command)


def _study(data: Path, out: Path, recipe: Recipe, config: StudyConfig, command: str) -> Row:
    start = time.perf_counter()
    runs = _wanted(recipe, config.only)
    networks = load(runs, config)
    table = read(data, limit=config.limit, seed=config.options.seed, accepted=config.names)
    able = [run for run in runs if networks.can_run(run, runs)]
    if not able:
        raise InputError("The weights of every network are missing: name --weights-dir.")
    extractor = FeatureExtractor(replace(PAPER_CROP, tier=config.tier), engine=config.engine)
    photos = Data(table, config, data.resolve().name)
    work = Work(_prunable(able, photos), config, networks, photos, extractor, out)
    writer = Writer(recipe, command)

    def do(run: Run) -> None:
        _do(work, run)
        writer.write(work, seconds=None)
        _say(work.rows[run.id])

    _in_turn(work, do)
    return writer.finish(work, time.perf_counter() - start)


def _wanted(recipe: Recipe, only: Sequence[str]) -> list[Run]:
    """The runs of the tables that are asked for."""
    runs = [run for run in recipe.runs if not only or run.table in only]
    tables = list(dict.fromkeys(run.table for run in recipe.runs))
    if unknown := [name for name in only if name not in tables]:
        raise InputError(
            f"No run is in table {', '.join(unknown)}: choose from {', '.join(tables)}."
        )
    for run in runs:
        _check_changes(run)
        _check_part(run, recipe.runs)
        needed = run.members or run.best_of
        if needed and all(other.table != needed for other in runs):
            raise InputError(
                f"Table {run.table} is made from the rows of {needed}: add --only {needed}."
            )
    return runs


def _check_changes(run: Run) -> None:
    known = {each.name for each in fields(FineTuning)} - {"transfer", "epochs", "seed"}
    if unknown := [name for name in run.changes if name not in known]:
        raise InputError(
            f"Row {run.label!r} of table {run.table} changes {', '.join(unknown)}: choose from "
            f"{', '.join(sorted(known))}."
        )
    if run.changes and run.mode != "tuned":
        raise InputError(
            f"Row {run.label!r} of table {run.table} changes the recipe of fine-tuning: its mode is to "
            f"be 'tuned', not {run.mode!r}."
        )


def _prunable(runs: Sequence[Run], data: Data) -> list[Run]:
    """The runs whose pruning leaves classes to tell apart; those that are left out are said."""
    found = []
    for run in runs:
        left = len(data.classes(run))
        if left >= 2:
            found.append(run)
        else:
            logger.info(
                f"{run.table}: “{run.label}” is left out: pruning would leave {left} of "
                f"{len(data.parts.classes)} classes."
            )
    if not found:
        raise InputError("Pruning would leave less than two classes: lower --prune-below.")
    return found


def _check_part(run: Run, runs: Sequence[Run]) -> None:
    """Whether a run can be measured on the photos that it names, and has no choice to make by them."""
    parts: tuple[str, ...] = modes.PARTS[run.mode]
    if run.mode == "ensemble":
        parts = tuple(dict.fromkeys(each.part for each in runs if each.table == run.members))
    if run.part not in parts:
        allowed = " or ".join(map(repr, parts))
        raise InputError(
            f"Row {run.label!r} of table {run.table} has the mode {run.mode!r} and the part "
            f"{run.part!r}: its part is to be {allowed}."
        )


def _in_turn(work: Work, do: Callable[[Run], None]) -> None:
    """Do the runs in the order in which they can be done: as soon as their features are there."""
    cached = [run for run in work.runs if run.mode in ON_FEATURES and run.backbone]
    started = [run for run in work.runs if run.mode == "tuned" and run.transfer != "scratch"]
    wanted = {run.backbone: work.networks.pretrained[run.backbone] for run in cached + started}

    def complete(name: str, so_far: Extraction) -> None:
        if so_far.rejected:
            work.data = work.data.without(so_far.rejected)
        for run in (each for each in cached if each.backbone == name):
            do(run)

    work.extractor.compute(work.data.parts.files, wanted, on_complete=complete)
    for run in (each for each in work.runs if each not in cached):
        do(run)


def _do(work: Work, run: Run) -> None:
    """Do one run, or take it as it was kept."""
    path = work.out / "rows" / f"{run.id}.json"
    row = io.read_json(path) if path.exists() else {}
    if row.get("key") != (now := key(work, run)):
        row = {**modes.do(work, run), "key": now}
        io.write_json(path, row)
    work.rows[run.id] = row


def _say(row: Row) -> None:
    """One line for the person at the terminal."""
    name = f"{row['table']:>8}  {row['label']:<20}"
    marked = "" if row["weights_complete"] else f"  [{row['weights_short']}]"
    if row["val_top1_error"] is None:
        logger.info(f"{name} not measured: no photo is of a class that is learned{marked}")
        return
    error, (low, high) = row["val_top1_error"], row["val_top1_error_interval"]
    logger.info(
        f"{name} error {error:.3f} ({low:.3f} to {high:.3f}), all "
        f"classes {row['val_top1_error_all_classes']:.3f}{marked}"
    )
