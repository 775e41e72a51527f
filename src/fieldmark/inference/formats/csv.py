"""CSV (RFC 4180): a row a candidate, or with `wide` a row a photo and a column a label."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from fieldmark.inference.formats.base import FormatOptions, Writer, write_lines
from fieldmark.inference.formats.table import columns, rows
from fieldmark.inference.record import Record


def _lines(entries: Iterable[Record], form: FormatOptions) -> Iterator[str]:
    yield csv_line(columns(form.taxonomy, wide=form.wide))
    for value in entries:
        for row in rows(value, form.taxonomy, wide=form.wide):
            yield csv_line(["" if each is None else _plain(each) for each in row])


def _write(path: Path, entries: Iterable[Record], form: FormatOptions) -> None:
    write_lines(path, _lines(entries, form), "\r\n")


def _plain(value: object) -> object:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6f}" if isinstance(value, float) else value


def csv_line(values: Sequence[object]) -> str:
    """One row, without the end of its line."""
    line = io.StringIO()
    # The module quotes what holds a character of the line's end, so it has to be told of both.
    csv.writer(line, lineterminator="\r\n").writerow(values)
    return line.getvalue().removesuffix("\r\n")


CSV = Writer("csv", ".csv", wide=True, write=_write, lines=_lines)
