"""Forms of output, one file each; a new one is a file here and a line in `WRITERS`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from fieldmark.data.taxonomy import Taxonomy
from fieldmark.inference.formats.base import FormatOptions, Writer
from fieldmark.inference.formats.camtrap import CAMTRAP
from fieldmark.inference.formats.csv import CSV
from fieldmark.inference.formats.darwin_core import DARWIN_CORE
from fieldmark.inference.formats.json_lines import JSON_LINES
from fieldmark.inference.formats.parquet import PARQUET
from fieldmark.inference.formats.speciesnet import SPECIESNET
from fieldmark.inference.formats.text import text_lines
from fieldmark.inference.predictor import PhotoResult
from fieldmark.inference.record import to_record
from fieldmark.utils.errors import InputError

WRITERS: dict[str, Writer] = {
    writer.name: writer for writer in (CSV, JSON_LINES, PARQUET, CAMTRAP, DARWIN_CORE, SPECIESNET)
}

__all__ = ["WRITERS", "FormatOptions", "Writer", "lines", "writer_of"]


def writer_of(path: Path, *, wide: bool) -> Writer:
    """The form that a file's name asks for.

    Raises:
        InputError: there is none with its suffix, or none with a column a label.
    """
    suffixes = {writer.suffix: writer for writer in WRITERS.values()}
    ends = [suffix for suffix in suffixes if path.name.endswith(suffix)]
    if not ends:
        *most, last = suffixes
        raise InputError(f"{path} should end in {', '.join(most)} or {last}.")
    end = max(ends, key=len)  # `.dwc.csv` ends in `.csv` too
    if wide and not suffixes[end].wide:
        raise InputError(f"--wide is a column a label, which {end} has not: use .csv.")
    return suffixes[end]


def lines(
    form: str, results: Iterable[PhotoResult], taxonomy: Taxonomy, *, wide: bool = False
) -> Iterator[str]:
    """What is printed of results: as `text`, or in a form that has lines."""
    if form == "text":
        return text_lines(results)
    asked, among = FormatOptions(taxonomy, wide), len(taxonomy)
    to_lines, timed = WRITERS[form].lines, WRITERS[form].timed
    entries = (to_record(result, among, wide=wide, timed=timed) for result in results)
    if to_lines is None:
        raise InputError(f"{form} cannot be printed: name a file with --out.")
    return to_lines(entries, asked)
