"""Each row of a table beside the table's first, photo by photo."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fieldmark.evaluation.comparison import difference
from fieldmark.evaluation.results import Evaluation
from fieldmark.experiments.findings import by_error
from fieldmark.experiments.study.context import Row, Work
from fieldmark.utils.errors import InputError

PAIRED = ("head", "tail", "tuned", "early")


def differences(work: Work) -> list[dict[str, Any]]:
    """The paired differences of all tables whose rows speak of the same photos.

    An ensemble is compared with the best of its members, chosen by their errors on these photos: the
    comparison is then rather too hard on the ensemble than too kind.

    Returns:
        For each row and kind `over` (`all` photos; photos of `kept` classes; `macro`: classes alike;
        `tail`: rare classes alike): `table`, `row`, `reference`, `over`, `value`, `interval`, `photos`
        and `tie`.
    """
    found = []
    for run in work.runs:
        row = work.rows[run.id]
        reference = _reference(work, row, run.members)
        if reference is None or reference["id"] == row["id"]:
            continue
        pair = work.evaluation(row["id"]), work.evaluation(reference["id"])
        for over, each in _compared(work, *pair):
            about = {"table": row["table"], "row": row["id"], "reference": reference["id"]}
            found.append({**about, "over": over, **each})
    return found


def _reference(work: Work, row: Row, members: str) -> Row | None:
    if row["mode"] == "ensemble" and row["part"] == "cross":
        return by_error(work.table(members))[0]
    return work.table(row["table"])[0] if row["mode"] in PAIRED else None


def _compared(work: Work, one: Evaluation, other: Evaluation) -> Iterator[tuple[str, Row]]:
    counts, (few, _) = work.data.parts.train_counts(), work.config.bands
    rare = {taxon_id for taxon_id, count in counts.items() if count < few}
    ways: dict[str, dict[str, Any]] = {
        "all": {"over": "all"},
        "kept": {},
        "macro": {"macro": True},
        "tail": {"macro": True, "classes": rare},
    }
    for name, how in ways.items():
        try:
            found = difference(one, other, seed=work.seed, **how)
        except InputError:
            continue  # no photo of such a class: nothing to compare
        yield (
            name,
            {
                "value": found.value,
                "interval": list(found.interval),
                "photos": found.photos,
                "tie": found.tie,
            },
        )
