"""Make a row: the run, its weights, its measures and its cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fieldmark.evaluation.results import Evaluation
from fieldmark.evaluation.taxonomic import taxonomic_error
from fieldmark.experiments.records import CurvePoint, StudyRow
from fieldmark.experiments.runs import ON_FEATURES, Run
from fieldmark.experiments.study.context import StudyContext
from fieldmark.features.extractor import cost_of
from fieldmark.heads.softmax import Epoch

_MEASURES = (
    *("top1_error", "top1_error_all_classes", "macro_error"),
    *("top1_error_interval", "top1_error_all_classes_interval", "macro_error_interval"),
    *("top5_error", "log_loss"),
)
_OF_THE_RUN = ("id", "table", "label", "backbone", "transfer", "pruned", "mode", "part")


def row_of(
    context: StudyContext,
    run: Run,
    evaluation: Evaluation,
    train_seconds: float,
    extract_seconds: float | None,
    curve: Sequence[Epoch] = (),
) -> StudyRow:
    """Save the scores of a run, and make its row from them."""
    scores = f"scores/{run.id}.safetensors"
    evaluation.save(context.out / scores)
    summary = evaluation.summary()
    levels = context.data.dataset.table.taxonomy.only(evaluation.classes).levels
    counts, bands = context.data.parts.train_counts(), context.config.bands
    return StudyRow(
        # A kind of head takes as many as it needs, one in closed form none, and an ensemble neither.
        epochs=len(curve) or None if run.mode in ("head", "ensemble") else run.epochs,
        classes=summary.classes,
        photos=summary.photos,
        train_seconds=train_seconds,
        extract_seconds=extract_seconds,
        curve=tuple(CurvePoint.from_dict(epoch.to_dict()) for epoch in curve),
        scores=scores,
        taxonomic=taxonomic_error(evaluation.scores_NC, evaluation.labels_N, levels, decide=False),
        bands={str(name): band for name, band in evaluation.banded(counts, bands).items()},
        **{name: getattr(run, name) for name in _OF_THE_RUN},
        **{
            name: value
            for name in ("size", "crop", "each", "places", "sparsity", "channels")
            if (value := getattr(run, name)) is not None
        },
        **{f"val_{name}": summary[name] for name in _MEASURES},
        **(_network(context, run) if run.backbone else {}),
    )


def _network(context: StudyContext, run: Run) -> dict[str, Any]:
    """The weights that a run began from, and the cost of one answer, in milliseconds where measured."""
    backbone = context.networks.of(run)
    account, seconds = backbone.weights_info, cost_of(context.view(run), backbone, 1)
    short = "" if account.complete else "partly random" if account.pretrained else "random weights"
    meant = run.transfer == "scratch"  # random weights are the point of this row
    tier = backbone.tier.name
    frozen = tier != "exact" and run.mode in ON_FEATURES
    return {
        **({"compute": tier} if frozen else {}),
        "weights": account.line,
        "weights_complete": account.complete or meant,
        "weights_short": "" if meant else short,
        "weights_account": account.summary,
        "giga_macs": backbone.architecture.giga_macs * len(run.ask),
        "photo_ms": None if seconds is None else 1000 * seconds * len(run.ask),
    }
