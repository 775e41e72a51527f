"""The tables of the recipes `better` and `tuned`: rows compared with a reference, and their cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fieldmark.experiments import answers
from fieldmark.experiments.records import StudyRecord, StudyRow
from fieldmark.reports import plots
from fieldmark.utils.languages import say, to_say

TABLES = {
    "heads": (
        to_say("Kinds of head"),
        to_say(
            "What is trained on the cached features; and the default decided by the least "
            "expected height of the lowest common ancestor."
        ),
    ),
    "views": (
        to_say("Several views of a photo"),
        to_say("Mirrored photos and the centre of each: as further training photos, and averaged over."),
    ),
    "tail": (
        to_say("Rare classes"),
        to_say(
            "Strengths were chosen on the other folds, with heads that were trained on neither: "
            "the lowest error over rare classes with at most 2 % more error over all photos."
        ),
    ),
    "tail-test": (
        to_say("Rare classes, on the test photos"),
        to_say("Trained on all other photos; no choice used the test photos."),
    ),
    "prune": (
        to_say("Pruning rare classes, at several thresholds"),
        to_say(
            "“Learned without” prunes them from training, “never answers” only from the "
            "answers: whether pruning helps training, or only leaves fewer classes to confuse."
        ),
    ),
    "epochs": (
        to_say("Longer training"),
        to_say(
            "The plain head, its learning rate falling over the epochs; or early stopping by "
            "the loss on a tenth of the photos, which are then not trained on."
        ),
    ),
    "networks": (to_say("Networks"), to_say("Each with the default head.")),
    "neighbours": (to_say("Nearest neighbours"), to_say("The nearest photos decide, without training.")),
    "few": (
        to_say("Few photos of a class"),
        to_say(
            "The default head, learned from at most so many photos of each class, and measured "
            "on all. The curve ends with all photos, at the mean number of a class."
        ),
    ),
    "places": (
        to_say("Known and new places"),
        to_say(
            "Photos at a known location, of classes at two locations or more: measured by heads "
            "that learned from other photos of the same location, or from none. Intervals are "
            "by location."
        ),
    ),
    "boxes": (
        to_say("Boxes and whole photos, at new places"),
        to_say(
            "The same boxes of animals in both rows: by their crops, or by the whole photo "
            "around each. No fold learns from the locations that it is measured on. Intervals "
            "are by location."
        ),
    ),
    "boxes-known": (
        to_say("Boxes and whole photos, at known places"),
        to_say("The same, where a fold learns from other photos of the locations."),
    ),
    "together": (
        to_say("Ensembles of networks"),
        to_say(
            "Weights are fitted outside the fold that they are measured on; the reference is "
            "the best single network."
        ),
    ),
    "tuned": (
        to_say("Fine-tuning compared with the last layer alone"),
        to_say("The network itself is trained, starting from the last layer of the first row."),
    ),
    "compact": (
        to_say("Smaller networks, and fewer weights"),
        to_say(
            "All layers are trained. The first network is the reference; then the same with its "
            "smallest weights set to zero in rounds (Han and others, 2015), which make a coded "
            "file smaller at the same speed; smaller networks, alone and taught by the first "
            "(Hinton and others, 2015); and all of them in 8-bit integers. File, memory and "
            "photos a second, one at a time, are those of the exported graph on one core of "
            "this machine."
        ),
    ),
    "parts": (
        to_say("The parts of the fine-tuning recipe"),
        to_say("All layers trained, with one part of the recipe changed at a time."),
    ),
}


_OF_THE_PAPER = ("table2", "table3", "figure4", "test", "ensemble", "epochs", "literal")
"""Tables that have a place of their own on the page."""


@dataclass(frozen=True)
class Section:
    """One table with its plots, as the page shows it."""

    id: str  # of its heading
    title: str
    about: str  # what is compared; empty for a table of the user's own
    rows: Sequence[StudyRow]
    answer: str  # to the question of the table; empty where it has none
    plot: str  # the errors as an SVG
    curves: str | None  # the validation losses as an SVG


def sections(study: StudyRecord) -> list[Section]:
    """Return the tables that the study has, each with its plot; those of the user's own come last."""
    texts = {name: (say(title), say(about)) for name, (title, about) in TABLES.items()}
    names = [row.table for row in study.rows if row.table not in (*_OF_THE_PAPER, *TABLES)]
    found = []
    for number, name in enumerate((*TABLES, *dict.fromkeys(names))):
        if rows := [row for row in study.table(name) if _shown(row)]:
            title, about = texts.get(name, (name, ""))
            place = f"better-{name}" if name in texts else f"better-own-{number}"
            curves = _CURVES[name](study, rows) if name in _CURVES else None
            answer, plot = answers.of(study, name), _plot(name, place, title, rows)
            found.append(Section(place, title, about, rows, answer, plot, curves))
    return found


def _shown(row: StudyRow) -> bool:
    return bool(row.bands) and (row.part == "cross" or row.table not in _OF_THE_PAPER)


def line(label: str, row: StudyRow, measure: str) -> plots.Line:
    """Return one measure of a row's curve; hollow where the weights were not complete."""
    points = [(one.epoch, one[measure]) for one in row.curve if one[measure] is not None]
    return plots.Line(label, [x for x, _ in points], [y for _, y in points], bool(row.badge))


def _curves(_: StudyRecord, rows: Sequence[StudyRow]) -> str | None:
    """The validation losses epoch by epoch, averaged over the folds."""
    drawn = [line(row.label, row, "val_loss") for row in rows if row.curve]
    title = say("Validation loss over epochs")
    return plots.lines("better-curves", title, drawn, say("epoch"), say("loss")) if drawn else None


def _learning_curves(study: StudyRecord, rows: Sequence[StudyRow]) -> str | None:
    """The error of each network over the photos of a class that it learned from; the last point is all."""
    data = study.data
    most = (data.split.train + data.split.val) / data.classes
    drawn = []
    for name in dict.fromkeys(row.backbone for row in rows):
        mine = [(row.each, row) for row in rows if row.backbone == name and row.each]
        every = [(most, row) for row in study.table("networks") if row.backbone == name]
        found = ((float(x), row.val_top1_error) for x, row in (*mine, *every))
        points = sorted((x, y) for x, y in found if y is not None)
        drawn.append(plots.Line(name, [x for x, _ in points], [y for _, y in points]))
    title = say("Error over photos of a class")
    return plots.lines("better-few-curves", title, drawn, say("photos of a class"), say("top-1 error"))


_CURVES = {"epochs": _curves, "few": _learning_curves}
"""Further plots of some tables."""


def _plot(name: str, place: str, title: str, rows: Sequence[StudyRow]) -> str:
    """The errors as dots; over rare classes where the table is about those."""
    rare = name.startswith("tail")
    drawn = []
    for row in rows:
        value = row.tail.error if rare else row.val_top1_error_all_classes
        interval = row.tail.interval if rare else row.val_top1_error_all_classes_interval
        if value is not None:
            drawn.append(plots.Dot(row.label, value, interval, hollow=bool(row.badge)))
    over = say("macro error over rare classes") if rare else say("top-1 error over all photos")
    return plots.dots(place, title, drawn, over)
