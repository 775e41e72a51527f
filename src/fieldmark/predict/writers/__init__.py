"""Forms of output, one file each; a new one is a file here and a line in `WRITERS`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from fieldmark.errors import InputError
from fieldmark.predict.entry import entry
from fieldmark.predict.naming import Named
from fieldmark.predict.text import as_text
from fieldmark.predict.writers.base import Form, Writer
from fieldmark.predict.writers.csv_ import CSV
from fieldmark.predict.writers.json_lines import JSON_LINES
from fieldmark.predict.writers.parquet import PARQUET
from fieldmark.taxonomy import Taxonomy

WRITERS: dict[str, Writer] = {writer.name: writer for writer in (CSV, JSON_LINES, PARQUET)}

__all__ = ["WRITERS", "Form", "Writer", "lines", "writer_of"]


def writer_of(path: Path, *, wide: bool) -> Writer:
    """The form that a file's name asks for.

    Raises:
        InputError: there is none with its suffix, or none with a column a label.
    """
    suffixes = {writer.suffix: writer for writer in WRITERS.values()}
    if path.suffix not in suffixes:
        *most, last = suffixes
        raise InputError(f"{path} should end in {', '.join(most)} or {last}.")
    if wide and not suffixes[path.suffix].wide:
        raise InputError(f"--wide is a column a label, which {path.suffix} has not: use .csv.")
    return suffixes[path.suffix]


def lines(
    form: str, results: Iterable[Named], taxonomy: Taxonomy, *, wide: bool = False
) -> Iterator[str]:
    """What is printed of results: as `text`, or in a form that has lines."""
    if form == "text":
        return as_text(results)
    asked = Form(taxonomy, wide)
    entries = (entry(result, len(taxonomy), wide=wide) for result in results)
    to_lines = WRITERS[form].lines
    if to_lines is None:
        raise InputError(f"{form} cannot be printed: name a file with --out.")
    return to_lines(entries, asked)
