"""What a row says: the run, its weights, its measures, what it cost."""

from __future__ import annotations

from collections.abc import Sequence

from fieldmark.evaluation.results import Evaluation
from fieldmark.experiments.recipes import Run
from fieldmark.experiments.study.context import Row, Work
from fieldmark.experiments.study.networks import Networks
from fieldmark.features.extractor import cost_of
from fieldmark.heads.softmax import Epoch

_MEASURES = ("top1_error", "top1_error_all_classes", "macro_error")


def row_of(
    work: Work,
    run: Run,
    evaluation: Evaluation,
    *,
    curve: Sequence[Epoch],
    train_seconds: float,
    extract_seconds: float | None,
) -> Row:
    """Keep a run's scores, and read the row off them."""
    place = f"scores/{run.id}.safetensors"
    evaluation.save(work.out / place)
    summary = evaluation.summary(seed=work.seed)
    row: Row = {
        "id": run.id,
        "table": run.table,
        "label": run.label,
        "backbone": run.backbone,
        **weights_of(work.networks, run),
        "transfer": run.transfer,
        "pruned": run.pruned,
        # A kind of head takes as many as it does; one in closed form none, and an ensemble neither.
        "epochs": len(curve) or None if run.mode in ("head", "ensemble") else run.epochs,
        "mode": run.mode,
        "part": run.part,
        "classes": summary["classes"],
        "photos": summary["photos"],
        "train_seconds": train_seconds,
        "extract_seconds": extract_seconds,
        "curve": [epoch.to_dict() for epoch in curve],
        "scores": place,
        "note": "",
        **cost(work, run),
        "bands": evaluation.banded(
            work.data.parts.train_counts(), work.config.bands, seed=work.seed
        ),
    }
    intervals = (f"{name}_interval" for name in _MEASURES)
    for name in (*_MEASURES, *intervals, "top5_error", "log_loss"):
        row[f"val_{name}"] = summary[name]
    return row


def cost(work: Work, run: Run) -> Row:
    """What one answer costs: giga multiply-adds, and the milliseconds that were measured, or None."""
    if not run.backbone:
        return {"giga_macs": None, "photo_ms": None}
    backbone = work.networks.of(run)
    seconds = cost_of(work.extractor, backbone, 1)
    return {
        "giga_macs": backbone.architecture.giga_macs * len(run.ask),
        "photo_ms": None if seconds is None else 1000 * seconds * len(run.ask),
    }


def weights_of(networks: Networks, run: Run) -> Row:
    """What must be said of the weights that a run began from."""
    if not run.backbone:
        return {"weights": "", "weights_complete": True, "weights_short": ""}
    backbone = networks.of(run)
    account = backbone.weights_info
    short = "" if account.complete else "partly random" if account.pretrained else "random weights"
    meant = run.transfer == "scratch"  # random weights are the point of this row
    return {
        "weights": backbone.weights_info.line,
        "weights_complete": account.complete or meant,
        "weights_short": "" if meant else short,
        "weights_account": account.summary,
    }
