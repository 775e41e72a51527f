"""The interface of an output format, and CSV (RFC 4180)."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from fieldmark.data.taxonomy import Taxonomy
from fieldmark.inference.record import Record, Timed
from fieldmark.utils import io
from fieldmark.utils.printable import cell


@dataclass(frozen=True)
class FormatOptions:
    """Options of the output, the same for every format."""

    taxonomy: Taxonomy  # of the labels that the scores are divided among
    wide: bool = False  # a row a photo and a column a label
    candidates: bool = False  # a row a label; else tables for people have a row a photo, see `tidy`
    by: str = "fieldmark"  # the classifier, for formats that record it
    boxes: float | None = None  # the confidence from which on a box counted; None: whole photos
    events: bool = False  # whether records are of events
    photos: Iterable[Record] = ()  # where records are of events: those of their photos
    deployments: Sequence[Mapping[str, str]] = ()  # rows of the table of deployments, if one is given
    notes: bool = False  # whether a record has a note, which tables then have a column for
    clips: bool = False  # whether a record is of a clip; tables then have a column for seconds
    when: str = ""  # the time of the prediction, ISO 8601 in UTC, for formats that record it


Lines = Callable[[Iterable[Record], FormatOptions], Iterator[str]]


@dataclass(frozen=True)
class Writer:
    """An output format; `write` writes a file completely or not at all, and may read records twice."""

    name: str  # on the command line
    suffix: str  # of the file's name; with a slash it is the name
    wide: bool  # whether `--wide`, a column per label, is supported
    write: Callable[[Path, Iterable[Record], FormatOptions], None]
    lines: Lines | None = None  # without line ends, to print; None: it cannot be printed
    timed: Timed = False  # whether it records when and where a photo was taken
    beside: tuple[str, ...] = ()  # names of the files that it writes as well, in the same folder

    @classmethod
    def of_lines(
        cls,
        name: str,
        suffix: str,
        lines: Lines,
        *,
        end: str = "\n",
        start: bytes = b"",
        wide: bool = False,
        timed: Timed = False,
    ) -> Writer:
        """Make a text format from a function that gives its lines, each followed by `end`.

        A file begins with `start`: a byte-order mark, say.
        """

        def write(path: Path, records: Iterable[Record], options: FormatOptions) -> None:
            with io.replacing(path) as temporary, temporary.open("wb") as handle:
                handle.write(start)
                handle.writelines(f"{text}{end}".encode() for text in lines(records, options))

        return cls(name, suffix, wide, write, lines, timed)

    @classmethod
    def of_rows(
        cls,
        name: str,
        suffix: str,
        columns: Sequence[str],
        rows: Callable[[Iterable[Record], FormatOptions], Iterator[Mapping[str, str]]],
        *,
        timed: Timed = False,
    ) -> Writer:
        """Make a CSV format from a function that gives its rows by column; a missing value is empty."""

        def lines(records: Iterable[Record], options: FormatOptions) -> Iterator[str]:
            yield csv_line(columns)
            for row in rows(records, options):
                yield csv_line([row.get(column, "") for column in columns])

        return cls.of_lines(name, suffix, lines, end="\r\n", timed=timed)


def csv_line(values: Sequence[object]) -> str:
    """Return one row as text, without its line end; no cell is a formula or holds control characters."""
    line = StringIO()
    values = [cell(value) if isinstance(value, str) else value for value in values]
    # `csv` quotes values that contain a character of the line end, so both characters are set.
    csv.writer(line, lineterminator="\r\n").writerow(values)
    return line.getvalue().removesuffix("\r\n")
