"""What a study found, in sentences: which network is best, what pays, and how sure that is.

A sentence never claims more than an interval allows: two results whose difference may be nothing are
called a tie, and a network without complete pretrained weights is never ranked beside those with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from fieldmark.evaluation.comparison import difference
from fieldmark.evaluation.results import Evaluation, Over
from fieldmark.experiments import paper
from fieldmark.reports import page
from fieldmark.utils.errors import InputError

Row = Mapping[str, Any]
R = TypeVar("R", bound=Row)
EvaluationOf = Callable[[str], Evaluation | None]

TRANSFER = {
    "scratch": "from scratch",
    "all": "all layers from pretrained weights",
    "last": "last layer only, the rest frozen",
}


@dataclass(frozen=True)
class Comparison:
    """The error of one row less that of another; `interval` is None where scores were not kept."""

    value: float
    interval: tuple[float, float] | None
    tie: bool

    @property
    def words(self) -> str:
        """What the difference says, for a person."""
        if self.tie:
            return "no difference that these photos can show"
        return "fewer mistakes" if self.value < 0 else "more mistakes"


@dataclass(frozen=True)
class Ranking:
    """The rows of Table 3 that can be ranked, the best first, and those that cannot.

    Attributes:
        best: the row with the fewest mistakes, or None where no row can be ranked.
        ties: the rows that these photos cannot tell from the best one.
        others: the other rows from complete pretrained weights.
        unranked: the rows from random or partial weights.
    """

    best: Row | None
    ties: list[Row]
    others: list[Row]
    unranked: list[Row]


def weights_badge(row: Row) -> str:
    """What must be said of a row's weights wherever it is shown; "" where they are complete."""
    if row.get("transfer") == "scratch":
        return "from scratch"
    if row["weights"] == "random":
        return "random weights"
    return "" if row.get("weights_complete") else "partial weights"


def compare(a: Row, b: Row, evaluations: EvaluationOf, over: Over = "kept") -> Comparison | None:
    """The error of `a` less that of `b`: paired where the scores were kept, else by their intervals.

    None where one of them has no error at all.
    """
    first, second = evaluations(a["id"]), evaluations(b["id"])
    if first is not None and second is not None:
        try:
            found = difference(first, second, over=over)
            return Comparison(found.value, found.interval, found.tie)
        except InputError:
            pass  # of other photos: what is left are the two intervals
    key = "val_top1_error" if over == "kept" else "val_top1_error_all_classes"
    if a.get(key) is None or b.get(key) is None:
        return None
    one, other = a.get(f"{key}_interval"), b.get(f"{key}_interval")
    overlap = bool(one and other and one[0] <= other[1] and other[0] <= one[1])
    return Comparison(a[key] - b[key], None, overlap or a[key] == b[key])


def by_error(rows: Sequence[R]) -> list[R]:
    """The rows that have an error, the lowest first, then those without."""
    return sorted(rows, key=lambda row: (row["val_top1_error"] is None, row["val_top1_error"] or 0))


def rank(rows: Sequence[Row], evaluations: EvaluationOf) -> Ranking:
    """Rank the rows of Table 3 by their error on the kept classes."""
    able = [row for row in by_error(rows) if not weights_badge(row)]
    able = [row for row in able if row["val_top1_error"] is not None]
    unranked = [row for row in by_error(rows) if row not in able]
    if not able:
        return Ranking(None, [], [], unranked)
    best = able[0]
    ties: list[Row] = []
    others: list[Row] = []
    for row in able[1:]:
        found = compare(row, best, evaluations)
        (ties if found and found.tie else others).append(row)
    return Ranking(best, ties, others, unranked)


def headline(ranking: Ranking) -> list[str]:
    """The answer to "which network is best here?", in at most three sentences."""
    sentences = []
    if ranking.best is None:
        if not ranking.unranked:
            return []
        sentences.append(
            "No network could be run from complete pretrained weights, so this run cannot say which "
            "network is best."
        )
    else:
        best = ranking.best
        says = f"names {page.of_100(best['val_top1_error'])} photos right"
        if best.get("val_top1_error_interval"):
            says += f" ({page.of_100_interval(best['val_top1_error_interval'])})"
        if ranking.ties:
            names = _names(ranking.ties)
            verb = "does" if len(ranking.ties) == 1 else "do"
            sentences.append(
                f"{best['label']} {says}, and {names} {verb} as well as far as these photos can "
                "tell: a tie."
            )
        elif ranking.others:
            sentences.append(f"{best['label']} makes the fewest mistakes here: it {says}.")
        else:
            sentences.append(
                f"{best['label']}, the only network here with complete pretrained weights, {says}."
            )
    if ranking.unranked:
        verb = "was" if len(ranking.unranked) == 1 else "were"
        sentences.append(
            f"{_names(ranking.unranked)} {verb} not run from complete pretrained weights and cannot "
            "be ranked beside the others."
        )
    return sentences


def findings(study: Mapping[str, Any], evaluations: EvaluationOf) -> list[tuple[str, str, str]]:
    """Question, answer and what the paper says, for each part of the study that was run."""
    rows = study["rows"]
    found = [
        _pruning(rows_of(rows, "table2"), evaluations),
        _transfer(rows_of(rows, "figure4"), evaluations),
        _test(rows, evaluations),
        _ensemble(rows, evaluations),
        _epochs(rows_of(rows, "epochs")),
        _literal(rows, evaluations),
    ]
    return [one for one in found if one]


def rows_of(rows: Sequence[Row], table: str) -> list[Row]:
    """The rows of one table, in the order of the study."""
    return [row for row in rows if row["table"] == table]


