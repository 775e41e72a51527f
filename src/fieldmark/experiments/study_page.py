"""The page of a study: every table and picture of the paper, ours beside its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from fieldmark.data.taxonomy import Taxonomy
from fieldmark.experiments import paper, study_tables
from fieldmark.experiments.findings import (
    TRANSFER,
    EvaluationOf,
    Ranking,
    Row,
    by_error,
    compare,
    findings,
    headline,
    pruning_pair,
    rank,
    rows_of,
    twin,
    weights_badge,
)
from fieldmark.reports import page, plots
from fieldmark.reports.thumbnails import Pair, PhotoOf, hardest_pairs

Study = Mapping[str, Any]

_MEASURES = (
    "val_top1_error",
    "val_top1_error_interval",
    "val_top1_error_all_classes",
    "val_top1_error_all_classes_interval",
    "val_top5_error",
    "val_macro_error",
    "val_log_loss",
    "train_seconds",
    "extract_seconds",
    "note",
)


def study_page(
    study: Study, *, photos: PhotoOf, evaluations: EvaluationOf, taxonomy: Taxonomy
) -> str:
    """The page of a study as one HTML text that needs no other file.

    Args:
        study: the content of `study.json`: `recipe`, `title`, `command`, `commit_or_version`,
            `created`, `seconds`, `machine`, `versions`; `data` (`name`, `source`, `digest`,
            `photos`, `classes`, `rejected`, `stats`, `split`, `prune_below`, `kept_classes`);
            `rows`; `skipped` (`backbone`, `why`). A row of the table "test" holds under its `val_`
            keys what was measured on the test part. A table without rows is left out of the page.
        photos: where the photo with an id lies, or None.
        evaluations: the kept scores of the row with an id, or None; differences are then judged by
            overlapping intervals, and confusions are left out.
        taxonomy: the names of the classes.
    """
    evaluations = lru_cache(maxsize=4)(evaluations)  # they are large, and asked for in pairs
    rows = [_view(row) for row in study["rows"]]
    ranking = rank(rows_of(rows, "table3"), evaluations)
    shown = _confusions(rows, ranking, evaluations, photos, taxonomy)
    # Those in folds are a table of `better`, which draws its own.
    longer = [row for row in rows_of(rows, "epochs") if row.get("part") != "cross"]
    context = {
        "title": study["title"],
        "study": study,
        "data": study["data"],
        "headline": headline(ranking),
        "findings": findings({**study, "rows": rows}, evaluations),
        "table1": _table1(study["data"]["stats"]),
        "histogram": _histogram(study["data"]),
        "table2": _table2(rows_of(rows, "table2"), evaluations),
        "figure4": _curves(rows_of(rows, "figure4")),
        "table3": _table3(rows_of(rows, "table3"), ranking),
        "table3_plot": _dots("table3", "Error of each network", rows_of(rows, "table3")),
        "test": _test(rows),
        "ensemble": by_error(rows_of(rows, "ensemble")),
        "best_single": next(iter(by_error(rows_of(rows, "table3"))), None),
        "epochs": _epochs(longer),
        "epochs_rows": longer,
        "literal": _literal(rows, evaluations),
        "better": study_tables.sections(study, rows),
        "confusions": shown,
        "weights": _weights(rows),
        "unverified": _unverified(study, rows),
    }
    return page.render("study.html", contents=_contents(context), **context)


def _contents(context: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The sections that this page has, as (id, name)."""
    sections = [
        ("short", "In short", True),
        ("data", "The photos", True),
        ("table2", "Leaving out rare classes", context["table2"]),
        ("figure4", "How training begins", context["figure4"]),
        ("table3", "The networks", context["table3"]),
        ("test", "Test photos", context["test"]),
        ("future", "Together, and for longer", context["ensemble"] or context["epochs"]),
        ("literal", "Two ways to train", context["literal"]),
        *((each["id"], each["title"], True) for each in context["better"]),
        ("confusions", "Hardest mistakes", context["confusions"]),
        ("run", "What was run", True),
        ("unverified", "What could not be verified", context["unverified"]),
    ]
    return [(id_, name) for id_, name, there in sections if there]


