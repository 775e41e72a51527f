"""The interface of an output format."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fieldmark.data.taxonomy import Taxonomy
from fieldmark.inference.record import Record
from fieldmark.utils import io


@dataclass(frozen=True)
class FormatOptions:
    """Options of the output, the same for every format.

    Attributes:
        taxonomy: of the labels that the scores are divided among.
        wide: a row a photo and a column a label, instead of a row a label.
        by: the classifier, for formats that record it.
        when: the time of the prediction, ISO 8601 in UTC, for formats that record it.
    """

    taxonomy: Taxonomy
    wide: bool = False
    by: str = "fieldmark"
    when: str = ""


def write_lines(path: Path, texts: Iterable[str], end: str) -> None:
    """Write lines, each followed by `end`, as they come.

    Raises:
        InputError: the file cannot be written.
    """
    with io.replacing(path) as temporary, temporary.open("wb") as handle:
        handle.writelines(f"{text}{end}".encode() for text in texts)


Lines = Callable[[Iterable[Record], FormatOptions], Iterator[str]]


@dataclass(frozen=True)
class Writer:
    """An output format.

    Attributes:
        name: its name on the command line.
        suffix: of its files.
        wide: whether `--wide`, a column per label, is supported.
        lines: records to lines without line ends, to print; None: it cannot be printed.
        write: path, records and options to a file, written completely or not at all.
        timed: whether it records when a photo was taken.
    """

    name: str
    suffix: str
    wide: bool
    write: Callable[[Path, Iterable[Record], FormatOptions], None]
    lines: Lines | None = None
    timed: bool = False

    @classmethod
    def of_lines(
        cls, name: str, suffix: str, lines: Lines, *, end: str = "\n", wide: bool = False, timed: bool = False
    ) -> Writer:
        """Make a text format from a function that gives its lines, each followed by `end`."""

        def write(path: Path, records: Iterable[Record], options: FormatOptions) -> None:
            write_lines(path, lines(records, options), end)

        return cls(name, suffix, wide, write, lines, timed)
