"""Plain answers to the questions that the tables of `better` and `tuned` are there for, read off their
rows: what holds within the intervals, and what is a tie."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]

HELPS, COSTS = 0.10, 0.02
"""A method for rare classes is worth it if it takes off a tenth of their error, relatively, and adds
no more than a fiftieth to the mistakes over all photos."""


def of(study: Row, table: str) -> str:
    """The answer to a table's question, in whole sentences; "" where it has none.

    Args:
        study: the content of `study.json`, finished.
        table: the name of a table whose rows are in it.
    """
    rows = [row for row in study["rows"] if row["table"] == table]
    return ANSWERS[table](study, rows) if table in ANSWERS and len(rows) > 1 else ""


def less(study: Row, row: Row, over: str) -> str:
    """The paired difference to the table's reference with its interval; a tie is called one.

    Empty where nothing was compared.
    """
    for each in study.get("differences") or []:
        if each["row"] == row["id"] and each["over"] == over:
            low, high = each["interval"]
            word = ", a tie" if each["tie"] else ""
            return f"{each['value']:+.3f} ({low:+.3f} to {high:+.3f}){word}"
    return ""


def _rare(_: Row, rows: Sequence[Row]) -> str:
    first, *methods = rows
    rare, every = first["bands"]["tail"]["error"], first["val_top1_error"]
    if not rare or not every:
        return ""
    good: list[str] = []
    rest: list[str] = []
    for row in methods:
        helped = row["bands"]["tail"]["error"] / rare - 1
        cost = row["val_top1_error"] / every - 1
        said = f"{row['label']} ({helped:+.1%} over rare classes, {cost:+.1%} over all photos)"
        (good if helped <= -HELPS and cost <= COSTS else rest).append(said)
    aim = (
        f"at least {HELPS:.0%} less error over rare classes than “{first['label']}” at no more than "
        f"{COSTS:.0%} more mistakes over all photos, relatively"
    )
    met = "; ".join(good) or "by no method"
    parts = [f"Reached by the point estimates (intervals are wider), {aim}: {met}."]
    return " ".join([*parts, f"Not reached: {'; '.join(rest)}."] if rest else parts)


def _pruned(study: Row, rows: Sequence[Row]) -> str:
    first, *others = rows
    parts = ["The question of the paper’s Table 2, what pruning gains and what it costs:"]
    better = _sure(study, others, "kept", -1)
    said = f"on photos of the kept classes {len(better)} of {len(others)} rows are better than "
    parts.append(f"{said}“{first['label']}”{_most(study, better, 'kept')};")
    worse = _sure(study, others, "all", 1)
    parts.append(
        "over all photos, where one of a class that was left out counts as wrong, "
        f"{len(worse)} of {len(others)} are worse{_most(study, worse, 'all')}."
    )
    return " ".join(parts)


def _sure(study: Row, rows: Sequence[Row], over: str, sign: int) -> list[Row]:
    """The rows whose difference has this sign beyond its interval, the smallest first."""
    found = {each["row"]: each for each in study.get("differences") or [] if each["over"] == over}
    own = [row for row in rows if row["id"] in found and not found[row["id"]]["tie"]]
    sized = {row["id"]: sign * found[row["id"]]["value"] for row in own}
    return sorted((r for r in own if sized[r["id"]] > 0), key=lambda row: sized[row["id"]])


def _most(study: Row, rows: Sequence[Row], over: str) -> str:
    """The row with the smallest and the one with the largest difference."""
    ends = list(dict.fromkeys(row["label"] for row in (*rows[:1], *rows[-1:])))
    shown = {row["label"]: less(study, row, over) for row in rows}
    return f" ({' to '.join(f'“{label}” {shown[label]}' for label in ends)})" if rows else ""


def _longer(study: Row, rows: Sequence[Row]) -> str:
    stopped = next((row for row in rows if row.get("stopped")), None)
    most = next(
        (r for r in rows if stopped and not r.get("stopped") and _as_long(r, stopped)), None
    )
    if stopped is None or most is None:
        return ""
    run = [each["epochs"] for each in stopped["stopped"]]
    return (
        f"Stopped early after {sum(run) / len(run):.0f} epochs on average ({min(run)} to {max(run)}) of "
        f"at most {stopped['epochs']}: beside “{rows[0]['label']}” {less(study, stopped, 'all')}; all "
        f"{most['epochs']} epochs: {less(study, most, 'all') or 'the reference'}. It learns from "
        "a tenth fewer photos, which say when to stop, and ends before its learning rate has fallen."
    )


def _as_long(row: Row, stopped: Row) -> bool:
    return bool(row["epochs"] == stopped["epochs"])


def _tuned(study: Row, rows: Sequence[Row]) -> str:
    each = (f"{row['label']}: {less(study, row, 'all')}" for row in rows[1:])
    return f"Beside “{rows[0]['label']}”, over all photos: {'; '.join(each)}."


def _parts(study: Row, rows: Sequence[Row]) -> str:
    first, *changed = rows
    worse, better = _sure(study, changed, "all", 1), _sure(study, changed, "all", -1)
    ties = [row for row in changed if row not in worse and row not in better]
    said = [f"Beside “{first['label']}”, over all photos:"]
    for word, found in (("more", worse), ("fewer", better)):
        if found:
            each = (f"{row['label']}: {less(study, row, 'all')}" for row in reversed(found))
            said.append(f"{word} mistakes: {'; '.join(each)}.")
    if ties:
        said.append(f"Ties: {'; '.join(row['label'] for row in ties)}.")
    return " ".join(said)


ANSWERS: dict[str, Callable[[Row, Sequence[Row]], str]] = {
    "tail": _rare,
    "tail-test": _rare,
    "prune": _pruned,
    "epochs": _longer,
    "tuned": _tuned,
    "parts": _parts,
}
