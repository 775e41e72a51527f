"""Write the files of a study: `study.json` after every row; the tables and the page at its end."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from fieldmark import __version__
from fieldmark.data.subset import photo_finder
from fieldmark.evaluation.comparison import difference
from fieldmark.experiments.findings import by_error, findings
from fieldmark.experiments.records import OverPhotos, PairedDifference, StudyRecord
from fieldmark.experiments.runs import Run
from fieldmark.experiments.study.context import StudyContext
from fieldmark.experiments.study_page import study_page
from fieldmark.utils import io
from fieldmark.utils.cpu import cores
from fieldmark.utils.errors import InputError
from fieldmark.utils.languages import speaking
from fieldmark.utils.publishing import Kind
from fieldmark.utils.versions import versions

KIND = Kind(
    "study",
    "rows",
    owned=("scores", "networks", "study.json", "photos.parquet", "split.parquet", "report.html"),
    in_place=True,
)
"""Rows and scores are written as soon as they are known, so that a killed study goes on."""


def write(context: StudyContext) -> None:
    """Write `study.json` with the rows that are known."""
    io.write_json(context.out / "study.json", _record(context).to_dict())


def finish(context: StudyContext, seconds: float) -> StudyRecord:
    """Write the tables, the last `study.json`, and the page."""
    table, known, evaluations = context.data.dataset.table, _record(context), context.evaluation
    table.write(context.out / "photos.parquet")
    context.data.dataset.split.write(context.out / "split.parquet")
    done = replace(
        known,
        finished=True,
        seconds=seconds,
        differences=tuple(each for run in context.runs for each in _differences(context, run)),
        findings=findings(known, evaluations),
    )
    io.write_json(context.out / "study.json", done.to_dict())
    with speaking(context.config.language):
        page = study_page(done, photos=photo_finder(table), evaluations=evaluations, taxonomy=table.taxonomy)
    io.write_text(context.out / "report.html", page)
    return done


def _record(context: StudyContext) -> StudyRecord:
    return StudyRecord(
        recipe=context.recipe.name,
        title=context.recipe.title,
        command=context.command,
        commit_or_version=__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        finished=False,
        machine={"cores": cores(), "processor": platform.machine(), "system": platform.system()},
        versions=versions(),
        data=context.data.facts,
        rows=context.known,
        skipped=tuple(context.networks.skipped),
    )


def _differences(context: StudyContext, run: Run) -> Iterator[PairedDifference]:
    """A row minus the reference of its table, the table's first row, on the same photos.

    The reference of an ensemble is the best of its members, chosen by their errors on these photos: the
    comparison rather underestimates the ensemble. Rows that are measured on other photos than their
    reference have no difference.
    """
    row, together = context.rows[run.id], run.mode == "ensemble"
    reference = (by_error(context.table(run.members)) if together else context.table(row.table))[0]
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