def _view(row: Row) -> dict[str, Any]:
    """A row with every key that the page looks at."""
    view = dict.fromkeys(_MEASURES) | dict(row)
    badge = weights_badge(row)
    return view | {"badge": badge, "paper": paper.table_3(row["backbone"]), "best": False}


def _table1(stats: Mapping[str, Any]) -> list[dict[str, Any]]:
    lines = [
        ("Photos", "photos", None),
        ("Most photos in a class", "max", paper.TABLE_1["max"]),
        ("Fewest photos in a class", "min", paper.TABLE_1["min"]),
        ("Median", "median", paper.TABLE_1["median"]),
        ("Mean", "mean", None),
        ("Standard deviation", "sd", paper.TABLE_1["sd"]),
        ("Classes under 100 photos", "classes_below_100", 208),
        ("Photos in those classes", "photos_in_classes_below_100", 14_621),
    ]
    parts = stats["parts"]
    return [
        {
            "name": name,
            "places": 1 if key in ("mean", "sd", "median") else 0,
            "values": [parts.get(part, {}).get(key) for part in ("train", "val", "all")],
            "paper": theirs,
        }
        for name, key, theirs in lines
    ]


def _histogram(data: Mapping[str, Any]) -> str | None:
    found = data["stats"].get("histogram")
    if not found or not found["counts"]:
        return None
    title = "Histogram: how many classes have how many photos"
    return plots.histogram(
        "figure1", title, found["bins"], found["counts"], data.get("prune_below")
    )


def _table2(rows: Sequence[Row], evaluations: EvaluationOf) -> dict[str, Any] | None:
    """The two runs and their differences on the photos of kept classes and on all photos."""
    pair = pruning_pair(rows)
    if not pair:
        return None
    complete, pruned = pair
    kept = compare(pruned, complete, evaluations, "kept")
    both = all(evaluations(row["id"]) is not None for row in pair)
    return {
        "complete": complete,
        "pruned": pruned,
        # The complete run's error on the photos that the pruned run was measured on.
        "complete_on_kept": pruned["val_top1_error"] - kept.value if kept and both else None,
        "kept": kept,
        "all": compare(pruned, complete, evaluations, "all"),
        "paper": paper.TABLE_2,
    }


def _curves(rows: Sequence[Row]) -> dict[str, Any] | None:
    """The validation losses of Figure 4 as a plot and as a table, epoch by epoch."""
    rows = [row for row in rows if row.get("curve")]
    if not rows:
        return None
    names = [_named(_way(row), row) for row in rows]
    drawn = [plots.curve(name, row, "val_loss") for name, row in zip(names, rows, strict=True)]
    title = "Validation loss over epochs for each way to begin training"
    epochs = sorted({one["epoch"] for row in rows for one in row["curve"]})
    losses = [{one["epoch"]: one.get("val_loss") for one in row["curve"]} for row in rows]
    return {
        "rows": rows,
        "names": [_way(row) for row in rows],
        "plot": plots.lines("figure4", title, drawn, "epoch", "validation loss"),
        "epochs": [(epoch, [loss.get(epoch) for loss in losses]) for epoch in epochs],
    }


def _table3(rows: Sequence[Row], ranking: Ranking) -> list[dict[str, Any]]:
    first = ranking.best["id"] if ranking.best else None
    ties = {row["id"] for row in ranking.ties}
    return [
        {**row, "best": row["id"] == first, "tie": bool(row["id"] in ties)}
        for row in by_error(rows)
    ]


