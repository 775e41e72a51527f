"""Texts of unknown origin on a terminal and in a spreadsheet: names of files, classes and fields."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, TextIO

# Control characters but tab and line ends; and those that turn the direction of what follows.
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")

# Spreadsheets run a cell that begins like this as a formula; a number is none.
_FORMULA = re.compile(r"'*[=@\t\r]|'+[+\-]|[+\-](?!\d*\.?\d+(?:[eE][+-]?\d+)?\Z)")
ESCAPED = r"^'('*[=+\-@\t\r])"
"""What a cell that `cell` made harmless begins with, as a pattern; its group is what stays."""


def printable(text: str) -> str:
    """Return a text whose control characters are written out, as `\\x1b`: a terminal would obey them."""
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def cell(text: str) -> str:
    """Return a text as a cell of CSV that no spreadsheet takes for a formula: with a `'` before it."""
    text = printable(text)
    return f"'{text}" if _FORMULA.match(text) else text


NAMED = 5
"""How many of some files or names a message shows."""


def some_of(names: Sequence[str], total: int | None = None, most: int = NAMED) -> str:
    """Return the first of some names, and how many more there are of `total`."""
    more = (len(names) if total is None else total) - len(names[:most])
    return ", ".join(names[:most]) + (f" and {more:,} more" if more > 0 else "")


class PrintableStream:
    """A text stream that writes control characters out; all else is that of the stream itself."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text."""
        return self._stream.write(printable(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
