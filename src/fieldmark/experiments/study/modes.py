"""Make the row of a run: one function for each mode."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fieldmark.data import cross_validation as cross
from fieldmark.data.loader import CachedCrops, LabelledCrops
from fieldmark.evaluation import ensemble as ensembles
from fieldmark.evaluation import metrics
from fieldmark.evaluation.results import Evaluation
from fieldmark.experiments import own
from fieldmark.experiments.findings import by_error
from fieldmark.experiments.records import StudyRow
from fieldmark.experiments.runs import Mode, Part, Run
from fieldmark.experiments.study import compacting, cross_validated, rare_classes
from fieldmark.experiments.study.context import StudyContext
from fieldmark.experiments.study.keys import fine_tuning, key
from fieldmark.experiments.study.rows import row_of
from fieldmark.features.extractor import cost_of
from fieldmark.heads.default import fit_best
from fieldmark.heads.softmax import Hyperparameters, Training, fit
from fieldmark.training import finetune
from fieldmark.utils.errors import InputError

if TYPE_CHECKING:
    from fieldmark.models import Backbone
    from fieldmark.models.network import ClassifierNetwork as Network


def cached(context: StudyContext, run: Run) -> StudyRow:
    """Train the last layer on cached features."""
    extractor, parts = context.view(run), context.data.parts
    backbone, classes = context.networks.of(run), context.data.classes(run)
    photos = context.data.measured_on(run)
    train, val = (extractor.features(backbone, each, classes) for each in (parts.train, parts.val))
    training = Training(epochs=run.epochs, seed=context.seed)
    if run.loss is None:
        found = fit(train, val, len(classes), training, Hyperparameters())
        head, curve, seconds = found.head, list(found.curve), found.seconds
    else:
        head, curve, seconds = own.fit_head(train, val, len(classes), training, run.loss)
    scores = head.logits_of(extractor.features(backbone, photos, classes).features)
    cost = cost_of(extractor, backbone, len(parts.train) + len(photos))
    return row_of(context, run, Evaluation.of(photos, scores, classes), seconds, cost, curve)


def trained(context: StudyContext, run: Run) -> StudyRow:
    """Train the network itself as in the paper: its last layer, or all layers."""
    parts, classes = context.data.parts, context.data.classes(run)
    backbone = context.networks.of(run)
    network = backbone.literal(len(classes), context.seed)
    _check_memory(network, fine_tuning(context, run), backbone, run)
    crops = context.view(run).crops(backbone, parts.files)
    train, val = crops.labelled(parts.train, classes), crops.labelled(parts.val, classes)
    return _network(context, run, network, (train, val), crops)


def tuned(context: StudyContext, run: Run) -> StudyRow:
    """Train the network itself by the good recipe, from the best last layer on cached features."""
    extractor, parts, classes = context.view(run), context.data.parts, context.data.classes(run)
    backbone, how = context.networks.of(run), fine_tuning(context, run)
    network = backbone.trainable(len(classes), context.seed)
    _check_memory(network, how, backbone, run)
    if how.head_first:
        learn, check = (extractor.features(backbone, each, classes) for each in (parts.train, parts.val))
        first = fit_best(learn, check, len(classes), seed=context.seed)[0]
        finetune.set_last_layer(network, first.head)
    crops = extractor.finetuning_crops(backbone, parts.train, parts.val, classes, random_crop=how.random_crop)
    measured = extractor.crops(backbone, context.data.measured_on(run).files)
    return _network(context, run, network, crops, measured)


def _check_memory(network: Network, how: finetune.FineTuning, backbone: Backbone, run: Run) -> None:
    """Refuse a run that does not fit into the memory, before its features are computed."""
    try:
        finetune.check_memory(network, how, backbone.architecture.input_size, options=False)
    except InputError as error:
        raise InputError(f"{run.id}: {error}") from error


def _network(
    context: StudyContext,
    run: Run,
    network: Network,
    crops: tuple[LabelledCrops, LabelledCrops],
    measured: CachedCrops,
) -> StudyRow:
    """Train a network, and measure it; its checkpoint is in the folder of the study."""
    how = fine_tuning(context, run)
    checkpoint = context.out / "checkpoints" / f"{run.id}-{key(context, run)[:16]}.safetensors"
    if not run.smaller:
        teacher = compacting.teacher_of(context, run)
        more: dict[str, Any] = {"checkpoint": checkpoint, "loss": run.loss, "teacher": teacher}
        curve, seconds = finetune.finetune(network, *crops, how, **more)
    else:
        step = compacting.step(context, run, network)
        curve, seconds = finetune.train_in_rounds(network, *crops, how, step, checkpoint, run.loss)
    photos, classes = context.data.measured_on(run), context.data.classes(run)
    scores = finetune.scores(network, measured.labelled(photos, classes, also_unknown=True), how)
    row = row_of(context, run, Evaluation.of(photos, scores, classes), seconds, 0.0, curve)
    if run.keep:
        kept = compacting.keep(context, run, network)
        row = compacting.with_cost(replace(row, network=run.id), kept)
    checkpoint.unlink(missing_ok=True)
    return replace(row, megabytes=finetune.weight_bytes(network) / 1e6)


def ensemble(context: StudyContext, run: Run) -> StudyRow:
    """Average the members' probabilities (the paper's future work, Section 7)."""
    members = context.table(run.members)
    evaluation, weights_M = _together(context, run, [context.evaluation(row.id) for row in members])
    train_seconds = sum(row.train_seconds or 0.0 for row in members)
    extract_seconds = sum(row.extract_seconds or 0.0 for row in members)
    row = row_of(context, run, evaluation, train_seconds, extract_seconds)
    used = [each for each, weight in zip(members, weights_M, strict=True) if weight]
    complete = all(member.weights_complete for member in used)
    return replace(
        row,
        backbone="+".join(member.backbone for member in members),
        weights="; ".join(dict.fromkeys(member.weights for member in used)),
        weights_complete=complete,
        weights_short="" if complete else "some members have random weights",
        giga_macs=_sum([member.giga_macs for member in used]),
        photo_ms=_sum([member.photo_ms for member in used]),
        member_weights={m.label: w for m, w in zip(members, weights_M, strict=True)},
    )


def _sum(values: Sequence[float | None]) -> float | None:
    known = [each for each in values if each is not None]
    return sum(known) if len(known) == len(values) else None


def _together(
    context: StudyContext, run: Run, members: Sequence[Evaluation]
) -> tuple[Evaluation, Sequence[float]]:
    """The members' averaged scores, and their weights.

    The weights are fitted on all photos; each fold is measured with weights fitted on the others.
    """
    log_p_MNC = [metrics.log_softmax(each.scores_NC) for each in members]
    first = members[0]
    known = first.kept_N
    own_MN = np.stack([ensembles.label_probabilities(p[known], first.labels_N[known]) for p in log_p_MNC])
    weigh = {**ensembles.WEIGHTINGS, "pair": ensembles.best_pair}[run.combine]
    photos = cross_validated.train_and_val(context) if run.part == "cross" else context.data.measured_on(run)
    folds = cross.folds(photos, cross.FOLDS, context.seed)
    scores_NC = np.empty(first.scores_NC.shape, np.float32)
    for number in np.unique(folds):
        rows = folds == number
        weights_M = weigh(own_MN[:, ~rows[known]])
        mixed = ensembles.log_mixture([p[rows] for p in log_p_MNC], weights_M.tolist())
        scores_NC[rows] = np.maximum(mixed, np.log(1e-12))
    return replace(first, scores_NC=scores_NC), weigh(own_MN).tolist()


def best(context: StudyContext, run: Run) -> StudyRow:
    """Measure the row of a table with the lowest validation error on another part."""
    first = by_error(context.table(run.best_of))[0]
    if first.val_top1_error is None:
        raise InputError(
            f"No validation photo of {context.data.dataset.name} is of a class that is learned, so no "
            f"row of {run.best_of} is the best: add photos, or leave table {run.table} out with --only."
        )
    chosen = next(each for each in context.runs if each.id == first.id)
    again = replace(chosen, table=run.table, label=chosen.label, part=run.part)
    row = MODES[again.mode](context, again)
    note = f"{chosen.label} was chosen by its validation error of {first.val_top1_error:.3f}"
    return replace(row, id=run.id, note=f"{note}; this is its error on the {run.part} part.")


MODES: dict[Mode, Callable[[StudyContext, Run], StudyRow]] = {
    "cached": cached,
    "literal": trained,
    "finetune": trained,
    "tuned": tuned,
    "int8": compacting.int8,
    "ensemble": ensemble,
    "head": cross_validated.head,
    "tail": rare_classes.tail,
    "early": cross_validated.early,
}


PARTS: dict[Mode, tuple[Part, ...]] = {
    **dict.fromkeys(("cached", "literal", "finetune", "tuned", "int8"), ("val", "test")),
    **dict.fromkeys(("head", "tail"), ("cross", "test")),  # they make choices on validation photos
    "early": ("cross",),
    "ensemble": ("val", "test", "cross"),
}
"""The parts that each mode can be measured on; an ensemble on those of its members."""


def do(context: StudyContext, run: Run) -> StudyRow:
    """Make the row of a run."""
    return best(context, run) if run.best_of else MODES[run.mode](context, run)
