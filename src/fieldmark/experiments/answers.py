"""Answers in words to the questions of the tables of `better` and `tuned`.

They say what holds beyond the 95 % CI, and what is a tie.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fieldmark.experiments.records import OverPhotos, StudyRecord, StudyRow
from fieldmark.utils.languages import number, say

HELPS, COSTS = 0.10, 0.02
"""A method for rare classes is worth it if it lowers their error by a tenth, relatively, and raises the
error over all photos by no more than a fiftieth."""


def of(study: StudyRecord, table: str) -> str:
    """Return the answer of a finished study to a table's question, in sentences; "" where it has none."""
    rows = study.table(table)
    return ANSWERS[table](study, rows) if table in ANSWERS and len(rows) > 1 else ""


def difference(study: StudyRecord, row: StudyRow, over: OverPhotos) -> str:
    """Return the paired difference to the table's reference with its 95 % CI, or "" if there is none."""
    found = study.difference(row.id, over)
    if found is None:
        return ""
    low, high = found.interval
    shown = {"value": number(found.value, 3, "+"), "low": number(low, 3, "+"), "high": number(high, 3, "+")}
    return (
        say("{value} ({low} to {high}), a tie", **shown)
        if found.tie
        else say("{value} ({low} to {high})", **shown)
    )


def _rare(_: StudyRecord, rows: Sequence[StudyRow]) -> str:
    first, *methods = rows
    rare, every = first.tail.error, first.val_top1_error
    if not rare or not every:
        return ""
    found: dict[bool, list[str]] = {True: [], False: []}
    for row in methods:
        helped = (row.tail.error or 0.0) / rare - 1
        cost = (row.val_top1_error or 0.0) / every - 1
        text = say(
            "{method} ({rare} over rare classes, {all} over all photos)",
            method=row.label,
            rare=_change(helped),
            all=_change(cost),
        )
        found[helped <= -HELPS and cost <= COSTS].append(text)
    answer = say(
        "Reached by the point estimates (intervals are wider), at least {less} less error over rare classes "
        "than “{reference}” at no more than {more} more mistakes over all photos, relatively: {methods}.",
        less=_share(HELPS),
        reference=first.label,
        more=_share(COSTS),
        methods="; ".join(found[True]) or say("by no method"),
    )
    others = "; ".join(found[False])
    return f"{answer} {say('Not reached: {methods}.', methods=others)}" if others else answer


def _share(value: float) -> str:
    return f"{number(100 * value)}%"


def _change(value: float) -> str:
    return f"{number(100 * value, 1, '+')}%"


def _pruned(study: StudyRecord, rows: Sequence[StudyRow]) -> str:
    first, *others = rows
    better, worse = _certain(study, others, "kept", -1), _certain(study, others, "all", 1)
    return say(
        "The question of the paper’s Table 2, what pruning gains and what it costs: on photos of the kept "
        "classes {better} of {rows} rows are better than “{reference}”{best}; over all photos, where one of "
        "a class that was left out counts as wrong, {worse} of {rows} are worse{worst}.",
        better=len(better),
        rows=len(others),
        reference=first.label,
        best=_ends(study, better, "kept"),
        worse=len(worse),
        worst=_ends(study, worse, "all"),
    )


def _certain(study: StudyRecord, rows: Sequence[StudyRow], over: OverPhotos, sign: int) -> list[StudyRow]:
    """The rows whose difference has this sign and is no tie, the smallest first."""
    found = [(study.difference(row.id, over), row) for row in rows]
    sized = [(sign * each.value, row) for each, row in found if each and not each.tie]
    return [row for value, row in sorted(sized, key=lambda each: each[0]) if value > 0]


def _ends(study: StudyRecord, rows: Sequence[StudyRow], over: OverPhotos) -> str:
    """The row with the smallest and the one with the largest difference."""
    ends = list(dict.fromkeys(row.label for row in (*rows[:1], *rows[-1:])))
    shown = {row.label: difference(study, row, over) for row in rows}
    each = [say("“{method}” {difference}", method=label, difference=shown[label]) for label in ends]
    both = say("{low} to {high}", low=each[0], high=each[1]) if len(each) == 2 else "".join(each)
    return f" ({both})" if rows else ""


def _longer(study: StudyRecord, rows: Sequence[StudyRow]) -> str:
    stopped = next((row for row in rows if row.stopped), None)
    most = next((r for r in rows if stopped and not r.stopped and r.epochs == stopped.epochs), None)
    if stopped is None or most is None:
        return ""
    run = [each.epochs for each in stopped.stopped or ()]
    return say(
        "Stopped early after {mean} epochs on average ({fewest} to {most}) of at most {allowed}: beside "
        "“{reference}” {early}; all {all} epochs: {late}. It learns from a tenth fewer photos, which say "
        "when to stop, and ends before its learning rate has fallen.",
        mean=number(sum(run) / len(run)),
        fewest=min(run),
        most=max(run),
        allowed=stopped.epochs,
        reference=rows[0].label,
        early=difference(study, stopped, "all"),
        all=most.epochs,
        late=difference(study, most, "all") or say("the reference"),
    )


def _tuned(study: StudyRecord, rows: Sequence[StudyRow]) -> str:
    listed = _listed(study, rows[1:])
    return say("Beside “{reference}”, over all photos: {rows}.", reference=rows[0].label, rows=listed)


def _parts(study: StudyRecord, rows: Sequence[StudyRow]) -> str:
    first, *changed = rows
    worse, better = _certain(study, changed, "all", 1), _certain(study, changed, "all", -1)
    ties = [row for row in changed if row not in worse and row not in better]
    sentences = [say("Beside “{reference}”, over all photos:", reference=first.label)]
    if worse:
        sentences.append(say("more mistakes: {rows}.", rows=_listed(study, worse[::-1])))
    if better:
        sentences.append(say("fewer mistakes: {rows}.", rows=_listed(study, better[::-1])))
    if ties:
        sentences.append(say("Ties: {rows}.", rows="; ".join(row.label for row in ties)))
    return " ".join(sentences)


def _listed(study: StudyRecord, rows: Sequence[StudyRow]) -> str:
    return "; ".join(f"{row.label}: {difference(study, row, 'all')}" for row in rows)


ANSWERS: dict[str, Callable[[StudyRecord, Sequence[StudyRow]], str]] = {
    "tail": _rare,
    "tail-test": _rare,
    "prune": _pruned,
    "epochs": _longer,
    "tuned": _tuned,
    "parts": _parts,
}
