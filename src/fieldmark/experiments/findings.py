"""The findings of a study in sentences: which network is best, what helps, and how certain that is.

A sentence never claims more than the 95 % CI allows: a difference whose interval contains zero is called
a tie, and a network without complete pretrained weights is never ranked with those that have them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fieldmark.evaluation.comparison import difference
from fieldmark.evaluation.results import Evaluation, Over
from fieldmark.experiments import paper
from fieldmark.experiments.records import Finding, StudyRow
from fieldmark.reports import page
from fieldmark.utils.errors import InputError

EvaluationOf = Callable[[str], Evaluation | None]
_Answer = tuple[str, str, str]  # question, answer, and the paper's answer

TRANSFER = {
    "scratch": "from scratch",
    "all": "all layers from pretrained weights",
    "last": "last layer only, the rest frozen",
}


def way_of(row: StudyRow) -> str:
    """Return what a row's training starts from, in words."""
    return TRANSFER.get(row.transfer, row.transfer)


@dataclass(frozen=True)
class Comparison:
    """The error of one row minus that of another; `interval` is None where scores were not saved."""

    value: float
    interval: tuple[float, float] | None
    tie: bool

    @property
    def words(self) -> str:
        """The difference in words."""
        if self.tie:
            return "a tie"
        return "a lower error" if self.value < 0 else "a higher error"


@dataclass(frozen=True)
class Ranking:
    """The rows of Table 3 that can be ranked, the best first, and those that cannot."""

    best: StudyRow | None  # the lowest error; None where no row can be ranked
    ties: list[StudyRow]  # the difference to the best one is a tie
    others: list[StudyRow]  # the other rows from complete pretrained weights
    unranked: list[StudyRow]  # from random or partial weights


def compare(a: StudyRow, b: StudyRow, evaluations: EvaluationOf, over: Over = "kept") -> Comparison | None:
    """Return the error of `a` minus that of `b`: paired where the scores were saved, else by intervals.

    None where one of them has no error at all.
    """
    first, second = evaluations(a.id), evaluations(b.id)
    if first is not None and second is not None:
        try:
            found = difference(first, second, over=over)
            return Comparison(found.value, found.interval, found.tie)
        except InputError:
            pass  # of other photos: only the two intervals are left
    key = "val_top1_error" if over == "kept" else "val_top1_error_all_classes"
    if a[key] is None or b[key] is None:
        return None
    one, other = a[f"{key}_interval"], b[f"{key}_interval"]
    overlap = bool(one and other and one[0] <= other[1] and other[0] <= one[1])
    return Comparison(a[key] - b[key], None, overlap or a[key] == b[key])


def by_error(rows: Sequence[StudyRow]) -> list[StudyRow]:
    """Return the rows that have an error, the lowest first, then those without."""
    return sorted(rows, key=lambda row: (row.val_top1_error is None, row.val_top1_error or 0))


def rank(rows: Sequence[StudyRow], evaluations: EvaluationOf) -> Ranking:
    """Rank the rows of Table 3 by their error on the kept classes."""
    able = [row for row in by_error(rows) if not row.badge and row.val_top1_error is not None]
    unranked = [row for row in by_error(rows) if row not in able]
    if not able:
        return Ranking(None, [], [], unranked)
    best, *others = able
    ties = [row for row in others if (found := compare(row, best, evaluations)) and found.tie]
    return Ranking(best, ties, [row for row in others if row not in ties], unranked)


def headline(ranking: Ranking) -> list[str]:
    """Answer "which network is best?" in at most three sentences."""
    sentences = []
    if (best := ranking.best) is None:
        if not ranking.unranked:
            return []
        sentences.append(
            "No network had complete pretrained weights, so this study cannot say which network is best."
        )
    else:
        assert best.val_top1_error is not None  # only such rows are ranked
        says = f"names {page.of_100(best.val_top1_error)} photos right"
        if best.val_top1_error_interval:
            says += f" ({page.of_100_interval(best.val_top1_error_interval)})"
        if ranking.ties:
            names = _names(ranking.ties)
            sentences.append(f"{best.label} {says}; the difference to {names} is a tie.")
        elif ranking.others:
            sentences.append(f"{best.label} has the lowest error here: it {says}.")
        else:
            sentences.append(f"{best.label}, the only network here with complete pretrained weights, {says}.")
    if ranking.unranked:
        verb = "was" if len(ranking.unranked) == 1 else "were"
        sentences.append(
            f"{_names(ranking.unranked)} {verb} not run from complete pretrained weights and cannot "
            "be ranked with the others."
        )
    return sentences


def findings(rows: Sequence[StudyRow], evaluations: EvaluationOf) -> tuple[Finding, ...]:
    """Answer the question of each part of the study that was run."""
    found = [
        _pruning(rows_of(rows, "table2"), evaluations),
        _transfer(rows_of(rows, "figure4"), evaluations),
        _test(rows, evaluations),
        _ensemble(rows, evaluations),
        _epochs(rows_of(rows, "epochs")),
        _literal(rows, evaluations),
    ]
    return tuple(Finding(*one) for one in found if one)


def rows_of(rows: Sequence[StudyRow], table: str) -> list[StudyRow]:
    """Return the rows of one table, in the order of the study."""
    return [row for row in rows if row.table == table]


