"""The page of one classifier: how often it is right, where it errs, and how it was made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fieldmark.data.taxonomy import Taxonomy
from fieldmark.evaluation import metrics
from fieldmark.evaluation.results import Evaluation
from fieldmark.reports import page, plots
from fieldmark.reports.thumbnails import PhotoOf, hardest_pairs

About = Mapping[str, Any]

MOST_CLASSES = 1000
"""Rows of the table of classes: with 100,000 the page would be too large to open."""


def classifier_page(
    about: About,
    evaluation: Evaluation,
    *,
    taxonomy: Taxonomy,
    photos: PhotoOf,
    train_counts: Mapping[str, int],
) -> str:
    """The page of a classifier as one HTML text that needs no other file.

    Args:
        about: what is known of its making. Needed: `name`, `command`, `backbone`, `weights` (where
            they came from, or "random"). Known where there: `created` (ISO date), `weights_complete`
            (default True), `part` (what it was measured on, default "test"), `photos` (`train`,
            `val`, `test`, and `rejected`: reason to number), `curve` (for each epoch `epoch`,
            `train_loss`, `val_loss`, `val_error`), `seconds` (stage to seconds), `temperature` (the
            scores are logits before calibration; divided by it they are calibrated; None: they are
            taken as they are), `threshold` (`precision` that was asked for, `score`, `coverage`
            of the validation photos; or None), `licence`, `chosen` (setting to value), `grown` (see
            `fieldmark.training.extend`), `ensemble`, `tried`, `tuned` and `passed_over` (see `fieldmark.training.automl`),
            `beside` (`said`: what was taken beside the first candidate on the same photos),
            `rare` (`said`: how kinds with few photos were helped),
            `split` (`way`, `seed`, `digest`), `data_digest`, `machine` and `versions` (name to text).
        evaluation: its scores on photos that training never saw.
        taxonomy: the names of the classes.
        photos: where the photo with an id lies, or None.
        train_counts: how many training photos each taxon had.
    """
    about = {
        "created": None,
        "weights_complete": True,
        "part": "test",
        "photos": {},
        "curve": [],
        "seconds": {},
        "temperature": None,
        "threshold": None,
        "licence": None,
        "chosen": {},
        "ensemble": None,
        "beside": None,
        "rare": None,
        "grown": None,
        "tried": [],
        "tuned": [],
        "passed_over": [],
        "split": None,
        "data_digest": None,
        "machine": {},
        "versions": {},
        "measured": {},
        **about,
    }
    summary = evaluation.summary(train_counts=train_counts).to_dict()
    context = {
        "title": about["name"],
        "about": about,
        "summary": summary,
        "headline": _headline(summary, about),
        "badge": _badge(about),
        "classes": _classes(summary, taxonomy)[:MOST_CLASSES],
        "classes_more": max(0, len(summary["per_class"]) - MOST_CLASSES),
        "groups": _groups(summary),
        "answered": _answered(evaluation, about),
        "grown": _grown(about["grown"], taxonomy),
        "confusions": hardest_pairs(evaluation, photos, taxonomy),
        "calibration": _calibration(evaluation, about["temperature"]),
        "ranks": _ranks(about["measured"]),
        "unknown": _unknown(about["measured"]),
        "curve": _curve(about["curve"]),
        "pruned": summary["photos"] - summary["photos_kept"],
    }
    return page.render("classifier.html", contents=_contents(context), **context)


def _contents(context: Mapping[str, Any]) -> list[tuple[str, str]]:
    sections = [
        ("short", "How good it is", True),
        ("grown", "What changed", context["about"]["grown"]),
        ("confusions", "Hardest mistakes", context["confusions"]),
        ("classes", "Class by class", True),
        ("sure", "How sure it is", context["calibration"]),
        ("ranks", "What it answers", context["ranks"]),
        ("unknown", "Strangers", context["unknown"]),
        ("curve", "How it learnt", context["curve"]),
        ("data", "The photos", True),
        ("made", "How it was made", True),
    ]
    return [(id_, name) for id_, name, there in sections if there]


_NEW_KINDS = 20  # that are named


def _grown(grown: Mapping[str, Any] | None, taxonomy: Taxonomy) -> dict[str, Any] | None:
    """What growing changed: the new kinds by name, and errors before and now as rows."""
    if not grown:
        return None
    new = grown["new_classes"]
    old = grown["old_photos"] or {}
    rows = [
        {
            "name": "of before",
            "photos": old.get("photos"),
            "before": old.get("error_before"),
            "now": old.get("error"),
            "range": None,
            "difference": old.get("difference"),
            "interval": old.get("interval"),
        }
    ]
    for name, key in (("new", "new_photos"), ("of these, of new kinds", "new_classes_photos")):
        found = grown[key] or {}
        rows.append(
            {
                "name": name,
                "photos": found.get("photos"),
                "before": None,
                "now": found.get("error"),
                "range": found.get("interval"),
                "difference": None,
            }
        )
    how = "worse" if old and old["difference"] > 0 else "better"
    tie = "On the photos of before the two are a tie: the range of the difference holds 0."
    said = tie if old.get("tie") else f"On the photos of before it is {how} than it was."
    return {
        "kinds": [page.label(taxonomy, each) for each in new[:_NEW_KINDS]],
        "kinds_more": max(0, len(new) - _NEW_KINDS),
        "rows": rows,
        "verdict": said if old else "",
    }


def _badge(about: About) -> str:
    if about["weights"] == "random":
        return "random weights"
    return "" if about["weights_complete"] else "partial weights"


def _headline(summary: Mapping[str, Any], about: About) -> str:
    if summary["top1_error"] is None:
        return "There was no photo of its classes to measure it on."
    right = page.of_100(summary["top1_error"])
    between = page.of_100_interval(summary["top1_error_interval"])
    return (
        f"Shown a photo that it never saw in training, this classifier names {right} right "
        f"({between}, as far as {page.count(summary['photos_kept'])} {about['part']} photos can tell)."
    )


def _classes(summary: Mapping[str, Any], taxonomy: Taxonomy) -> list[dict[str, Any]]:
    """The classes, the hardest first; those without a photo to measure on last."""
    rows = [{**row, "label": page.label(taxonomy, row["taxon_id"])} for row in summary["per_class"]]
    return sorted(
        rows, key=lambda row: (row["error"] is None, -(row["error"] or 0), row["label"].lower())
    )


def _groups(summary: Mapping[str, Any]) -> dict[str, Any] | None:
    """The supercategories as a plot and as rows, the easiest first; None where there is but one."""
    rows = sorted(summary["per_supercategory"], key=lambda row: row["error"])
    if len(rows) < 2:
        return None
    drawn = [plots.Dot(row["supercategory"], row["error"], tuple(row["interval"])) for row in rows]
    title = "Error of each group"
    return {
        "rows": rows,
        "plot": plots.dots("groups", title, drawn, "share of photos named wrongly"),
    }


def _answered(evaluation: Evaluation, about: About) -> dict[str, float] | None:
    """How many photos get an answer above the threshold, and how many of those are right.

    A photo of a class that was not taught counts: a sure answer to it is a wrong one.
    """
    if not about["threshold"] or not len(evaluation):
        return None
    scaled_NC = evaluation.scores_NC / np.float32(about["temperature"] or 1.0)
    given = metrics.confidence(scaled_NC) >= about["threshold"]["score"]
    if not given.any():
        return None
    right = ~evaluation.wrong_N()
    return {"coverage": float(given.mean()), "precision": float(right[given].mean())}


def _calibration(evaluation: Evaluation, temperature: float | None) -> dict[str, Any] | None:
    """The reliability plot and the calibration error, before and after the temperature."""
    kept = evaluation.kept_N
    scores, labels = evaluation.scores_NC[kept], evaluation.labels_N[kept]
    if not len(labels) or not bool(np.isfinite(scores).all()):
        return None
    versions = {"as trained": scores}
    if temperature is not None:
        versions = {"before calibration": scores, "calibrated": scores / temperature}
    series = {name: metrics.reliability(one, labels) for name, one in versions.items()}
    title = "How often answers of a given confidence are right"
    return {
        "plot": plots.reliability("reliability", title, series),
        "rows": [
            (
                name,
                metrics.expected_calibration_error(one, labels),
                metrics.negative_log_likelihood(one, labels),
                metrics.brier_score(one, labels),
            )
            for name, one in versions.items()
        ],
    }


def _ranks(measured: Mapping[str, Any]) -> dict[str, Any] | None:
    """How many photos get an answer at each rank, how many of those are right, and the whole curve."""
    answered = measured.get("answered")
    if not answered:
        return None
    points = [
        (one["coverage"], one["precision"])
        for one in measured.get("coverage_curve") or []
        if one["precision"] is not None
    ]
    species = answered.get("species") or {}
    chosen = (
        (species["coverage"], species["precision"])
        if species.get("precision") is not None
        else None
    )
    title = "Share of photos answered, and share of the answers that are right"
    return {
        "rows": [(rank, one) for rank, one in answered.items() if rank != "all" and one["photos"]],
        "all": answered["all"],
        "plot": plots.coverage("coverage", title, points, chosen) if points else None,
    }


_TOLD_BY = {
    "energy": "energy of its scores (the flag in its answers)",
    "confidence": "probability of the first name",
    "neighbour": "likeness to the nearest training photo",
}


def _unknown(measured: Mapping[str, Any]) -> dict[str, Any] | None:
    """How well photos of none of the classes are told, with classes held out."""
    found = measured.get("unknown")
    if not found:
        return None
    rows = [(text, found[name]) for name, text in _TOLD_BY.items() if name in found]
    return {**found, "classes": len(found["held_out"]), "rows": rows}


def _curve(curve: Sequence[Mapping[str, Any]]) -> str | None:
    if not curve:
        return None

    def line(name: str, key: str) -> plots.Line | None:
        points = [(one["epoch"], one[key]) for one in curve if one.get(key) is not None]
        return plots.Line(name, [x for x, _ in points], [y for _, y in points]) if points else None

    losses = [line("training", "train_loss"), line("validation", "val_loss")]
    error = line("validation", "val_error")
    return plots.learning_curve(
        "learning",
        "Losses and validation error over epochs",
        [one for one in losses if one],
        [replace(error, label="validation error")] if error else [],
    )
