"""How a row comes about, by the mode of its run: one function each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from fieldmark.data import cross_validation as cross
from fieldmark.data.loader import CachedCrops, LabelledCrops
from fieldmark.evaluation import ensemble as ensembles
from fieldmark.evaluation import metrics
from fieldmark.evaluation.results import Evaluation
from fieldmark.experiments.findings import by_error
from fieldmark.experiments.recipes import Mode, Part, Run
from fieldmark.experiments.study import cross_validated, early_stopped
from fieldmark.experiments.study.context import Row, Work
from fieldmark.experiments.study.keys import fine_tuning, key
from fieldmark.experiments.study.rows import row_of
from fieldmark.features.extractor import cost_of
from fieldmark.heads.default import fit_best
from fieldmark.heads.softmax import Hyperparameters, Training, fit
from fieldmark.training import finetune
from fieldmark.utils.errors import InputError

if TYPE_CHECKING:
    from fieldmark.models.network import ClassifierNetwork as Network


def cached(work: Work, run: Run) -> Row:
    """Train the last layer on kept features."""
    extractor, parts = work.extractor, work.data.parts
    backbone, classes = work.networks.of(run), work.data.classes(run)
    train = extractor.features(backbone, parts.train, classes)
    val = extractor.features(backbone, parts.val, classes)
    training = Training(epochs=run.epochs, seed=work.seed)
    found = fit(train, val, len(classes), training, Hyperparameters())
    photos = work.data.measured_on(run)
    scores = found.head.logits_of(extractor.features(backbone, photos, classes).features)
    return row_of(
        work,
        run,
        Evaluation.of(photos, scores, classes),
        curve=found.curve,
        train_seconds=found.seconds,
        extract_seconds=cost_of(extractor, backbone, len(parts.train) + len(photos)),
    )


def trained(work: Work, run: Run) -> Row:
    """Train the network itself the plain way: literally the last layer, or all layers."""
    parts, classes = work.data.parts, work.data.classes(run)
    backbone = work.networks.of(run)
    network = backbone.literal(len(classes), work.seed)
    crops = work.extractor.crops(backbone, parts.files)
    train, val = crops.labelled(parts.train, classes), crops.labelled(parts.val, classes)
    return _network(work, run, network, train, val, crops)


def tuned(work: Work, run: Run) -> Row:
    """Train the network itself by the good recipe, from the best last layer on kept features."""
    extractor, parts, classes = work.extractor, work.data.parts, work.data.classes(run)
    backbone = work.networks.of(run)
    network = backbone.trainable(len(classes), work.seed)
    how = fine_tuning(work, run)
    if how.head_first:
        learn = extractor.features(backbone, parts.train, classes)
        check = extractor.features(backbone, parts.val, classes)
        first = fit_best(learn, check, len(classes), seed=work.seed)[0]
        finetune.set_last_layer(network, first.head)
    train, val = extractor.finetuning_crops(
        backbone, parts.train, parts.val, classes, random_crop=how.random_crop
    )
    measured = extractor.crops(backbone, work.data.measured_on(run).files)
    return _network(work, run, network, train, val, measured)


def _network(
    work: Work,
    run: Run,
    network: Network,
    train: LabelledCrops,
    val: LabelledCrops,
    measured: CachedCrops,
) -> Row:
    """Train a network, and measure it; what is done of it is kept beside the rows."""
    how = fine_tuning(work, run)
    checkpoint = work.out / "checkpoints" / f"{run.id}-{key(work, run)[:16]}.safetensors"
    curve, seconds = finetune.finetune(network, train, val, how, checkpoint=checkpoint)
    photos, classes = work.data.measured_on(run), work.data.classes(run)
    scores = finetune.scores(network, measured.labelled(photos, classes, also_unknown=True), how)
    row = row_of(
        work,
        run,
        Evaluation.of(photos, scores, classes),
        curve=curve,
        train_seconds=seconds,
        extract_seconds=0.0,
    )
    checkpoint.unlink(missing_ok=True)
    return row


def ensemble(work: Work, run: Run) -> Row:
    """The weighted mean of the members' probabilities (the paper's future work, Section 7)."""
    members = work.table(run.members)
    loaded = [work.evaluation(row["id"]) for row in members]
    evaluation, weights_M = _together(work, run, loaded)
    row = row_of(
        work,
        run,
        evaluation,
        curve=(),
        train_seconds=sum(row["train_seconds"] for row in members),
        extract_seconds=sum(row["extract_seconds"] or 0.0 for row in members),
    )
    used = [each for each, weight in zip(members, weights_M, strict=True) if weight]
    complete = all(member["weights_complete"] for member in used)
    return {
        **row,
        "backbone": "+".join(member["backbone"] for member in members),
        "weights": "; ".join(dict.fromkeys(member["weights"] for member in used)),
        "weights_complete": complete,
        "weights_short": "" if complete else "some members have random weights",
        "giga_macs": _sum([member["giga_macs"] for member in used]),
        "photo_ms": _sum([member["photo_ms"] for member in used]),
        "member_weights": {m["label"]: w for m, w in zip(members, weights_M, strict=True)},
    }


def _sum(values: Sequence[float | None]) -> float | None:
    known = [each for each in values if each is not None]
    return sum(known) if len(known) == len(values) else None


def _together(
    work: Work, run: Run, members: Sequence[Evaluation]
) -> tuple[Evaluation, Sequence[float]]:
    """The members' answers as one, and their weights.

    Fitted weights are those of all photos; each fold is measured with weights of the others.
    """
    log_p_MNC = [metrics.log_softmax(each.scores_NC) for each in members]
    first = members[0]
    known = first.kept_N
    own_MN = np.stack(
        [ensembles.label_probabilities(p[known], first.labels_N[known]) for p in log_p_MNC]
    )
    weigh = ensembles.WEIGHTINGS[run.combine]
    photos = cross_validated.both(work) if run.part == "cross" else work.data.measured_on(run)
    folds = cross.folds(photos, cross.FOLDS, work.seed)
    scores_NC = np.empty(first.scores_NC.shape, np.float32)
    for number in np.unique(folds):
        rows = folds == number
        weights_M = weigh(own_MN[:, ~rows[known]])
        mixed = ensembles.log_mixture([p[rows] for p in log_p_MNC], weights_M.tolist())
        scores_NC[rows] = np.maximum(mixed, np.log(1e-12))
    return replace(first, scores_NC=scores_NC), weigh(own_MN).tolist()


def best(work: Work, run: Run) -> Row:
    """The best row of a table by validation error, measured on another part."""
    first = by_error(work.table(run.best_of))[0]
    if first["val_top1_error"] is None:
        raise InputError(
            f"No validation photo of {work.data.name} is of a class that is learned, so no row of "
            f"{run.best_of} is the best: add photos, or leave table {run.table} out with --only."
        )
    chosen = next(each for each in work.runs if each.id == first["id"])
    again = replace(chosen, table=run.table, label=chosen.label, part=run.part)
    row = MODES[again.mode](work, again)
    note = f"{chosen.label} was chosen by its validation error of {first['val_top1_error']:.3f}"
    return {**row, "id": run.id, "note": f"{note}; this is its error on the {run.part} part."}


MODES: dict[Mode, Callable[[Work, Run], Row]] = {
    "cached": cached,
    "literal": trained,
    "finetune": trained,
    "tuned": tuned,
    "ensemble": ensemble,
    "head": cross_validated.head,
    "tail": cross_validated.tail,
    "early": early_stopped.early,
}


PARTS: dict[Mode, tuple[Part, ...]] = {
    **dict.fromkeys(("cached", "literal", "finetune", "tuned"), ("val", "test")),
    **dict.fromkeys(("head", "tail"), ("cross", "test")),  # they choose by validation photos
    "early": ("cross",),
    "ensemble": ("val", "test", "cross"),
}
"""What each mode can be measured on; an ensemble on what its members are."""


def do(work: Work, run: Run) -> Row:
    """The row of a run."""
    return best(work, run) if run.best_of else MODES[run.mode](work, run)
