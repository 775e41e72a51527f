"""JSON lines: an object a photo, with its labels sorted by confidence."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from fieldmark.inference.formats.base import FormatOptions, Writer, write_lines
from fieldmark.inference.record import Record


def _lines(entries: Iterable[Record], _form: FormatOptions) -> Iterator[str]:
    for value in entries:
        yield json.dumps(value, ensure_ascii=False)


def _write(path: Path, entries: Iterable[Record], form: FormatOptions) -> None:
    write_lines(path, _lines(entries, form), "\n")


JSON_LINES = Writer("jsonl", ".jsonl", wide=False, write=_write, lines=_lines)
