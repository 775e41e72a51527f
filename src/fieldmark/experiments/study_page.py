"""The page of a study: every table and figure of the paper, with the paper's own numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Any

from fieldmark.data.taxonomy import Taxonomy
from fieldmark.experiments import findings as found
from fieldmark.experiments import paper, study_tables
from fieldmark.experiments.findings import EvaluationOf, Ranking, by_error
from fieldmark.experiments.records import DataFacts, StudyRecord, StudyRow
from fieldmark.reports import page, plots
from fieldmark.reports.thumbnails import Pair, PhotoOf, hardest_pairs
from fieldmark.utils.languages import say, to_say
from fieldmark.utils.wording import word

_PARTS = {"train": to_say("train"), "val": to_say("validation"), "all": to_say("all")}


def study_page(study: StudyRecord, *, photos: PhotoOf, evaluations: EvaluationOf, taxonomy: Taxonomy) -> str:
    """Return the page of a study as one HTML text that needs no other file.

    Args:
        study: a finished study; a table without rows is left out of the page.
        photos: the place of the photo with an id, or None.
        evaluations: the saved scores of the row with an id, or None; differences are then judged by
            overlapping intervals, and confusions are left out.
        taxonomy: the names of the classes.
    """
    evaluations = lru_cache(maxsize=4)(evaluations)  # they are large, and needed in pairs
    table3, parts = study.table("table3"), _known(study.data.stats or {})
    ranking = found.rank(table3, evaluations)
    # The rows with out-of-fold predictions are a table of `better`, which draws its own.
    longer = [row for row in study.table("epochs") if row.part != "cross"]
    return page.render(
        "study.html",
        title=study.title,
        study=study,
        data=study.data,
        headline=found.headline(ranking),
        findings=found.findings(study, evaluations),
        table1=_table1(parts),
        parts=[say(_PARTS[name]) for name in parts],
        histogram=_histogram(study.data),
        table2=found.pruning(study, evaluations),
        figure4=_figure4(study.table("figure4")),
        table3=by_error(table3),
        best=ranking.best.id if ranking.best else None,
        ties=[row.id for row in ranking.ties],
        paper_error=paper.table_3,
        paper_table2=paper.TABLE_2,
        table3_plot=_table3_plot(table3),
        test=found.tested(study),
        ensemble=by_error(study.table("ensemble")),
        best_single=next(iter(by_error(table3)), None),
        epochs=_curves(
            "epochs", say("Validation error over epochs"), longer, "val_error", say("top-1 error")
        ),
        epochs_rows=longer,
        literal=list(found.literal(study, evaluations)),
        better=study_tables.sections(study),
        confusions=_confusions(study, ranking, evaluations, photos, taxonomy),
        weights=list(dict.fromkeys((row.backbone, row.weights, row.badge) for row in study.rows)),
        unverified=_unverified(study),
    )


def _known(stats: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The numbers of all photos, and of those parts that the source divides them into."""
    found = {part: stats.get("parts", {}).get(part, {}) for part in _PARTS}
    return {part: each for part, each in found.items() if part == "all" or each.get("photos")}


def _table1(
    parts: Mapping[str, Mapping[str, Any]],
) -> list[tuple[str, int, list[float | None], float | None]]:
    """The lines: name, decimals, numbers of the parts, and the paper's number."""
    lines = [
        (say("Photos"), "photos", 0, None),
        (say("Most photos in a class"), "max", 0, paper.TABLE_1["max"]),
        (say("Fewest photos in a class"), "min", 0, paper.TABLE_1["min"]),
        (say("Median"), "median", 1, paper.TABLE_1["median"]),
        (say("Mean"), "mean", 1, None),
        (say("Standard deviation"), "sd", 1, paper.TABLE_1["sd"]),
        (say("Classes under 100 photos"), "classes_below_100", 0, 208),
        (say("Photos in those classes"), "photos_in_classes_below_100", 0, 14_621),
    ]
    return [
        (name, places, [part.get(key) for part in parts.values()], theirs)
        for name, key, places, theirs in lines
    ]


