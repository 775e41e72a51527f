"""Paired differences: each row of a table minus the table's reference, on the same photos."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from fieldmark.evaluation.comparison import difference
from fieldmark.experiments.findings import by_error
from fieldmark.experiments.recipes import Run
from fieldmark.experiments.records import OverPhotos, PairedDifference, StudyRow
from fieldmark.experiments.study.context import StudyContext
from fieldmark.utils.errors import InputError


def differences(context: StudyContext) -> tuple[PairedDifference, ...]:
    """Compare every row with the reference of its table: the first row of the table.

    The reference of an ensemble is the best of its members, chosen by their errors on these photos: the
    comparison rather underestimates the ensemble. Rows that are measured on other photos than their
    reference have no difference.
    """
    return tuple(each for run in context.runs for each in _of_row(context, run))


def _of_row(context: StudyContext, run: Run) -> Iterator[PairedDifference]:
    row = context.rows[run.id]
    reference = _reference(context, row, run)
    if reference.id == row.id:
        return
    load = lru_cache(maxsize=2)(context.evaluation)
    counts, (few, _) = context.data.parts.train_counts(), context.config.bands
    rare = {taxon_id for taxon_id, count in counts.items() if count < few}
    ways: dict[OverPhotos, dict[str, Any]] = {
        "all": {"over": "all"},
        "kept": {},
        "macro": {"macro": True},
        "tail": {"macro": True, "classes": rare},
    }
    for over, options in ways.items():
        try:
            found = difference(load(row.id), load(reference.id), seed=context.seed, **options)
        except InputError:
            continue  # other photos, or none of such a class: nothing to compare
        yield PairedDifference(
            row.table, row.id, reference.id, over, found.value, found.interval, found.photos, found.tie
        )


def _reference(context: StudyContext, row: StudyRow, run: Run) -> StudyRow:
    if run.mode == "ensemble":
        return by_error(context.table(run.members))[0]
    return context.table(row.table)[0]
