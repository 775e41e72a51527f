"""JSON lines: an object a photo, with its labels sorted by confidence."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from fieldmark.inference.formats.base import FormatOptions, Writer
from fieldmark.inference.record import Record


def _lines(records: Iterable[Record], _options: FormatOptions) -> Iterator[str]:
    for record in records:
        yield json.dumps(record, ensure_ascii=False)


JSON_LINES = Writer.of_lines("jsonl", ".jsonl", _lines)
