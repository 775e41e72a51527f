"""What a study leaves: `study.json` after every row; the tables and the page at its end."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from datetime import UTC, datetime

from fieldmark import __version__
from fieldmark.data.subset import photo_finder
from fieldmark.experiments.findings import findings
from fieldmark.experiments.recipes import Recipe
from fieldmark.experiments.study.comparison import differences
from fieldmark.experiments.study.context import Row, Work
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
    """Writes a study down.

    Attributes:
        recipe: which recipe is followed.
        command: what was typed, for the page.
    """

    recipe: Recipe
    command: str

    def write(self, work: Work, seconds: float | None) -> Row:
        """`study.json` with the rows that are known; `seconds` of the whole where it is done."""
        found = [work.rows[run.id] for run in work.runs if run.id in work.rows]
        content: Row = {
            "recipe": self.recipe.name,
            "title": self.recipe.title,
            "command": self.command,
            "commit_or_version": __version__,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "finished": seconds is not None,
            "seconds": seconds,
            "machine": {
                "cores": cores(),
                "processor": platform.machine(),
                "system": platform.system(),
            },
            "versions": versions(),
            "data": work.data.summary,
            "rows": found,
            "skipped": work.networks.skipped,
            "differences": differences(work) if seconds is not None else [],
        }
        if seconds is not None:
            content["findings"] = [
                {"question": question, "answer": answer, "paper": theirs}
                for question, answer, theirs in findings(content, work.evaluation)
            ]
        io.write_json(work.out / "study.json", content)
        return content

    def finish(self, work: Work, seconds: float) -> Row:
        """Write what is left: the tables, the last `study.json`, and the page."""
        table = work.data.table
        table.write(work.out / "photos.parquet")
        work.data.split.write(work.out / "split.parquet")
        content = self.write(work, seconds)
        page = study_page(
            content,
            photos=photo_finder(table),
            evaluations=work.evaluation,
            taxonomy=table.taxonomy,
        )
        io.write_text(work.out / "report.html", page)
        return content
