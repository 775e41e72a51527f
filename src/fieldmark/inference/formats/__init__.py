"""Output formats; a new one is a file here and a line in `WRITERS`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from fieldmark.data.taxonomy import Taxonomy
from fieldmark.inference.formats.base import FormatOptions, Writer
from fieldmark.inference.formats.camtrap import CAMTRAP
from fieldmark.inference.formats.camtrap_package import CAMTRAP_PACKAGE
from fieldmark.inference.formats.darwin_core import DARWIN_CORE
from fieldmark.inference.formats.megadetector import MEGADETECTOR
from fieldmark.inference.formats.speciesnet import SPECIESNET
from fieldmark.inference.formats.table import CSV, PARQUET, XLSX
from fieldmark.inference.predictor import PhotoResult
from fieldmark.inference.record import Record, to_record
from fieldmark.utils.errors import InputError


def _json_lines(records: Iterable[Record], _options: FormatOptions) -> Iterator[str]:
    for record in records:
        yield json.dumps(record, ensure_ascii=False)


JSON_LINES = Writer.of_lines("jsonl", ".jsonl", _json_lines, timed="local")
WRITERS: dict[str, Writer] = {
    writer.name: writer
    for writer in (
        *(CSV, XLSX, JSON_LINES, PARQUET, CAMTRAP, CAMTRAP_PACKAGE, DARWIN_CORE, MEGADETECTOR, SPECIESNET),
    )
}

__all__ = ["WRITERS", "FormatOptions", "Writer", "lines", "text_lines", "writer_of"]


def writer_of(path: Path, *, wide: bool, candidates: bool = False) -> Writer:
    """Return the format for a file name; raises InputError if none has its suffix, or it is no such table."""
    suffixes = {writer.suffix: writer for writer in WRITERS.values()}
    ends = [suffix for suffix in suffixes if f"/{path.as_posix()}".endswith(suffix)]
    if not ends:
        *most, last = suffixes
        raise InputError(f"{path} should end in {', '.join(most)} or {last}.")
    end = max(ends, key=len)  # `.dwc.csv` ends in `.csv` too
    if wide and not suffixes[end].wide:
        raise InputError(f"--wide is a column a label, which {end} has not: use .csv.")
    if candidates and not suffixes[end].wide:
        raise InputError(f"--candidates is a row a label, which {end} has not: use .csv or .xlsx.")
    return suffixes[end]


def lines(
    form: str,
    results: Iterable[PhotoResult],
    taxonomy: Taxonomy,
    *,
    wide: bool = False,
    candidates: bool = False,
    boxes: float | None = None,
) -> Iterator[str]:
    """Return the lines to print for results, as `text` or in a format that can be printed."""
    if form == "text":
        return text_lines(results)
    writer = WRITERS[form]
    if writer.lines is None:
        raise InputError(f"{form} cannot be printed: name a file with --out.")
    records = (to_record(result, len(taxonomy), wide=wide, timed=writer.timed) for result in results)
    return writer.lines(records, FormatOptions(taxonomy, wide, candidates, boxes=boxes))


def text_lines(results: Iterable[PhotoResult]) -> Iterator[str]:
    """Return the lines for the terminal: a block a photo, its labels with their scores."""
    for result in results:
        found = result.photo.detection
        yield (
            result.photo.name
            + (f"  box {found.box}, {found.category} {found.confidence:.2f}" if found else "")
            + (f"  ({result.note}: the part that is there was classified)" if result.note else "")
        )
        prediction = result.prediction
        if prediction is None and result.rejected is None:
            yield f"  {result.photo.kind}: by its boxes, not classified"
            continue
        if prediction is None:
            yield f"  cannot be used: {result.rejected}"
            continue
        if prediction.source == "rolled up":
            name = f"{prediction.rank} {prediction.name}"
            yield f"  {prediction.score:6.1%}  {name}; the species is not sure:"
        elif prediction.source == "not sure":
            yield "  not sure; the most likely are"
        elif prediction.source == "unknown":
            yield "  unknown: unlike the photos it learned from; of the species it knows, the most likely are"
        if result.clip is not None:
            yield f"  seen at {', '.join(f'{each:g}' for each in result.clip.seconds) or 'no time'} s"
        for answer in prediction.answers:
            yield f"  {answer.score:6.1%}  {answer.taxon.label}"
