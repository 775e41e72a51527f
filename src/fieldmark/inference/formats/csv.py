"""CSV (RFC 4180): a row a label, or with `wide` a row a photo and a column a label."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence

from fieldmark.inference.formats.base import FormatOptions, Writer
from fieldmark.inference.formats.table import columns, rows
from fieldmark.inference.record import Record


def _lines(records: Iterable[Record], options: FormatOptions) -> Iterator[str]:
    yield csv_line(columns(options.taxonomy, wide=options.wide))
    for record in records:
        for row in rows(record, options.taxonomy, wide=options.wide):
            yield csv_line(["" if each is None else _plain(each) for each in row])


def _plain(value: object) -> object:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6f}" if isinstance(value, float) else value


def csv_line(values: Sequence[object]) -> str:
    """Return one row as text, without its line end."""
    line = io.StringIO()
    # `csv` quotes values that contain a character of the line end, so both characters are set.
    csv.writer(line, lineterminator="\r\n").writerow(values)
    return line.getvalue().removesuffix("\r\n")


CSV = Writer.of_lines("csv", ".csv", _lines, end="\r\n", wide=True)
