"""The report page of one classifier: test error, confusions, calibration, how it was made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fieldmark.data.taxonomy import Taxonomy
from fieldmark.evaluation import metrics
from fieldmark.evaluation.results import Evaluation
from fieldmark.reports import page, plots
from fieldmark.reports.confusion_matrix import matrix
from fieldmark.reports.thumbnails import PhotoOf, examples, hardest_pairs
from fieldmark.utils.languages import say, say_count, to_say

About = Mapping[str, Any]

MOST_CLASSES = 1000
"""Most rows of the table of classes: with 100,000 rows the page would be too large to open."""

_DEFAULTS: About = {
    "weights_complete": True,
    **{key: {} for key in ("photos", "seconds", "chosen", "machine", "versions", "measured")},
    **dict.fromkeys(("curve", "tried", "tuned", "passed_over"), ()),
    **dict.fromkeys(("created", "temperature", "threshold", "licence", "ensemble", "beside")),
    **dict.fromkeys(("rare", "grown", "split", "data_digest", "places", "events", "prior")),
}


def classifier_page(
    about: About,
    evaluation: Evaluation,
    *,
    taxonomy: Taxonomy,
    photos: PhotoOf,
    train_counts: Mapping[str, int],
    coordinates: Mapping[str, tuple[float, float]] | None = None,
    rejected: Mapping[str, Sequence[str]] | None = None,
    share_learned: float = 1.0,
) -> str:
    """Render the page of a classifier as one HTML text that needs no other file.

    Args:
        about: The provenance. Required: `name`, `command`, `backbone`, `weights` (their source, or
            "random"). Optional: `created` (ISO date), `weights_complete` (default True), `photos` (`train`,
            `val`, `test`, and `rejected`: reason to number), `curve` (for each epoch `epoch`,
            `train_loss`, `val_loss`, `val_error`), `seconds` (stage to seconds),
            `temperature` (of the logits; None: not calibrated), `threshold` (`precision`, `score`,
            `coverage` on validation photos; or None), `licence`, `chosen` (setting to value), `grown`
            (see `fieldmark.training.extend`), `ensemble`, `tried`, `tuned`, `passed_over` and `beside`
            (see `fieldmark.training.automl`), `rare` (see `fieldmark.training.logit_adjustment`),
            `places`, `events` and `prior` (see `fieldmark.training.new_places`, `event_rule` and
            `location_prior`), `split` (`way`, `seed`, `digest`), `data_digest`, `machine`, `versions`.
        evaluation: The scores of test photos.
        taxonomy: The names of the classes.
        photos: Returns where a photo is stored, or None.
        train_counts: The number of training photos of each taxon.
        coordinates: Latitude and longitude of locations, in degrees; None: no map.
        rejected: For each reason the paths of photos that were not used, or of some of them.
        share_learned: See `fieldmark.evaluation.intervals.error_interval`.
    """
    about = {**_DEFAULTS, **about}
    folds = (about["measured"].get("measurement") or {}).get("way") == "folds"
    summary = evaluation.summary(train_counts=train_counts, share_learned=share_learned).to_dict()
    answered = _answered(evaluation, about)
    return page.render(
        "classifier.html",
        title=about["name"],
        about=about,
        summary=summary,
        **_measured_on(summary["photos_kept"], folds),
        headline=_headline(summary, folds),
        badge=_badge(about),
        classes=_classes(summary, taxonomy)[:MOST_CLASSES],
        groups=_groups(summary),
        answered=answered,
        verdict=_verdict(summary, about["measured"].get("answered"), answered),
        matrix=matrix(evaluation, taxonomy),
        species=examples(evaluation, photos, taxonomy, _sure_from(about)),
        rejected_names=rejected or {},
        grown=_grown(about["grown"], taxonomy),
        confusions=hardest_pairs(evaluation, photos, taxonomy),
        calibration=_calibration(evaluation, about["temperature"]),
        ranks=_ranks(about["measured"]),
        places=_places(about["places"], coordinates or {}),
        unknown=_unknown(about["measured"]),
        curve=_curve(about["curve"]),
        members=about["ensemble"]["members"] if about["ensemble"] else [],
    )


def _measured_on(photos: int, folds: bool) -> dict[str, str]:
    """Return the words for the photos that the error is of, and for those that choices were made on."""
    return {
        "measured_photos": _photos(photos, folds),
        "part_photos": say("held-out photos") if folds else say("test photos"),
        "chosen_on": say("photos of other folds") if folds else say("validation photos"),
    }


def _photos(count: int, folds: bool) -> str:
    if folds:
        return say_count("{count} held-out photo", "{count} held-out photos", count)
    return say_count("{count} test photo", "{count} test photos", count)


def _badge(about: About) -> str:
    if about["weights"] == "random":
        return say("random weights")
    return "" if about["weights_complete"] else say("partial weights")


_NEW_CLASSES = 20  # that are named


def _grown(grown: Mapping[str, Any] | None, taxonomy: Taxonomy) -> dict[str, Any] | None:
    """Return the new classes by name, and the errors before and after as rows."""
    if not grown:
        return None
    new, old = grown["new_classes"], grown["old_photos"] or {}
    added = ((say("new photos"), "new_photos"), (say("of new classes"), "new_classes_photos"))
    verdict = ""
    if old.get("tie"):
        verdict = say("On the earlier test photos, the two are a tie: the interval contains 0.")
    elif old and old["difference"] > 0:
        verdict = say("On the earlier test photos, it is worse.")
    elif old:
        verdict = say("On the earlier test photos, it is better.")
    return {
        "classes": [page.label(taxonomy, each) for each in new[:_NEW_CLASSES]],
        "classes_more": max(0, len(new) - _NEW_CLASSES),
        "rows": [(say("earlier test photos"), old), *((name, grown[key] or {}) for name, key in added)],
        "verdict": verdict,
        "corrected": [
            {"id": one["id"], **{key: page.label(taxonomy, one[key]) for key in ("before", "now")}}
            for one in grown.get("corrected", ())[:MOST_CLASSES]
        ],
    }


def _headline(summary: Mapping[str, Any], folds: bool) -> str:
    if summary["top1_error"] is None:
        return say("There was no test photo of its classes.")
    return say(
        "On {photos}, none of which it was trained on, the first answer of this classifier is right for "
        "{share} (95\u00a0% confidence interval {interval}).",
        photos=_photos(summary["photos_kept"], folds),
        share=page.right(summary["top1_error"]),
        interval=page.right_interval(summary["top1_error_interval"]),
    )


def _verdict(
    summary: Mapping[str, Any], measured: Mapping[str, Any] | None, answered: Mapping[str, float] | None
) -> list[dict[str, Any]]:
    """Return what comes of the photos, as shares of all: right answers, not sure, wrong answers."""
    if summary["top1_error"] is None:
        return []
    if measured and measured["all"]["precision"] is not None:
        given, right = measured["all"]["coverage"], measured["all"]["coverage"] * measured["all"]["precision"]
        one = measured.get("species") or {}
        species = one.get("coverage", 0.0) * (one.get("precision") or 0.0)
        found = [
            (to_say("right species"), "right", species),
            (to_say("right higher taxon"), "higher", right - species),
        ]
    elif answered:
        given, right = answered["coverage"], answered["coverage"] * answered["precision"]
        found = [(to_say("right"), "right", right)]
    else:
        given, right = 1.0, 1 - summary["top1_error"]
        found = [(to_say("right"), "right", right)]
    found += [(to_say("not sure"), "unsure", 1 - given), (to_say("wrong"), "wrong", given - right)]
    return [{"name": say(name), "kind": kind, "share": share} for name, kind, share in found if share > 5e-4]


def _sure_from(about: About) -> tuple[float, float]:
    """Return the temperature of the logits, and the confidence from which on it is sure."""
    return about["temperature"] or 1.0, about["threshold"]["score"] if about["threshold"] else 0.0


def _classes(summary: Mapping[str, Any], taxonomy: Taxonomy) -> list[dict[str, Any]]:
    """Return the classes, highest error first; those without a test photo last."""
    rows = [{**row, "label": page.label(taxonomy, row["taxon_id"])} for row in summary["per_class"]]
    return sorted(rows, key=lambda row: (row["error"] is None, -(row["error"] or 0), row["label"].lower()))


def _groups(summary: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the supercategories as a plot and as rows, lowest error first; None for only one."""
    rows = sorted(summary["per_supercategory"], key=lambda row: row["error"])
    if len(rows) < 2:
        return None
    drawn = [plots.Dot(row["supercategory"], row["error"], tuple(row["interval"])) for row in rows]
    plot = plots.dots("groups", say("Error of each group"), drawn, say("top-1 error"), percent=True)
    return {"rows": rows, "plot": plot}