def cached_like(row: StudyRow, rows: Sequence[StudyRow]) -> StudyRow | None:
    """Return the row that trained the same network in the same way on cached features."""
    keys = ("backbone", "transfer", "pruned", "epochs")
    cached = (one for one in rows if one.mode == "cached" and one.table in ("table3", "figure4", "table2"))
    return next((one for one in cached if all(one[key] == row[key] for key in keys)), None)


def literal_pairs(
    rows: Sequence[StudyRow], evaluations: EvaluationOf
) -> list[tuple[StudyRow, StudyRow | None, Comparison | None]]:
    """Return each row that ran the network itself, its row on cached features, and their difference."""
    pairs = [(row, cached_like(row, rows)) for row in rows_of(rows, "literal")]
    return [(row, cached, compare(row, cached, evaluations) if cached else None) for row, cached in pairs]


def pruning_pair(rows: Sequence[StudyRow]) -> tuple[StudyRow, StudyRow] | None:
    """Return the complete and the pruned row of Table 2."""
    first = {row.pruned: row for row in reversed(rows)}
    return (first[False], first[True]) if len(first) == 2 else None


def _pruning(rows: Sequence[StudyRow], evaluations: EvaluationOf) -> _Answer | None:
    pair = pruning_pair(rows)
    if not pair:
        return None
    complete, pruned = pair
    kept, over_all = (compare(pruned, complete, evaluations, over) for over in ("kept", "all"))
    if not kept or not over_all:
        return None
    answer = (
        f"On photos of the kept classes: {kept.words} after pruning "
        f"({_range(kept)}). On all photos, where every photo of a pruned class counts as wrong: "
        f"{over_all.words} ({_range(over_all)})."
    )
    theirs = (
        f"error {paper.TABLE_2['complete']} without and {paper.TABLE_2['pruned']} with pruning; it "
        "does not say over which classes"
    )
    return "Does it help to prune rare classes?", answer, theirs


def _transfer(rows: Sequence[StudyRow], evaluations: EvaluationOf) -> _Answer | None:
    ends = {way_of(row): loss for row in rows if row.curve and (loss := row.curve[-1].val_loss) is not None}
    if len(ends) < 2:
        return None
    best = min(ends, key=lambda name: ends[name])
    losses = ", ".join(f"{name}: {loss:.2f}" for name, loss in ends.items())
    answer = f"The lowest validation loss after the last epoch: {best} ({losses})."
    last = next((row for row in rows if row.transfer == "last"), None)
    for row in rows:
        found = compare(row, last, evaluations) if last and row is not last else None
        if found:
            way = way_of(row)
            answer += f" {way[0].upper()}{way[1:]} compared with the last layer only: {found.words} "
            answer += f"({_range(found)})."
    if any(row.badge in ("partial weights", "random weights") for row in rows):
        answer += " The pretrained weights were not complete, unlike those of the paper."
    return "What should training start from?", answer, "training only the last layer is best"


def _test(rows: Sequence[StudyRow], evaluations: EvaluationOf) -> _Answer | None:
    tests = by_error(rows_of(rows, "test"))
    if not tests or tests[0].val_top1_error is None:
        return None
    row = tests[0]
    other = next((one for one in rows_of(rows, "table3") if one.backbone == row.backbone), None)
    answer = f"{row.label}: error {row.val_top1_error:.3f} on test photos"
    found = compare(row, other, evaluations) if other else None
    if other and found:
        word = "a tie" if found.tie else "a difference beyond the 95 % CI"
        answer += f", {other.val_top1_error:.3f} on validation photos: {word}"
    theirs = f"{paper.TEST_ERROR} on test and {paper.TABLE_3['resnext']} on validation photos"
    return "Does it hold on the test photos, which no choice used?", answer + ".", theirs


def _ensemble(rows: Sequence[StudyRow], evaluations: EvaluationOf) -> _Answer | None:
    together, single = (by_error(rows_of(rows, table)) for table in ("ensemble", "table3"))
    found = compare(together[0], single[0], evaluations) if together and single else None
    if not found:
        return None
    answer = (
        f"The ensemble compared with the best single network ({single[0].label}): {found.words} "
        f"({_range(found)})."
    )
    return "Is an ensemble of the networks better?", answer, "named as future work"


def _epochs(rows: Sequence[StudyRow]) -> _Answer | None:
    parts = []
    for row in rows:
        errors = {one.epoch: one.val_error for one in row.curve}
        last = max(errors, default=0)
        if last > 10 and errors.get(10) is not None and errors[last] is not None:
            parts.append(f"{row.label}: {errors[10]:.3f} after 10, {errors[last]:.3f} after {last}")
    answer = f"Validation error by epochs. {'; '.join(parts)}."
    return ("Does longer training help?", answer, "named as future work") if parts else None


def _literal(rows: Sequence[StudyRow], evaluations: EvaluationOf) -> _Answer | None:
    parts = [
        f"{row.label}: {found.words} ({_range(found)})"
        for row, _, found in literal_pairs(rows, evaluations)
        if found
    ]
    if not parts:
        return None
    return (
        "Does it matter that the last layer is trained on cached features?",
        f"With the network itself run in every epoch instead, {'; '.join(parts)}.",
        "ran the network in every epoch",
    )


def _range(found: Comparison) -> str:
    text = f"error {page.signed(found.value)}"
    if found.interval:
        low, high = (page.signed(end) for end in found.interval)
        text += f", 95 % CI {low} to {high}"
    return text


def _names(rows: Sequence[StudyRow]) -> str:
    names = list(dict.fromkeys(row.label for row in rows))
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
