"""Answers in words to the questions of the tables of `better` and `tuned`.

They say what holds beyond the 95 % CI, and what is a tie.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fieldmark.experiments.records import OverPhotos, StudyRecord, StudyRow

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
    return f"{found.value:+.3f} ({low:+.3f} to {high:+.3f}){', a tie' if found.tie else ''}"


def _rare(_: StudyRecord, rows: Sequence[StudyRow]) -> str:
    first, *methods = rows
    rare, every = first.tail.error, first.val_top1_error
    if not rare or not every:
        return ""
    found: dict[bool, list[str]] = {True: [], False: []}
    for row in methods:
        helped = (row.tail.error or 0.0) / rare - 1
        cost = (row.val_top1_error or 0.0) / every - 1
        text = f"{row.label} ({helped:+.1%} over rare classes, {cost:+.1%} over all photos)"
        found[helped <= -HELPS and cost <= COSTS].append(text)
    answer = (
        f"Reached by the point estimates (intervals are wider), at least {HELPS:.0%} less error over rare "
        f"classes than “{first.label}” at no more than {COSTS:.0%} more mistakes over all photos, "
        f"relatively: {'; '.join(found[True]) or 'by no method'}."
    )
    return f"{answer} Not reached: {'; '.join(found[False])}." if found[False] else answer


def _pruned(study: StudyRecord, rows: Sequence[StudyRow]) -> str:
    first, *others = rows
    better, worse = _certain(study, others, "kept", -1), _certain(study, others, "all", 1)
    return (
        "The question of the paper’s Table 2, what pruning gains and what it costs: on photos of the kept "
        f"classes {len(better)} of {len(others)} rows are better than “{first.label}”"
        f"{_ends(study, better, 'kept')}; over all photos, where one of a class that was left out counts as "
        f"wrong, {len(worse)} of {len(others)} are worse{_ends(study, worse, 'all')}."
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
    return f" ({' to '.join(f'“{label}” {shown[label]}' for label in ends)})" if rows else ""


def _longer(study: StudyRecord, rows: Sequence[StudyRow]) -> str:
    stopped = next((row for row in rows if row.stopped), None)
    most = next((r for r in rows if stopped and not r.stopped and r.epochs == stopped.epochs), None)
    if stopped is None or most is None:
        return ""
    run = [each.epochs for each in stopped.stopped or ()]
    return (
        f"Stopped early after {sum(run) / len(run):.0f} epochs on average ({min(run)} to {max(run)}) of "
        f"at most {stopped.epochs}: beside “{rows[0].label}” {difference(study, stopped, 'all')}; all "
        f"{most.epochs} epochs: {difference(study, most, 'all') or 'the reference'}. It learns from "
        "a tenth fewer photos, which say when to stop, and ends before its learning rate has fallen."
    )


def _tuned(study: StudyRecord, rows: Sequence[StudyRow]) -> str:
    return f"Beside “{rows[0].label}”, over all photos: {_listed(study, rows[1:])}."


def _parts(study: StudyRecord, rows: Sequence[StudyRow]) -> str:
    first, *changed = rows
    worse, better = _certain(study, changed, "all", 1), _certain(study, changed, "all", -1)
    ties = [row for row in changed if row not in worse and row not in better]
    sentences = [f"Beside “{first.label}”, over all photos:"]
    for word, found in (("more", worse), ("fewer", better)):
        if found:
            sentences.append(f"{word} mistakes: {_listed(study, found[::-1])}.")
    if ties:
        sentences.append(f"Ties: {'; '.join(row.label for row in ties)}.")
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