def _answered(evaluation: Evaluation, about: About) -> dict[str, float] | None:
    """Return the coverage and the precision above the threshold.

    An answer for a photo of a class that was pruned counts as wrong.
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
    """Return the reliability plot and the calibration error, before and after calibration."""
    kept = evaluation.kept_N
    scores, labels = evaluation.scores_NC[kept], evaluation.labels_N[kept]
    if not len(labels) or not bool(np.isfinite(scores).all()):
        return None
    versions = {say("as trained"): scores}
    if temperature is not None:
        versions = {say("before calibration"): scores, say("calibrated"): scores / temperature}
    series = {name: metrics.reliability(one, labels) for name, one in versions.items()}
    measures = (metrics.expected_calibration_error, metrics.negative_log_likelihood, metrics.brier_score)
    return {
        "plot": plots.reliability("reliability", say("Right answers at each confidence"), series),
        "rows": [(name, *(measure(one, labels) for measure in measures)) for name, one in versions.items()],
    }


def _ranks(measured: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return coverage and precision at each rank, and the curve of one against the other."""
    answered = measured.get("answered")
    if not answered:
        return None
    curve = measured.get("coverage_curve") or []
    points = [(one["coverage"], one["precision"]) for one in curve if one["precision"] is not None]
    species = answered.get("species") or {}
    known = species.get("precision") is not None
    chosen = (species["coverage"], species["precision"]) if known else None
    title = say("Coverage and precision at each threshold")
    return {
        "rows": [(rank, one) for rank, one in answered.items() if rank != "all" and one["photos"]],
        "all": answered["all"],
        "species": species or None,
        "plot": plots.coverage("coverage", title, points, chosen) if points else None,
    }


