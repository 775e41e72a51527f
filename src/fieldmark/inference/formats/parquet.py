"""Parquet: the columns of the CSV file, with types."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from fieldmark.inference.formats.base import FormatOptions, Writer
from fieldmark.inference.formats.table import COLUMNS, WIDE, columns, rows
from fieldmark.inference.record import Record
from fieldmark.utils import io

_ROWS = 50_000  # of a table that are in memory as Python values at once


def _write(path: Path, records: Iterable[Record], options: FormatOptions) -> None:
    import polars as pl

    names = columns(options.taxonomy, wide=options.wide)
    special = {"score": pl.Float64, "among": pl.UInt32, "unknown": pl.Boolean}
    texts = dict.fromkeys((*COLUMNS, *WIDE), pl.String)
    schema: dict[str, Any] = {name: {**texts, **special}.get(name, pl.Float64) for name in names}
    parts = [pl.DataFrame(schema=schema)]
    every = (row for each in records for row in rows(each, options.taxonomy, wide=options.wide))
    while some := list(islice(every, _ROWS)):
        parts.append(pl.DataFrame(some, schema=schema, orient="row"))
    with io.replacing(path) as temporary:
        pl.concat(parts).write_parquet(temporary)


PARQUET = Writer("parquet", ".parquet", wide=True, write=_write)