def twin(row: Row, rows: Sequence[Row]) -> Row | None:
    """The row of Table 3 that trained the same network in the same way on kept features."""
    keys = ("backbone", "transfer", "pruned", "epochs")
    for other in rows:
        same = all(other.get(key) == row.get(key) for key in keys)
        if same and other["mode"] == "cached" and other["table"] in ("table3", "figure4", "table2"):
            return other
    return None


def pruning_pair(rows: Sequence[Row]) -> tuple[Row, Row] | None:
    """The complete and the pruned run of Table 2."""
    complete = [row for row in rows if not row["pruned"]]
    pruned = [row for row in rows if row["pruned"]]
    return (complete[0], pruned[0]) if complete and pruned else None


def _pruning(rows: Sequence[Row], evaluations: EvaluationOf) -> tuple[str, str, str] | None:
    pair = pruning_pair(rows)
    if not pair:
        return None
    complete, pruned = pair
    kept, over_all = (compare(pruned, complete, evaluations, over) for over in ("kept", "all"))
    if not kept or not over_all:
        return None
    answer = (
        f"On photos of the classes that were kept: {kept.words} after pruning "
        f"({_range(kept)}). On all photos, where a class that was left out can only be wrong: "
        f"{over_all.words} ({_range(over_all)})."
    )
    theirs = (
        f"error {paper.TABLE_2['complete']} without and {paper.TABLE_2['pruned']} with pruning; it "
        "does not say on which classes"
    )
    return "Does it help to leave out classes with few photos?", answer, theirs


def _transfer(rows: Sequence[Row], evaluations: EvaluationOf) -> tuple[str, str, str] | None:
    ends = {
        TRANSFER[row["transfer"]]: row["curve"][-1]["val_loss"]
        for row in rows
        if row.get("curve") and row["curve"][-1].get("val_loss") is not None
    }
    if len(ends) < 2:
        return None
    best = min(ends, key=lambda name: ends[name])
    losses = ", ".join(f"{name}: {loss:.2f}" for name, loss in ends.items())
    answer = f"The lowest validation loss after the last epoch: {best} ({losses})."
    last = next((row for row in rows if row["transfer"] == "last"), None)
    for row in rows:
        found = compare(row, last, evaluations) if last and row is not last else None
        if found:
            way = TRANSFER[row["transfer"]]
            answer += f" {way[0].upper()}{way[1:]} beside the last layer only: {found.words} "
            answer += f"({_range(found)})."
    partial = [row for row in rows if weights_badge(row) in ("partial weights", "random weights")]
    if partial:
        answer += " The pretrained weights were not complete, which is not what the paper ran."
    return "How should training begin?", answer, "training the last layer only does best"


def _test(rows: Sequence[Row], evaluations: EvaluationOf) -> tuple[str, str, str] | None:
    tests = by_error(rows_of(rows, "test"))
    if not tests or tests[0]["val_top1_error"] is None:
        return None
    row = tests[0]
    other = next(
        (one for one in rows_of(rows, "table3") if one["backbone"] == row["backbone"]), None
    )
    answer = f"{row['label']}: error {row['val_top1_error']:.3f} on test photos"
    found = compare(row, other, evaluations) if other else None
    if other and found:
        word = "no difference that these photos can show" if found.tie else "a real difference"
        answer += f", {other['val_top1_error']:.3f} on validation photos: {word}"
    theirs = f"{paper.TEST_ERROR} on test and {paper.TABLE_3['resnext']} on validation photos"
    return "Does it hold on photos that no choice was made on?", answer + ".", theirs


def _ensemble(rows: Sequence[Row], evaluations: EvaluationOf) -> tuple[str, str, str] | None:
    together = by_error(rows_of(rows, "ensemble"))
    single = by_error(rows_of(rows, "table3"))
    if not together or not single:
        return None
    found = compare(together[0], single[0], evaluations)
    if not found:
        return None
    answer = (
        f"All together against the best single one ({single[0]['label']}): {found.words} "
        f"({_range(found)})."
    )
    return "Do the networks do better together?", answer, "named as future work"


def _epochs(rows: Sequence[Row]) -> tuple[str, str, str] | None:
    parts = []
    for row in rows:
        errors = {one["epoch"]: one.get("val_error") for one in row.get("curve") or []}
        last = max(errors, default=0)
        if last > 10 and errors.get(10) is not None and errors[last] is not None:
            parts.append(
                f"{row['label']}: {errors[10]:.3f} after 10, {errors[last]:.3f} after {last}"
            )
    if not parts:
        return None
    return (
        "Does training for longer help?",
        f"Validation error by epochs. {'; '.join(parts)}.",
        "named as future work",
    )


def _literal(rows: Sequence[Row], evaluations: EvaluationOf) -> tuple[str, str, str] | None:
    parts = []
    for row in rows_of(rows, "literal"):
        cached = twin(row, rows)
        found = compare(row, cached, evaluations) if cached else None
        if found:
            parts.append(f"{row['label']}: {found.words} ({_range(found)})")
    if not parts:
        return None
    return (
        "Does it matter that the last layer learns from kept features?",
        f"With the network itself run in every epoch instead, {'; '.join(parts)}.",
        "ran the network in every epoch",
    )


def _range(found: Comparison) -> str:
    text = f"error {page.signed(found.value)}"
    if found.interval:
        low, high = (page.signed(end) for end in found.interval)
        text += f", range {low} to {high}"
    return text


def _names(rows: Sequence[Row]) -> str:
    names = list(dict.fromkeys(str(row["label"]) for row in rows))
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
