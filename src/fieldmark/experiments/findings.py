"""The findings of a study in sentences: which network is best, what helps, and how certain that is.

A sentence never claims more than the 95 % CI allows: a difference whose interval contains zero is called
a tie, and a network without complete pretrained weights is never ranked with those that have them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import NamedTuple

from fieldmark.evaluation.comparison import difference
from fieldmark.evaluation.results import Evaluation, Over
from fieldmark.experiments import paper
from fieldmark.experiments.records import Finding, StudyRecord, StudyRow
from fieldmark.reports import page
from fieldmark.utils.errors import InputError
from fieldmark.utils.languages import number, say, say_count, to_say

EvaluationOf = Callable[[str], Evaluation | None]

_TRANSFER = {
    "scratch": to_say("from scratch"),
    "all": to_say("all layers from pretrained weights"),
    "last": to_say("last layer only, the rest frozen"),
}


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
            return say("a tie")
        return say("a lower error") if self.value < 0 else say("a higher error")

    @property
    def numbers(self) -> str:
        """The difference with its interval."""
        value = page.signed(self.value)
        if self.interval:
            return say(
                "error {value}, 95 % CI {interval}", value=value, interval=page.signed_interval(self.interval)
            )
        return say("error {value}", value=value)


class Pruning(NamedTuple):
    """The two rows of Table 2, and the pruned one minus the complete one over photos of kept classes and
    over all photos."""

    complete: StudyRow
    pruned: StudyRow
    kept: Comparison | None
    all: Comparison | None

    @property
    def complete_on_kept(self) -> float | None:
        """The error of the complete row over photos of kept classes, where it was measured."""
        error, kept = self.pruned.val_top1_error, self.kept
        return error - kept.value if kept and kept.interval and error is not None else None


class Ranking(NamedTuple):
    """The rows of Table 3 that can be ranked, the best first, and those that cannot."""

    best: StudyRow | None  # the lowest error; None where no row can be ranked
    ties: list[StudyRow]  # whose difference to the best one is a tie
    others: list[StudyRow]  # the others from complete pretrained weights
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
    best, *rest = able
    ties = [row for row in rest if (found := compare(row, best, evaluations)) and found.tie]
    return Ranking(best, ties, [row for row in rest if row not in ties], unranked)


def headline(ranking: Ranking) -> list[str]:
    """Answer "which network is best?" in at most three sentences."""
    best, ties, others, unranked = ranking
    sentences = []
    if best is not None:
        assert best.val_top1_error is not None  # only such rows are ranked
        share = page.right(best.val_top1_error)
        if best.val_top1_error_interval:
            share = say(
                "{share} of the photos right ({interval})",
                share=share,
                interval=page.right_interval(best.val_top1_error_interval),
            )
        else:
            share = say("{share} of the photos right", share=share)
        if ties:
            found = say(
                "{network} names {share}; the difference to {others} is a tie.",
                network=best.label,
                share=share,
                others=_names(ties),
            )
        elif others:
            found = say(
                "{network} has the lowest error here: it names {share}.", network=best.label, share=share
            )
        else:
            found = say(
                "{network}, the only network here with complete pretrained weights, names {share}.",
                network=best.label,
                share=share,
            )
        sentences.append(found)
    elif unranked:
        sentences.append(
            say("No network had complete pretrained weights, so this study cannot say which network is best.")
        )
    if unranked:
        sentences.append(
            say_count(
                "{networks} was not run from complete pretrained weights and cannot be ranked with the "
                "others.",
                "{networks} were not run from complete pretrained weights and cannot be ranked with the "
                "others.",
                len(unranked),
                networks=_names(unranked),
            )
        )
    return sentences


def findings(study: StudyRecord, evaluations: EvaluationOf) -> tuple[Finding, ...]:
    """Answer the question of each part of the study that was run."""
    answers = (_pruning, _transfer, _test, _ensemble, _epochs, _literal, _boxes)
    return tuple(found for answer in answers if (found := answer(study, evaluations)))


def transfer_words(row: StudyRow) -> str:
    """Return what the training of a row started from, in words."""
    return say(_TRANSFER[row.transfer]) if row.transfer in _TRANSFER else row.transfer


def pruning(study: StudyRecord, evaluations: EvaluationOf) -> Pruning | None:
    """Compare the first complete and the first pruned row of Table 2."""
    rows = study.table("table2")
    complete = next((row for row in rows if not row.pruned), None)
    pruned = next((row for row in rows if row.pruned), None)
    if complete is None or pruned is None:
        return None
    kept, over_all = (compare(pruned, complete, evaluations, over) for over in ("kept", "all"))
    return Pruning(complete, pruned, kept, over_all)


def tested(study: StudyRecord) -> list[tuple[StudyRow, StudyRow | None]]:
    """Return the rows on the test part, each with that of the same network on the validation part."""
    validation = {row.backbone: row for row in study.table("table3")}
    return [(row, validation.get(row.backbone)) for row in by_error(study.table("test"))]


def literal(
    study: StudyRecord, evaluations: EvaluationOf
) -> Iterator[tuple[StudyRow, StudyRow | None, Comparison | None]]:
    """Yield each row that ran the network itself, its row on cached features, and their difference."""
    training = attrgetter("backbone", "transfer", "pruned", "epochs")
    tables = ("table3", "figure4", "table2")
    cached = [each for each in study.rows if each.mode == "cached" and each.table in tables]
    for row in study.table("literal"):
        same = next((each for each in cached if training(each) == training(row)), None)
        yield row, same, compare(row, same, evaluations) if same else None


def _pruning(study: StudyRecord, evaluations: EvaluationOf) -> Finding | None:
    found = pruning(study, evaluations)
    if not found or not found.kept or not found.all:
        return None
    return Finding(
        say("Does it help to prune rare classes?"),
        say(
            "On photos of the kept classes: {kept} after pruning ({kept_numbers}). On all photos, where "
            "every photo of a pruned class counts as wrong: {all} ({all_numbers}).",
            kept=found.kept.words,
            kept_numbers=found.kept.numbers,
            all=found.all.words,
            all_numbers=found.all.numbers,
        ),
        say(
            "error {complete} without and {pruned} with pruning; it does not say over which classes",
            complete=page.exact(paper.TABLE_2["complete"]),
            pruned=page.exact(paper.TABLE_2["pruned"]),
        ),
    )


def _transfer(study: StudyRecord, evaluations: EvaluationOf) -> Finding | None:
    rows = study.table("figure4")
    curves = [(transfer_words(row), row.curve[-1].val_loss) for row in rows if row.curve]
    ends = {way: loss for way, loss in curves if loss is not None}
    if len(ends) < 2:
        return None
    losses = ", ".join(f"{way}: {number(loss, 2)}" for way, loss in ends.items())
    answer = say(
        "The lowest validation loss after the last epoch: {best} ({losses}).",
        best=min(ends, key=ends.__getitem__),
        losses=losses,
    )
    last = next((row for row in rows if row.transfer == "last"), None)
    for row in rows:
        if last and row is not last and (found := compare(row, last, evaluations)):
            way = transfer_words(row)
            answer += " " + say(
                "{way} compared with the last layer only: {words} ({numbers}).",
                way=f"{way[0].upper()}{way[1:]}",
                words=found.words,
                numbers=found.numbers,
            )
    if any(row.badge in ("partial weights", "random weights") for row in rows):
        answer += " " + say("The pretrained weights were not complete, unlike those of the paper.")
    question = say("What should training start from?")
    return Finding(question, answer, say("training only the last layer is best"))


def _test(study: StudyRecord, evaluations: EvaluationOf) -> Finding | None:
    row, other = next(iter(tested(study)), (None, None))
    if row is None or row.val_top1_error is None:
        return None
    answer = say(
        "{network}: error {error} on test photos.", network=row.label, error=number(row.val_top1_error, 3)
    )
    if other and other.val_top1_error is not None and (found := compare(row, other, evaluations)):
        answer = say(
            "{network}: error {error} on test photos, {validation} on validation photos: {verdict}.",
            network=row.label,
            error=number(row.val_top1_error, 3),
            validation=number(other.val_top1_error, 3),
            verdict=say("a tie") if found.tie else say("a difference beyond the 95 % CI"),
        )
    theirs = say(
        "{test} on test and {validation} on validation photos",
        test=page.exact(paper.TEST_ERROR),
        validation=page.exact(paper.TABLE_3["resnext"]),
    )
    return Finding(say("Does it hold on the test photos, which no choice used?"), answer, theirs)


def _ensemble(study: StudyRecord, evaluations: EvaluationOf) -> Finding | None:
    together, single = by_error(study.table("ensemble")), by_error(study.table("table3"))
    found = compare(together[0], single[0], evaluations) if together and single else None
    if not found:
        return None
    return Finding(
        say("Is an ensemble of the networks better?"),
        say(
            "The ensemble compared with the best single network ({network}): {words} ({numbers}).",
            network=single[0].label,
            words=found.words,
            numbers=found.numbers,
        ),
        say("named as future work"),
    )


def _epochs(study: StudyRecord, _: EvaluationOf) -> Finding | None:
    parts = []
    for row in study.table("epochs"):
        errors = {one.epoch: one.val_error for one in row.curve}
        last = max(errors, default=0)
        early, late = errors.get(10), errors.get(last)
        if last > 10 and early is not None and late is not None:
            parts.append(
                say(
                    "{network}: {before} after {some}, {after} after {all}",
                    network=row.label,
                    before=number(early, 3),
                    some=10,
                    after=number(late, 3),
                    all=last,
                )
            )
    answer = say("Validation error by epochs. {networks}.", networks="; ".join(parts))
    question, theirs = say("Does longer training help?"), say("named as future work")
    return Finding(question, answer, theirs) if parts else None


def _literal(study: StudyRecord, evaluations: EvaluationOf) -> Finding | None:
    found = [(row.label, each) for row, _, each in literal(study, evaluations) if each]
    parts = "; ".join(f"{label}: {each.words} ({each.numbers})" for label, each in found)
    return (
        Finding(
            say("Does it matter that the last layer is trained on cached features?"),
            say("With the network itself run in every epoch instead, {found}.", found=parts),
            say("ran the network in every epoch"),
        )
        if parts
        else None
    )


def _boxes(study: StudyRecord, _: EvaluationOf) -> Finding | None:
    """Compare boxes with the whole photos that they are of, by the paired differences of finished studies."""
    parts = []
    for each in study.differences:
        if each.over == "all" and each.reference == f"{each.row}-whole-photos":
            found = Comparison(each.value, each.interval, each.tie)
            where = say("new places") if "new-places" in each.row else say("known places")
            parts.append(f"{where}: {found.words} ({found.numbers})")
    if not parts:
        return None
    answer = say("Boxes compared with the whole photos: {found}.", found="; ".join(parts))
    return Finding(say("Does it help to cut photos to boxes?"), answer, "")


def _names(rows: Sequence[StudyRow]) -> str:
    *names, last = dict.fromkeys(row.label for row in rows)
    return say("{names} and {last}", names=", ".join(names), last=last) if names else last
