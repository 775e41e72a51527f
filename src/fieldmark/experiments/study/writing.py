"""Write the files of a study: `study.json` after every row; the tables and the page at its end."""

from __future__ import annotations

import platform
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from fieldmark import __version__
from fieldmark.data.subset import photo_finder
from fieldmark.experiments.findings import findings
from fieldmark.experiments.recipes import Recipe
from fieldmark.experiments.records import StudyRecord
from fieldmark.experiments.study.comparison import differences
from fieldmark.experiments.study.context import StudyContext
from fieldmark.experiments.study_page import study_page
from fieldmark.utils import io
from fieldmark.utils.cpu import cores
from fieldmark.utils.publishing import Kind
from fieldmark.utils.versions import versions

KIND = Kind(
    "study",
    "rows",
    owned=("scores", "study.json", "photos.parquet", "split.parquet", "report.html"),
    in_place=True,
)
"""Rows and scores are written as soon as they are known, so that a killed study goes on."""


@dataclass(frozen=True)
class Writer:
    """Writes a study.

    Attributes:
        recipe: its recipe.
        command: what was typed, for the page.
    """

    recipe: Recipe
    command: str

    def write(self, context: StudyContext) -> StudyRecord:
        """Write `study.json` with the rows that are known."""
        return _write(context, self._record(context))

    def finish(self, context: StudyContext, seconds: float) -> StudyRecord:
        """Write the tables, the last `study.json`, and the page."""
        table = context.data.dataset.table
        table.write(context.out / "photos.parquet")
        context.data.dataset.split.write(context.out / "split.parquet")
        done = replace(
            self._record(context), finished=True, seconds=seconds, differences=differences(context)
        )
        done = _write(context, replace(done, findings=findings(done.rows, context.evaluation)))
        page = study_page(
            done, photos=photo_finder(table), evaluations=context.evaluation, taxonomy=table.taxonomy
        )
        io.write_text(context.out / "report.html", page)
        return done

    def _record(self, context: StudyContext) -> StudyRecord:
        """The study as far as it is known."""
        return StudyRecord(
            recipe=self.recipe.name,
            title=self.recipe.title,
            command=self.command,
            commit_or_version=__version__,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            finished=False,
            machine={"cores": cores(), "processor": platform.machine(), "system": platform.system()},
            versions=versions(),
            data=context.data.facts,
            rows=tuple(context.rows[run.id] for run in context.runs if run.id in context.rows),
            skipped=tuple(context.networks.skipped),
        )


def _write(context: StudyContext, record: StudyRecord) -> StudyRecord:
    io.write_json(context.out / "study.json", record.to_dict())
    return record
