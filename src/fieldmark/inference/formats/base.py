"""What a form of output is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fieldmark.data.taxonomy import Taxonomy
from fieldmark.inference.record import Record
from fieldmark.utils import io


@dataclass(frozen=True)
class FormatOptions:
    """What is to be written of the answers.

    Attributes:
        taxonomy: of the labels that the scores are divided among.
        wide: a row a photo and a column a label, instead of a row a candidate.
        by: which classifier it was, for forms that say so.
        when: the time of naming, ISO 8601 in UTC, for forms that say so.
    """

    taxonomy: Taxonomy
    wide: bool = False
    by: str = "fieldmark"
    when: str = ""


@dataclass(frozen=True)
class Writer:
    """A form in which answers are written to a file.

    Attributes:
        name: what the command line calls it.
        suffix: of a file of this form.
        wide: whether a column a label (`--wide`) makes sense.
        write: path, entries and form to a file, which is there as a whole or not at all.
        lines: the same to print, lines without their ends; None: it cannot be printed.
        timed: whether it says when a photo was taken.
    """

    name: str
    suffix: str
    wide: bool
    write: Callable[[Path, Iterable[Record], FormatOptions], None]
    lines: Callable[[Iterable[Record], FormatOptions], Iterator[str]] | None = None
    timed: bool = False


def write_lines(path: Path, texts: Iterable[str], end: str) -> None:
    """Write lines, each with this end, as they come.

    Raises:
        InputError: the file cannot be written.
    """
    with io.replacing(path) as temporary, temporary.open("wb") as handle:
        handle.writelines(f"{text}{end}".encode() for text in texts)
