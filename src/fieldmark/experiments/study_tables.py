"""The tables of the recipe `better`: rows in folds, beside a reference, with what they cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fieldmark.experiments import answers
from fieldmark.reports import plots

Row = Mapping[str, Any]

TABLES = {
    "heads": ("Kinds of head", "What is learned on the kept features."),
    "views": (
        "Several views of a photo",
        "Mirrored photos and the centre of each, as further photos to learn from, and averaged over.",
    ),
    "tail": (
        "Classes with few photos",
        "Strengths were chosen by other folds, of heads that saw neither: the lowest error over rare "
        "classes at no more than 2 % more mistakes over all photos.",
    ),
    "tail-test": (
        "The same on test photos",
        "Learned from all other photos; no choice has seen these.",
    ),
    "prune": (
        "Leaving out rare classes, at several thresholds",
        "“Learned without” leaves them out of training, “never answers” out of the answers alone: "
        "whether pruning helps the head to learn, or only spares it choices.",
    ),
    "epochs": (
        "Training for longer",
        "The plain head, its learning rate falling over the epochs; or stopped when its loss on a tenth "
        "of the photos, which it then does not learn from, falls no more.",
    ),
    "networks": ("Networks", "Each with the default head."),
    "together": (
        "Several networks together",
        "Fitted weights are fitted outside the fold that they are measured on; the reference is the "
        "best single network.",
    ),
    "tuned": (
        "Fine-tuning beside the last layer",
        "The network itself is trained on from the last layer of the first row.",
    ),
    "parts": (
        "The parts of the recipe of fine-tuning",
        "All layers trained, each time with one thing of the recipe changed.",
    ),
}


def sections(study: Row, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The tables that the study has, each with its plot.

    Args:
        study: the content of `study.json`.
        rows: its rows as the page shows them.
    """
    differences = {(each["row"], each["over"]): each for each in study.get("differences") or []}
    found = []
    for name, (title, about) in TABLES.items():
        own = [row for row in rows if row["table"] == name and _folded(row)]
        if own:
            lines = [
                {
                    "row": row,
                    "all": differences.get((row["id"], "all")),
                    "tail": differences.get((row["id"], "tail")),
                }
                for row in own
            ]
            found.append(
                {"id": f"better-{name}", "title": title, "about": about, "lines": lines}
                | {"answer": answers.of(study, name)}
                | {
                    "plot": _plot(name, title, own),
                    "curves": _curves(own) if name == "epochs" else None,
                }
            )
    return found


def _folded(row: Row) -> bool:
    return bool(row.get("bands")) and (
        row["part"] == "cross" or row["table"] in ("tail-test", "tuned", "parts")
    )


def _curves(rows: Sequence[Row]) -> str | None:
    """The validation losses epoch by epoch, in the mean over folds."""
    drawn = [plots.curve(row["label"], row, "val_loss") for row in rows if row.get("curve")]
    title = "Validation loss over epochs"
    return plots.lines("better-curves", title, drawn, "epoch", "loss") if drawn else None


def _plot(name: str, title: str, rows: Sequence[Row]) -> str:
    """The errors as dots; over rare classes where the table is about those."""
    rare = name.startswith("tail")
    drawn = []
    for row in rows:
        band = row["bands"]["tail"]
        value = band["error"] if rare else row["val_top1_error_all_classes"]
        interval = band["interval"] if rare else row["val_top1_error_all_classes_interval"]
        if value is not None:
            dot = plots.Dot(row["label"], value, tuple(interval), hollow=bool(row["badge"]))
            drawn.append(dot)
    over = "error over rare classes, classes alike" if rare else "error over all photos"
    return plots.dots(f"better-{name}", title, drawn, over)
