"""Run a study: rows as soon as their features are there."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

from msgspec import UNSET

from fieldmark import models
from fieldmark.data import cross_validation
from fieldmark.data.dataset import Dataset
from fieldmark.experiments.recipes import recipe_of
from fieldmark.experiments.records import StudyRecord, StudyRow
from fieldmark.experiments.runs import ON_FEATURES, Recipe, RecipeFunction, Run
from fieldmark.experiments.study import compacting, modes
from fieldmark.experiments.study.config import StudyConfig
from fieldmark.experiments.study.context import StudyContext
from fieldmark.experiments.study.keys import key
from fieldmark.experiments.study.networks import Networks, in_tiers, load
from fieldmark.experiments.study.photos import StudyPhotos
from fieldmark.experiments.study.result import StudyResult
from fieldmark.experiments.study.writing import KIND, finish, write
from fieldmark.features.extraction import Extraction
from fieldmark.features.extractor import FeatureExtractor, View
from fieldmark.models import Backbone
from fieldmark.training.config import TrainConfig
from fieldmark.training.finetune import FineTuning
from fieldmark.training.run import dataset_for
from fieldmark.training.stages import Prepared
from fieldmark.utils import io
from fieldmark.utils.errors import InputError
from fieldmark.utils.publishing import claimed

logger = logging.getLogger(__name__)


def study(
    photos: str | Path | Dataset,
    recipe: str | Recipe | Sequence[Run] | RecipeFunction = "paper",
    config: StudyConfig | None = None,
    *,
    out: str | Path | None = None,
    command: str = "",
) -> StudyResult:
    """Compare networks and ways of training on some photos.

    Args:
        photos: labelled photos: a path, or a `Dataset`, which is divided already: `config` must then
            leave `val`, `test`, `split`, `limit` and `names` as they are.
        recipe: the runs: a name (`paper`, `better`, `tuned`), a Python file, a `Recipe`, a function that
            returns one, or a list of `Run`.
        config: every choice.
        out: the folder to write the study to, where the same call resumes it; None: a temporary folder
            that is removed with the result.
        command: what was typed, for the page.

    Raises:
        InputError: anything about the photos, the folder or the recipe, in one sentence.
        StoreError: another process writes to the folder.

    Example:
        >>> runs = [Run("mine", name, name) for name in ("squeezenet1_1", "alexnet")]
        >>> result = study(photos, runs)  # doctest: +SKIP
        >>> result.to_frame().select("label", "top1_error")  # doctest: +SKIP
    """
    config = config or StudyConfig()
    made = recipe_of(recipe, config.options)
    folder = Path(tempfile.mkdtemp(prefix="fieldmark-study-") if out is None else out)
    result = StudyResult.within(folder, temporary=out is None)
    with claimed(folder, KIND):
        return replace(result, record=_study(photos, made, config, folder, command))


def _study(
    photos: str | Path | Dataset, made: Recipe, config: StudyConfig, folder: Path, command: str
) -> StudyRecord:
    start, runs = time.perf_counter(), _wanted(made, config.only)
    named = partial(models.named, weights_dir=config.weights_dir)
    runs = [run if run.own else replace(run, backbone=named(run.backbone)) for run in runs]
    networks = load(runs, config)
    dataset = dataset_for(photos, config, config.options.seed)
    able = compacting.possible([run for run in runs if networks.can_run(run, runs)], networks)
    if not able:
        raise InputError("The weights of every network are missing: name --weights-dir.")
    extractor = FeatureExtractor(View(tier=config.tier), engine=config.engine)
    frozen = {run.backbone: None for run in able if run.mode in ON_FEATURES and run.backbone}
    networks = in_tiers(networks, frozen, Prepared(dataset, extractor), config)
    groups = config.groups or ("none" if made.name == "paper" else "auto")
    if groups == "auto" and dataset is not photos:
        dataset = _grouped(Prepared(dataset, extractor), able, networks, config)
    data = StudyPhotos(dataset, config.prune_below)
    if dataset.table.box_threshold is None and any(run.whole for run in able):
        raise InputError("Whole photos are compared with boxes: name the file of these with --boxes.")
    runs = _placed(_prunable(able, data), data)
    context = StudyContext(runs, config, networks, data, extractor, folder, made, command)
    _in_turn(context)
    return finish(context, time.perf_counter() - start)


def _grouped(data: Prepared, runs: Sequence[Run], networks: Networks, config: StudyConfig) -> Dataset:
    """Put bursts and near-duplicates into groups, by the first network with weights, and divide anew."""
    pretrained = (networks.pretrained.get(run.backbone) for run in runs if run.mode in ON_FEATURES)
    backbone = next((each for each in pretrained if each and each.weights_info.pretrained), None)
    if backbone:
        data = data.compute({backbone.architecture.name: backbone})
    found = data.grouped(backbone)
    if found is data:
        return data.dataset
    return found.divided_anew(config, config.options.seed).dataset


def _wanted(recipe: Recipe, only: Sequence[str]) -> list[Run]:
    """The runs of the tables that are asked for, checked."""
    runs = [run for run in recipe.runs if not only or run.table in only]
    tables = list(dict.fromkeys(run.table for run in recipe.runs))
    if unknown := [name for name in only if name not in tables]:
        raise InputError(f"No run is in table {', '.join(unknown)}: choose from {', '.join(tables)}.")
    for run in runs:
        _check(run, recipe.runs)
        needed = run.members or run.best_of
        if needed and all(other.table != needed for other in runs):
            raise InputError(f"Table {run.table} is made from the rows of {needed}: add --only {needed}.")
    return runs


def _check(run: Run, runs: Sequence[Run]) -> None:
    """Refuse settings that do not go together, and choices on the photos that a run is measured on."""
    run.about()  # own code without a version is refused
    row, changes = f"Row {run.label!r} of table {run.table}", run.changes
    known = {each.name for each in fields(FineTuning)} - {"transfer", "epochs", "seed"}
    if unknown := [name for name in changes if name not in known]:
        raise InputError(f"{row} changes {', '.join(unknown)}: choose from {', '.join(sorted(known))}.")
    if changes and run.mode != "tuned":
        raise InputError(
            f"{row} changes the recipe of fine-tuning: its mode must be 'tuned', not {run.mode!r}."
        )
    for name, share in (("a sparsity", run.sparsity), ("a share of channels", run.channels)):
        if share is not None and not (0 < share < 1 and (run.mode, run.transfer) == ("tuned", "all")):
            raise InputError(
                f"{row} has {name}: it is above 0 and below 1, with the mode 'tuned' and the transfer 'all'."
            )
    _check_sources(run, row, runs)
    TrainConfig(size=run.size, crop=run.crop)  # refuses values that cannot be
    if (run.size or run.crop) and not run.backbone:
        raise InputError(f"{row} is made from other rows: give `size` and `crop` to those.")
    softmax = run.mode in ("cached", "literal", "finetune", "tuned")
    softmax |= run.mode == "head" and run.head == "softmax"
    if run.loss and (changes.get("mixup") or changes.get("cutmix") or not softmax):
        raise InputError(
            f"{row} has a loss of its own: it works with the modes cached, literal, finetune, tuned "
            "(without mixup and cutmix), and head with head='softmax'."
        )
    parts: tuple[str, ...] = modes.PARTS[run.mode]
    if run.mode == "ensemble":
        parts = tuple(dict.fromkeys(each.part for each in runs if each.table == run.members))
    if run.part not in parts:
        raise InputError(
            f"{row} has the mode {run.mode!r} and the part {run.part!r}: its part must be "
            f"{' or '.join(map(repr, parts))}."
        )


def _check_sources(run: Run, row: str, runs: Sequence[Run]) -> None:
    """Refuse networks to keep, teachers and sources that cannot be."""
    if (run.keep or run.teacher) and run.mode != "tuned":
        raise InputError(f"{row} keeps its network or has a teacher: its mode must be 'tuned'.")
    given = (("a teacher", run.teacher), ("a sparsity", run.sparsity), ("a share of channels", run.channels))
    if len(ways := [name for name, value in given if value]) > 1:
        raise InputError(f"{row} has {' and '.join(ways)}: leave one of them out.")
    if (run.mode == "int8") != bool(run.source):
        raise InputError(f"{row}: the mode 'int8' needs a source, and no other mode has one.")
    before = runs[: runs.index(run)]
    for label in filter(None, (run.teacher, run.source)):
        if not any(each.keep and (each.table, each.label) == (run.table, label) for each in before):
            raise InputError(
                f"{row} needs the network of an earlier row {label!r} of its table with keep=True."
            )


def _prunable(runs: Sequence[Run], data: StudyPhotos) -> list[Run]:
    """The runs whose pruning leaves at least two classes; log those that are left out."""
    found = [run for run in runs if len(data.classes(run)) >= 2]
    for run in (run for run in runs if run not in found):
        left = f"{len(data.classes(run))} of {len(data.parts.classes)} classes"
        logger.info(f"{run.table}: “{run.label}” is left out: pruning would leave {left}.")
    if not found:
        raise InputError("Pruning would leave less than two classes: lower --prune-below.")
    return found


def _placed(runs: list[Run], data: StudyPhotos) -> list[Run]:
    """The runs without those that compare locations, where the photos have fewer than there are folds."""
    if not any(run.places for run in runs):
        return runs
    photos = cross_validation.together(data.parts.train, data.parts.val)
    _, by_place = cross_validation.placed(photos, data.dataset.table)
    if (known := len(set(by_place.groups))) >= cross_validation.FOLDS:
        return runs
    logger.info(
        f"New places are not compared with known ones: photos of classes at two locations or more are at "
        f"{known:,} known locations, and {cross_validation.FOLDS} are needed."
    )
    found = [run for run in runs if not run.places]
    if not found:
        raise InputError("No table is left: take another with --only, or photos with locations.")
    return found


def _in_turn(context: StudyContext) -> None:
    """Do the runs in the order in which their features are ready; those of whole photos compute their own."""
    cached = [run for run in context.runs if run.mode in ON_FEATURES and run.backbone and not run.whole]
    started = [run for run in context.runs if run.mode == "tuned" and run.transfer != "scratch"]
    wanted: dict[str | None, dict[str, Backbone]] = {}
    for run in cached + started:
        wanted.setdefault(run.crop, {})[_named(run)] = context.networks.of(run)

    def complete(crop: str | None, name: str, so_far: Extraction) -> None:
        if so_far.rejected:
            context.data = context.data.without(so_far.rejected)
        for run in (each for each in cached if (each.crop, _named(each)) == (crop, name)):
            _do(context, run)

    for crop, networks in wanted.items():
        extractor = context.view(next(run for run in cached + started if run.crop == crop))
        extractor.compute(context.data.parts.files, networks, on_complete=partial(complete, crop))
    for run in (each for each in context.runs if each not in cached):
        _do(context, run)


def _named(run: Run) -> str:
    """Name the network of a run with the size of its crops."""
    return f"{run.backbone} ({run.size} px)" if run.size else run.backbone


def _do(context: StudyContext, run: Run) -> None:
    """Do one run, or reuse its row where its key is the same; write what is known, and log the row."""
    path = context.out / "rows" / f"{run.id}.json"
    now = key(context, run)
    row = _kept(path, now)
    if row is None:
        made = _same(context, run) or modes.do(context, run)
        row = replace(made, key=now, id=run.id, table=run.table, label=run.label)
        values = row.to_dict()
        io.write_json(path, {**values, "digest": io.digest(values)})
    context.rows[run.id] = row
    write(context)
    _log(row)


def _same(context: StudyContext, run: Run) -> StudyRow | None:
    """Return the row of a run that differs in its table and label alone: it is not done again."""
    if run.mode in ON_FEATURES:
        for each in context.runs:
            if each.id in context.rows and replace(each, table=run.table, label=run.label) == run:
                return context.rows[each.id]
    return None


def _kept(path: Path, key: str) -> StudyRow | None:
    """Read a row; None where there is none with this key, or it is damaged."""
    with suppress(InputError):
        values = io.read_json(path)
        if isinstance(values, dict) and values.get("key") == key:
            digest = values.pop("digest", None)  # older rows have none
            return StudyRow.from_dict(values, path) if digest in (None, io.digest(values)) else None
    return None


def _log(row: StudyRow) -> None:
    """Log a row in one line."""
    name = f"{row.table:>8}  {row.label:<20}"
    marked = "" if row.compute is UNSET else f"  [{row.compute}]"
    marked += "" if row.weights_complete else f"  [{row.weights_short}]"
    error, interval = row.val_top1_error, row.val_top1_error_interval
    if error is None or interval is None:
        logger.info(f"{name} not measured: no photo is of a class that is learned{marked}")
        return
    logger.info(
        f"{name} error {error:.3f} ({interval[0]:.3f} to {interval[1]:.3f}), all "
        f"classes {row.val_top1_error_all_classes:.3f}{marked}"
    )
