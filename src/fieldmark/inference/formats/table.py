"""Predictions as a table, in CSV, Excel or Parquet.

CSV and Excel have a row a photo, see `tidy`. With `candidates`, and in Parquet, they have a row a label; with
`wide` a row a photo and a column a label.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from fieldmark.data.taxonomy import RANKS, Taxon, Taxonomy
from fieldmark.inference.formats import sheets, tidy
from fieldmark.inference.formats.base import FormatOptions, Writer
from fieldmark.inference.record import Record, event_id
from fieldmark.utils import io

COLUMNS = (
    *("file_name", "kingdom", "phylum", "class", "order", "family", "genus"),
    *("species_epithet", "species", "common_name", "score", "rank", "source"),
    *("name", "taxon_id", "unknown", "among", "rejected"),
)
WIDE = ("file_name", "score", "rank", "source", "name", "unknown", "among")

BOX = ("detected", "confidence", "left", "top", "width", "height")
"""Further columns where photos were cut to boxes: what a box shows, and its shares of the photo."""

EVENT = ("event", "place", "start", "end", "photos", "count", "also")
"""Further columns where a row is of an event; `also` names further species with their numbers."""

NOTE = ("note",)
"""A further column where a row has a note: a photo was cut off, and what is there of it was classified."""

CLIP = ("seconds",)
"""A further column where there are clips: when the answer is seen, in seconds from the first frame."""

_ROWS = 50_000  # of a Parquet file that are in memory as Python values at once


def _is_tidy(options: FormatOptions) -> bool:
    return not (options.wide or options.candidates)


def columns_of(options: FormatOptions) -> tuple[str, ...]:
    """Return the columns of a table with these options."""
    boxes = options.boxes is not None
    if _is_tidy(options):
        further = EVENT if options.events else BOX if boxes else ()
        return (*dict.fromkeys((*tidy.COLUMNS, *further)), *CLIP * options.clips)
    found = columns(options.taxonomy, wide=options.wide, boxes=boxes, events=options.events)
    return (*found, *NOTE * options.notes, *CLIP * options.clips)


def columns(
    taxonomy: Taxonomy, *, wide: bool = False, boxes: bool = False, events: bool = False
) -> tuple[str, ...]:
    """Return the columns: fixed ones, or with `wide` also one for each label; those of a box or an event."""
    if boxes or events:
        return (*columns(taxonomy, wide=wide), *(EVENT if events else BOX))
    if not wide:
        return COLUMNS
    names = [taxon.name for taxon in taxonomy]
    taken = {*WIDE, "rejected", *NOTE, *CLIP}
    own = (
        f"{taxon.name} ({taxon.id})" if names.count(taxon.name) > 1 or taxon.name in taken else taxon.name
        for taxon in taxonomy
    )
    return (*WIDE, *own, "rejected")


def rows_of(record: Record, options: FormatOptions) -> list[list[Any]]:
    """Return the rows of one photo, box or event, in the order of `columns_of`; None for a missing value."""
    if _is_tidy(options):
        row = tidy.row_of(record)
        if "event" in record:
            row |= dict(zip(EVENT, _event_columns(record), strict=True))
            row |= {end: tidy.clock_time(row[end]) for end in ("start", "end")}
        elif options.boxes is not None:
            row |= zip(BOX, _box_columns(record), strict=True)
        return [[*row.values(), *[_seconds(record)] * options.clips]]
    found = _about_rows(record, options.taxonomy, options)
    more = [record.get("note")] * options.notes + [_seconds(record)] * options.clips
    return [[*row, *more] for row in found]


def _seconds(record: Record) -> str | None:
    """Return when the answer of a clip is seen, or the time of a frame, in seconds from the first frame."""
    times = (
        record["clip"]["seconds"] if "clip" in record else [record["second"]] if "second" in record else []
    )
    return "; ".join(f"{each:g}" for each in times) or None


def _about_rows(record: Record, taxonomy: Taxonomy, options: FormatOptions) -> list[list[Any]]:
    """Return the rows without the column of notes."""
    found = _label_rows(record, taxonomy, wide=options.wide)
    if "event" in record:
        return [[*row, *_event_columns(record)] for row in found]
    return found if options.boxes is None else [[*row, *_box_columns(record)] for row in found]


def _box_columns(record: Record) -> list[Any]:
    if (box := record.get("detection")) is None:
        return [record.get("kind"), *[None] * 5]
    return [box["category"], box["confidence"], *box["box"]]


def _event_columns(record: Record) -> list[Any]:
    event = record["event"]
    also = "; ".join(f"{each['name']} ({each['count']})" for each in event["also"])
    count = event["count"] or None
    return [event_id(record), event["place"], event["start"], event["end"], len(event["photos"]), count, also]


def _label_rows(record: Record, taxonomy: Taxonomy, *, wide: bool) -> list[list[Any]]:
    """Return the rows without the columns of a box.

    The first row is the answer; the labels follow as candidates, sorted by confidence.
    """
    if wide:
        values: Mapping[str, object] = dict(record)
        scores: Sequence[float | None] = record.get("scores") or [None] * len(taxonomy)
        return [[*map(values.get, WIDE), *scores, record.get("rejected")]]
    found: list[dict[str, Any]]
    if "kind" in record:
        found = [{"name": record["kind"], "source": "detector"}]
    elif "rejected" in record:
        found = [{"rejected": record["rejected"]}]
    else:
        name = {"name": record["name"], "score": record["score"]} if record["name"] else {}
        answer = {**record["ranks"], "rank": record["rank"], "source": record["source"], **name}
        found = [] if record["sure"] else [answer]
        for number, label in enumerate(record["labels"]):
            taxon = taxonomy[label["taxon_id"]]
            source = "species" if record["sure"] and number == 0 else "candidate"
            found.append({**_taxon_columns(taxon), "score": label["score"], "source": source})
        for row in found:
            row |= {"among": record["among"], "unknown": record["unknown"]}
    return [[{**row, "file_name": record["file_name"]}.get(each) for each in COLUMNS] for row in found]


def _taxon_columns(taxon: Taxon) -> dict[str, Any]:
    """Return the columns that describe a label."""
    ranks = taxon.lineage
    species = ranks.get("species")
    genus, _, epithet = (species or "").partition(" ")
    return {
        **{rank: ranks.get(rank) for rank in RANKS},
        "species_epithet": epithet if genus == ranks.get("genus") else None,
        "common_name": taxon.common_name or None,
        "rank": taxon.rank,
        "name": taxon.name,
        "taxon_id": taxon.id,
    }


def _csv(records: Iterable[Record], options: FormatOptions) -> Iterator[str]:
    text = sheets.short if _is_tidy(options) else sheets.plain
    return sheets.csv_lines(columns_of(options), _rows_of_all(records, options), text)


def _rows_of_all(records: Iterable[Record], options: FormatOptions) -> Iterator[list[Any]]:
    return (row for each in records for row in rows_of(each, options))


def _parquet(path: Path, records: Iterable[Record], options: FormatOptions) -> None:
    import polars as pl

    options = replace(options, candidates=True)
    special = {"score": pl.Float64, "among": pl.UInt32, "unknown": pl.Boolean, "detected": pl.String}
    special |= dict.fromkeys((*EVENT, *NOTE, *CLIP), pl.String) | dict.fromkeys(
        ("photos", "count"), pl.UInt32
    )
    types = {**dict.fromkeys((*COLUMNS, *WIDE), pl.String), **special}
    schema: dict[str, Any] = {name: types.get(name, pl.Float64) for name in columns_of(options)}
    parts = [pl.DataFrame(schema=schema)]
    every = _rows_of_all(records, options)
    while some := list(islice(every, _ROWS)):
        parts.append(pl.DataFrame(some, schema=schema, orient="row"))
    io.write_table(path, pl.concat(parts))


def _xlsx(path: Path, records: Iterable[Record], options: FormatOptions) -> None:
    with sheets.workbook(path) as book:
        sheets.add_sheet(book, "photos", columns_of(options), _rows_of_all(records, options))


CSV = Writer.of_lines("csv", ".csv", _csv, end=sheets.END, start=sheets.START, wide=True, timed="local")
XLSX = Writer("xlsx", ".xlsx", wide=True, write=_xlsx, timed="local")
PARQUET = Writer("parquet", ".parquet", wide=True, write=_parquet)
