"""When a kept row may be taken as it is: a digest of all that it depends on."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from fieldmark.experiments.recipes import Run
from fieldmark.experiments.study import cross_validated, early_stopped
from fieldmark.experiments.study.context import Work
from fieldmark.heads import class_imbalance
from fieldmark.heads.softmax import Hyperparameters, Training
from fieldmark.training.finetune import FineTuning, good
from fieldmark.utils import io


def key(work: Work, run: Run) -> str:
    """The digest of a run's settings, its data, its classes, and its network or its members."""
    data = work.data
    about: dict[str, Any] = {"run": asdict(run), "split": data.split.digest, "format": 1}
    about |= {"data": data.table.digest(), "classes": data.classes(run)}
    about["seed"] = work.seed
    if run.backbone:
        backbone = work.networks.of(run)
        about["backbone"] = [backbone.key, work.extractor.crop_for(backbone).key()]
    else:
        about["rows"] = {r["id"]: r["key"] for r in work.table(run.members or run.best_of)}
    if run.mode in ("finetune", "literal", "tuned"):
        about["how"] = asdict(fine_tuning(work, run))
    if run.mode == "head":
        seen = [
            work.view(name).crop_for(work.networks.of(run)).key() for name in run.learn + run.ask
        ]
        about["views"] = seen
    if run.mode == "tail":
        # How strengths are chosen, and that the prior is in the units of the logits, see
        # `fieldmark.experiments.study.cross_validated`.
        how = ["nested", "scaled"]
        about["how"] = [class_imbalance.RATES, class_imbalance.STRENGTHS, work.config.bands, *how]
    if run.mode in ("tail", "early"):
        about["batch"] = cross_validated.training(work, run).batch_size
    if run.mode == "early":
        about["how"] = [class_imbalance.RATES, early_stopped.PATIENCE]
    return io.digest(about)


def fine_tuning(work: Work, run: Run) -> FineTuning:
    """How a run trains the network itself."""
    if run.mode == "tuned":
        how = good(run.transfer, epochs=run.epochs, seed=work.seed)
        return replace(how, **{"precision": work.config.precision, **run.changes})
    # The last layer learns from scratch, and the same rate as on kept features makes the two
    # comparable; all layers together need a smaller one.
    rate = Hyperparameters().learning_rate if run.transfer == "last" else 1e-4
    return FineTuning(
        transfer=run.transfer,
        epochs=run.epochs,
        batch_size=Training().batch_size,
        learning_rate=rate,
        seed=work.seed,
        precision="float32" if run.transfer == "last" else work.config.precision,
    )