def _histogram(data: DataFacts) -> str | None:
    bins = (data.stats or {}).get("histogram")
    if not bins or not bins["counts"]:
        return None
    title = say("Histogram: how many classes have how many photos")
    return plots.histogram("figure1", title, bins["bins"], bins["counts"], data.prune_below)


def _figure4(rows: Sequence[StudyRow]) -> dict[str, Any] | None:
    """The validation losses as a plot, and epoch by epoch."""
    rows = [row for row in rows if row.curve]
    title = say("Validation loss over epochs for each start of training")
    epochs = sorted({one.epoch for row in rows for one in row.curve})
    losses = [{one.epoch: one.val_loss for one in row.curve} for row in rows]
    return (
        {
            "rows": rows,
            "names": [found.transfer_words(row) for row in rows],
            "plot": _curves("figure4", title, rows, "val_loss", say("validation loss"), found.transfer_words),
            "epochs": [(epoch, [loss.get(epoch) for loss in losses]) for epoch in epochs],
        }
        if rows
        else None
    )


def _curves(
    name: str,
    title: str,
    rows: Sequence[StudyRow],
    measure: str,
    axis: str,
    label: Callable[[StudyRow], str] = attrgetter("label"),
) -> str | None:
    drawn = [study_tables.line(_named(label(row), row), row, measure) for row in rows if row.curve]
    return plots.lines(name, title, drawn, say("epoch"), axis) if drawn else None


def _table3_plot(rows: Sequence[StudyRow]) -> str | None:
    drawn = [
        plots.Dot(
            _named(row.label, row),
            row.val_top1_error,
            row.val_top1_error_interval,
            paper.table_3(row.backbone),
            bool(row.badge),
        )
        for row in by_error(rows)
        if row.val_top1_error is not None
    ]
    if not drawn:
        return None
    return plots.dots(
        "table3",
        say("Error of each network"),
        drawn,
        say("top-1 error"),
        say("paper ({classes} classes)", classes=paper.CLASSES),
    )


def _confusions(
    study: StudyRecord, ranking: Ranking, evaluations: EvaluationOf, photos: PhotoOf, taxonomy: Taxonomy
) -> tuple[StudyRow, list[Pair]] | None:
    """The mistakes of the best network whose scores were saved."""
    first = [ranking.best] if ranking.best else []
    for row in [*first, *by_error(study.table("table3")), *by_error(study.rows)]:
        if (evaluation := evaluations(row.id)) is not None:
            pairs = hardest_pairs(evaluation, photos, taxonomy)
            return (row, pairs) if pairs else None
    return None


def _unverified(study: StudyRecord) -> list[str]:
    data, single = study.data, [row for row in study.rows if row.mode != "ensemble"]
    sentences = []
    if data.photos != paper.PHOTOS or data.classes != paper.CLASSES:
        sentences.append(
            say(
                "The paper's numbers are for {photos} photos of {classes} species; this study had {here} "
                "photos of {classes_here} classes. Fewer classes are easier to tell apart, so a lower error "
                "here is no improvement on the paper: compare the order of the rows, not their errors.",
                photos=paper.PHOTOS,
                classes=paper.CLASSES,
                here=data.photos,
                classes_here=data.classes,
            )
        )
    for badge in (to_say("random weights"), to_say("partial weights")):
        if names := sorted({row.backbone for row in single if row.badge == badge}):
            sentences.append(
                say(
                    "The error of {networks} with complete pretrained weights: they were not found here. "
                    "Rows marked “{badge}” show that the method works, not how good the network is.",
                    networks=", ".join(names),
                    badge=say(badge),
                )
            )
    sentences += [
        say("{network} was not run: {why}", network=one.backbone, why=one.why) for one in study.skipped
    ]
    if study.table("table2"):
        sentences.append(
            say(
                "The paper does not say whether its error after pruning is over the kept classes or over "
                "all; both are given."
            )
        )
    if study.table("table3"):
        sentences.append(
            say(
                "The paper names families of networks and not which member of each, nor its learning "
                "rate; this study chose its own."
            )
        )
    return sentences


def _named(name: str, row: StudyRow) -> str:
    badge = word(row.badge)
    return f"{name} ({badge})" if badge and badge not in name else name
