"""A check's folder, and what is said of it in the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fieldmark import reports
from fieldmark.curation.config import CheckConfig, Checked
from fieldmark.data.photos import PhotoTable
from fieldmark.data.subset import photo_finder
from fieldmark.utils import io
from fieldmark.utils.publishing import Kind, publishing

KIND = Kind("check", "findings.json", ("checked.parquet", "findings.parquet", "report.html"))


def write(
    out: Path, checked: Checked, table: PhotoTable, config: CheckConfig, command: str
) -> None:
    """Publish table, findings and page."""
    page = reports.check_page(
        checked.findings,
        checked.summary,
        taxonomy=table.taxonomy,
        photos=photo_finder(table),
        about={
            "name": str(table.root),
            "command": command,
            "dropped": checked.table.reasons(),
            "dark": config.dark,
            "blurred": config.blurred,
            "tiny": config.tiny,
            "rotated": config.rotated,
        },
    )
    with publishing(out, KIND) as staging:
        checked.table.write(staging / "checked.parquet")
        with io.replacing(staging / "findings.parquet") as temporary:
            checked.findings.write_parquet(temporary)
        io.write_text(staging / "report.html", page)
        io.write_json(staging / "findings.json", checked.summary)


def lines(checked: Checked) -> Iterator[str]:
    """What was found, for the terminal."""
    said: dict[str, Any] = checked.summary
    yield f"{said['photos']:,} photos looked at, {said['labelled']:,} with a label"
    yield f"  {said['duplicates']:,} more copies of the same bytes (duplicates)"
    yield f"  {said['near-duplicates']:,} more copies that look the same (near-duplicates)"
    yield f"  {said['twins_with_other_labels']:,} copies whose labels differ"
    yield f"  {said['leaking']:,} photos that belong together across parts (leaks)"
    yield f"  {said['labels']:,} labels that are probably wrong (labels)"
    yield (
        f"  {said['dark']:,} dark, {said['blurred']:,} blurred, {said['tiny']:,} tiny, "
        f"{said['rotated']:,} rotated"
    )
    kept = checked.table.kept.height
    yield f"{kept:,} of {len(checked.table):,} photos are kept in the table"
