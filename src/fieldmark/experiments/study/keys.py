"""The keys of rows: a digest of everything that a row depends on. A row with the same key is reused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fieldmark.experiments.runs import Run
from fieldmark.experiments.study import compacting, cross_validated
from fieldmark.experiments.study.context import StudyContext
from fieldmark.heads import class_imbalance
from fieldmark.heads.softmax import Hyperparameters, Training
from fieldmark.training.finetune import FineTuning, batch_norm, distillation, good
from fieldmark.training.finetune.rounds import ROUNDS, VERSION
from fieldmark.utils import io


def key(context: StudyContext, run: Run) -> str:
    """Return the digest of a run's settings, its data, its classes, and its network or its members."""
    data = context.data
    about: dict[str, Any] = {"run": run.about(), "split": data.dataset.split.digest, "format": 1}
    about |= {"data": data.dataset.table.digest(), "classes": data.classes(run)}
    about["seed"] = context.seed
    if run.backbone:
        backbone = context.networks.of(run)
        about["backbone"] = [backbone.key, context.view(run).crop_for(backbone).key()]
    else:
        about["rows"] = {row.id: row.key for row in context.table(run.members or run.best_of)}
    if run.mode in ("finetune", "literal", "tuned"):
        about["how"] = fine_tuning(context, run).key
    if run.smaller:
        about["rounds"] = [ROUNDS, batch_norm.PHOTOS, VERSION]
    for label in filter(None, (run.teacher, run.source)):
        about["source"] = context.rows[compacting.named(context, run, label).id].key
    if run.teacher:
        about["distillation"] = [distillation.TEMPERATURE, distillation.WEIGHT]
    if run.mode == "head":
        views = (context.view(run, name) for name in run.learn + run.ask)
        about["views"] = [each.crop_for(context.networks.of(run)).key() for each in views]
    if run.mode == "tail":
        # How strengths are chosen, and that the prior is in the units of the logits, see
        # `fieldmark.experiments.study.rare_classes`.
        how = ["nested", "scaled"]
        bands = context.config.bands
        about["how"] = [class_imbalance.RATES, class_imbalance.STRENGTHS, bands, *how]
    if run.mode in ("tail", "early"):
        about["batch"] = cross_validated.schedule_of(context, run).batch_size
    if run.mode == "early":
        about["how"] = [class_imbalance.RATES, cross_validated.PATIENCE]
    return io.digest(about)


def fine_tuning(context: StudyContext, run: Run) -> FineTuning:
    """Return how a run trains the network itself."""
    precision = context.config.precision
    if run.mode == "tuned":
        how = good(run.transfer, epochs=run.epochs, seed=context.seed)
        return replace(how, **{"precision": precision, **run.changes})
    # A last layer from random weights: the same learning rate as on cached features makes the two
    # comparable; all layers together need a smaller one.
    rate = Hyperparameters().learning_rate if run.transfer == "last" else 1e-4
    return FineTuning(
        transfer=run.transfer,
        epochs=run.epochs,
        batch_size=Training().batch_size,
        learning_rate=rate,
        seed=context.seed,
        precision="float32" if run.transfer == "last" else precision,
    )
