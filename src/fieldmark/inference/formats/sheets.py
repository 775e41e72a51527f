"""Tables for people, as CSV (RFC 4180) and as sheets of Excel: no formulas, real dates, widths that fit."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldmark.inference.formats.base import csv_line
from fieldmark.utils import io
from fieldmark.utils.errors import InputError
from fieldmark.utils.printable import printable

if TYPE_CHECKING:
    from xlsxwriter import Workbook

Row = Sequence[Any]
"""The values of a row; None for a missing one."""

START, END = codecs.BOM_UTF8, "\r\n"
"""What a file of CSV begins with, so that Excel reads it as UTF-8, and the end of its lines."""
MOST_ROWS = 1_048_575
"""How many rows a sheet of Excel holds below the names of its columns."""
_MOST_COLUMNS = 16_384
_MOST_CHARACTERS = 32_767  # of a cell
_LONGEST = 60  # characters that a column of a sheet is wide
_FORMS = {date: "yyyy-mm-dd", datetime: "yyyy-mm-dd hh:mm:ss"}


def plain(value: object) -> object:
    """Return a cell of CSV for programs: scores have six digits."""
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case float():
            return f"{value:.6f}"
        case _:
            return value


def short(value: object) -> object:
    """Return a cell of CSV for people: no zeros at the end, times as every spreadsheet reads them."""
    if isinstance(value, float):
        return f"{value:.6f}".rstrip("0").rstrip(".")
    return value.isoformat(" ") if isinstance(value, datetime) else plain(value)


def csv_lines(
    columns: Sequence[str], rows: Iterable[Row], text: Callable[[object], object] = short
) -> Iterator[str]:
    """Return the lines of a table, with the names of its columns first."""
    yield csv_line(columns)
    for row in rows:
        yield csv_line([text(each) for each in row])


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Row]) -> None:
    """Write a table as CSV; the file is whole or not written."""
    with io.replacing(path) as temporary, temporary.open("wb") as handle:
        handle.write(START)
        handle.writelines(f"{line}{END}".encode() for line in csv_lines(columns, rows))


@contextmanager
def workbook(path: Path) -> Iterator[Workbook]:
    """Write a file of Excel, to which the block adds sheets; it is whole or not written."""
    from xlsxwriter import Workbook

    with io.replacing(path) as temporary, Workbook(str(temporary), {"constant_memory": True}) as book:
        yield book


def add_sheet(book: Workbook, title: str, columns: Sequence[str], rows: Iterable[Row]) -> None:
    """Add a sheet: the first row stays in view, texts are texts, dates are dates.

    Raises:
        InputError: it has more rows or columns than Excel can hold.
    """
    check_sheet(0, len(columns))
    sheet = book.add_worksheet(title)
    bold = book.add_format({"bold": True})
    percent = book.add_format({"num_format": "0.0%"})
    shown = {kind: book.add_format({"num_format": form}) for kind, form in _FORMS.items()}
    sheet.freeze_panes(1, 0)
    widths = [len(name) + 4 for name in columns]  # room for the button of the filter
    for column, name in enumerate(columns):
        sheet.write_string(0, column, printable(name), bold)
    number = 0
    for number, row in enumerate(rows, 1):
        check_sheet(number)
        for column, value in enumerate(row):
            match value:
                case None:
                    continue
                case bool():
                    sheet.write_boolean(number, column, value)
                case int() | float():
                    score = columns[column].endswith("score")
                    sheet.write_number(number, column, value, *([percent] if score else []))
                case date() if value.year >= 1900:  # Excel knows no earlier ones
                    sheet.write_datetime(number, column, value, shown[type(value)])
                    widths[column] = max(widths[column], len(_FORMS[type(value)]) + 1)
                case _:
                    text = printable(str(value))[:_MOST_CHARACTERS]
                    sheet.write_string(number, column, text)
                    widths[column] = max(widths[column], len(text) + 1)
    sheet.autofilter(0, 0, number, len(columns) - 1)
    for column, width in enumerate(widths):
        sheet.set_column(column, column, min(width, _LONGEST))


def check_sheet(rows: int, columns: int = 0) -> None:
    """Raise InputError for what does not fit into a sheet of Excel."""
    if rows > MOST_ROWS or columns > _MOST_COLUMNS:
        raise InputError(
            f"A sheet of Excel holds {MOST_ROWS:,} rows and {_MOST_COLUMNS:,} columns: use .csv."
        )