def _dots(name: str, title: str, rows: Sequence[Row]) -> str | None:
    drawn = [
        plots.Dot(
            label=_named(row["label"], row),
            value=row["val_top1_error"],
            interval=tuple(row["val_top1_error_interval"] or ()) or None,
            paper=row["paper"],
            hollow=bool(row["badge"]),
        )
        for row in by_error(rows)
        if row["val_top1_error"] is not None
    ]
    if not drawn:
        return None
    return plots.dots(name, title, drawn, "share of photos named wrongly", "paper (1,010 classes)")


def _test(rows: Sequence[Row]) -> list[dict[str, Any]]:
    validation = {row["backbone"]: row for row in rows_of(rows, "table3")}
    return [
        {**row, "validation": validation.get(row["backbone"])}
        for row in by_error(rows_of(rows, "test"))
    ]


def _epochs(rows: Sequence[Row]) -> str | None:
    drawn = [
        plots.curve(_named(row["label"], row), row, "val_error") for row in rows if row.get("curve")
    ]
    if not drawn:
        return None
    title = "Validation error over epochs"
    return plots.lines("epochs", title, drawn, "epoch", "share of photos named wrongly")


def _literal(rows: Sequence[Row], evaluations: EvaluationOf) -> list[dict[str, Any]]:
    found = []
    for row in rows_of(rows, "literal"):
        cached = twin(row, rows)
        found.append(
            {
                "row": row,
                "cached": cached,
                "difference": compare(row, cached, evaluations) if cached else None,
            }
        )
    return found


def _confusions(
    rows: Sequence[Row],
    ranking: Ranking,
    evaluations: EvaluationOf,
    photos: PhotoOf,
    taxonomy: Taxonomy,
) -> dict[str, Any] | None:
    """The mistakes of the best network whose scores were kept."""
    first = [ranking.best] if ranking.best else []
    for row in [*first, *by_error(rows_of(rows, "table3")), *by_error(rows)]:
        evaluation = evaluations(row["id"])
        if evaluation is not None:
            pairs: list[Pair] = hardest_pairs(evaluation, photos, taxonomy)
            return {"row": row, "pairs": pairs} if pairs else None
    return None


def _weights(rows: Sequence[Row]) -> list[tuple[str, str, str]]:
    """Each network and the weights it ran from, once: (backbone, weights, badge)."""
    found = {(row["backbone"], row["weights"], row["badge"]): None for row in rows}
    return list(found)


def _unverified(study: Study, rows: Sequence[Row]) -> list[str]:
    data = study["data"]
    said = []
    if data["photos"] != paper.PHOTOS or data["classes"] != paper.CLASSES:
        said.append(
            f"The paper's numbers are for {page.count(paper.PHOTOS)} photos of "
            f"{page.count(paper.CLASSES)} species; this run had {page.count(data['photos'])} photos "
            f"of {page.count(data['classes'])} classes. Fewer classes are easier to tell apart, so "
            "an error that is lower here is no improvement on the paper: compare the order of the "
            "rows, not their height."
        )
    for badge in ("random weights", "partial weights"):
        names = sorted({row["backbone"] for row in rows if row["badge"] == badge})
        if names:
            kind = "any" if badge == "random weights" else "complete"
            said.append(
                f"What {', '.join(names)} would do with complete pretrained weights: {kind} "
                f"weights could not be had here. Rows marked “{badge}” show that the way works, not "
                "how good the network is."
            )
    for one in study.get("skipped") or []:
        said.append(f"{one['backbone']} was not run: {one['why']}")
    if rows_of(rows, "table2"):
        said.append(
            "The paper does not say whether its error after pruning is on the kept classes or on "
            "all; both are given."
        )
    if rows_of(rows, "table3"):
        said.append(
            "The paper names families of networks and not which member of each, nor its learning "
            "rate; those of this run are its own."
        )
    return said


def _way(row: Row) -> str:
    way = str(row["transfer"])
    return TRANSFER.get(way, way)


def _named(name: str, row: Row) -> str:
    badge = row["badge"]
    return f"{name} ({badge})" if badge and badge not in name else name