MOST_PLACES = 60
"""Most rows of the table and of the plot of places."""


def _places(
    found: Mapping[str, Any] | None, coordinates: Mapping[str, tuple[float, float]]
) -> dict[str, Any] | None:
    """Return the errors at known and new places with a plot and, where coordinates are known, a map."""
    if not found:
        return None
    rows = found["places"]
    drawn = [plots.Dot(row["name"], row["new"], tuple(row["new_interval"])) for row in rows[:MOST_PLACES]]
    at = [
        (*coordinates[row["name"]], row["photos"], row["new"]) for row in rows if row["name"] in coordinates
    ]
    return {
        **{key: found[key] for key in ("all", "difference", "light")},
        "rows": rows[:MOST_PLACES],
        "more": max(0, len(rows) - MOST_PLACES),
        "plot": plots.dots("places", say("Error of each place"), drawn, say("top-1 error"), percent=True),
        "map": plots.places("map", say("Places"), at) if len(at) > 1 else None,
    }


def _unknown(measured: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return how well photos of other species and drawn pictures are recognised; None in older records."""
    found = measured.get("unknown")
    return dict(found) if found and "kinds" in found else None


def _curve(curve: Sequence[Mapping[str, Any]]) -> str | None:
    if not curve:
        return None

    def line(label: str, key: str) -> list[plots.Line]:
        points = [(one["epoch"], one[key]) for one in curve if one.get(key) is not None]
        return [plots.Line(label, [x for x, _ in points], [y for _, y in points])] if points else []

    losses = line(say("training"), "train_loss") + line(say("validation"), "val_loss")
    title = say("Losses and validation error over epochs")
    return plots.learning_curve("learning", title, losses, line(say("validation error"), "val_error"))
