"""Convert a list of photos to a photo table, for all readers of lists."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import re
import sys
import zipfile
import zlib
from collections.abc import Iterable
from datetime import datetime
from functools import partial
from pathlib import Path

import polars as pl

from fieldmark.data.locations import DEGREES
from fieldmark.data.photos import PhotoTable, build_frame, degrees
from fieldmark.data.readers.base import PARTS, binomial, first_reason, no_photos, part_named, table_errors
from fieldmark.data.storage.places import File
from fieldmark.data.taxonomy import RANKS, Taxon, Taxonomy
from fieldmark.utils.errors import InputError, RejectReason, first_line
from fieldmark.utils.printable import ESCAPED, some_of

TAXON_COLUMNS = ("name", "common_name", "supercategory", *RANKS)
"""Columns of a list that describe its labels."""

COLUMNS = (
    *("id", "file_name", "label", "split", "group", "licence", "rights_holder", "location"),
    *("deployment", "taken", "sequence", *DEGREES, "reason"),
    *TAXON_COLUMNS,
)
"""All columns that a list may have; `file_name` is required."""

# A drive, a scheme, a home folder, an absolute path, or a step upwards: wrong or hostile in annotations.
_OUTSIDE = r"(^|[/\\])\.\.([/\\]|$)|^[/\\~]|^[A-Za-z][A-Za-z0-9+.-]*:|\x00"
_LARGEST_SHEET = 1 << 30  # bytes that a workbook may unpack to
_TAIL = 1 << 20  # bytes of a table's end that are searched for its last row


def outside(column: str = "file_name") -> pl.Expr:
    """Return whether a photo's name leads out of the folder."""
    return pl.col(column).str.contains(_OUTSIDE)


def with_missing(frame: pl.DataFrame, names: Iterable[str]) -> pl.DataFrame:
    """Add those of some columns that a table lacks, as text, all null."""
    lacking = (name for name in names if name not in frame.columns)
    return frame.with_columns(pl.lit(None, pl.String).alias(name) for name in lacking)


def add(rows: pl.DataFrame, facts: pl.DataFrame, on: str) -> pl.DataFrame:
    """Add the columns of `facts` to the rows; a row without them stays, and so does the order."""
    return rows.join(facts, on=on, how="left", maintain_order="left")


def to_photo_table(
    given: pl.DataFrame, where: Path, root: File, source: str, *, trusted: bool = False
) -> PhotoTable:
    """Convert a list to a photo table.

    Args:
        given: some of `COLUMNS`, all text. Without `id` the file's name is the id; a `reason` stays.
        where: the list, for messages.
        root: what the file names are relative to.
        source: the reader's name.
        trusted: the user wrote the list: a path may lead anywhere, and the facts of a label must be
            the same in all of its rows.

    Raises:
        InputError: there is no row, a row names no file, a part is unknown, or see `trusted`.
    """
    if given.is_empty():
        raise no_photos(where, "its list is empty")
    if nameless := given["file_name"].null_count():
        raise InputError(f"{where}: {nameless:,} rows have no file_name: fill it in or delete them.")
    given = with_missing(given, COLUMNS)
    given = given.with_columns(
        id=pl.coalesce("id", "file_name"), split=_parts(given, where), group=pl.coalesce("group", _sequence())
    )
    taxonomy = _taxonomy(given, where, strict=trusted)
    if trusted:
        _check_degrees(given, where)
    reasons = [
        (pl.col("label").n_unique().over("id") > 1, RejectReason.AMBIGUOUS_LABEL),
        (_number("id") > 1, RejectReason.DUPLICATE_ID),
    ]
    if not trusted:
        reasons.insert(0, (outside(), RejectReason.OUTSIDE))
    rows = given.with_columns(
        id=numbered("id"), path="file_name", reason=pl.coalesce("reason", first_reason(*reasons))
    ).with_columns(taxon_id=pl.when(pl.col("reason").is_null()).then("label"))
    return PhotoTable(build_frame(rows), taxonomy, root, source)


def numbered(column: str) -> pl.Expr:
    """Append `#2` to the second of some equal values, and so on."""
    number = _number(column)
    return pl.when(number == 1).then(column).otherwise(pl.format("{}#{}", column, number))


def _sequence() -> pl.Expr:
    """Return the sequence of a photo with its place: cameras number theirs anew."""
    place = pl.coalesce("deployment", "location")
    return pl.when(pl.col("sequence").is_not_null()).then(
        pl.concat_str(place, pl.lit("sequence"), "sequence", separator=" ", ignore_nulls=True)
    )


def _number(column: str) -> pl.Expr:
    return pl.int_range(pl.len()).over(column) + 1


def _parts(given: pl.DataFrame, where: Path) -> pl.Series:
    meaning = {name: part_named(name) for name in given["split"].unique().drop_nulls()}
    if unknown := sorted(name for name, part in meaning.items() if part is None):
        raise InputError(f"{where}: the column split holds {unknown[0]!r}: write one of {', '.join(PARTS)}.")
    return given["split"].replace_strict(meaning, return_dtype=pl.String)


def _check_degrees(given: pl.DataFrame, where: Path) -> None:
    for name, most in DEGREES.items():
        wrong = given.filter(pl.col(name).is_not_null() & degrees(name, most).is_null())
        if not wrong.is_empty():
            raise InputError(
                f"{where}: the column {name} holds {wrong[name][0]!r}: write degrees from -{most:g} to "
                f"{most:g}, such as 47.25."
            )


def _taxonomy(given: pl.DataFrame, where: Path, *, strict: bool) -> Taxonomy:
    """Return the labels, sorted; of two values of a fact the first in the alphabet, if not strict."""
    labelled = given.filter(pl.col("label").is_not_null()).group_by("label")
    values = labelled.agg(pl.col(TAXON_COLUMNS).drop_nulls().unique().sort()).sort("label")
    taxa = []
    for row in values.iter_rows(named=True):
        label = row.pop("label")
        if strict and (twice := next((name for name, found in row.items() if len(found) > 1), None)):
            raise InputError(
                f"{where}: the label {label!r} has two values of {twice}, "
                f"{row[twice][0]!r} and {row[twice][1]!r}: use one value."
            )
        taxa.append(taxon(label, {name: found[0] for name, found in row.items() if found}))
    return Taxonomy(taxa)


def taxon(label: str, values: dict[str, str]) -> Taxon:
    """Build the taxon of a label from some of `TAXON_COLUMNS`."""
    ranks = {rank: values[rank] for rank in RANKS if rank in values}
    if "genus" in ranks and "species" in ranks and " " not in ranks["species"]:
        # Some tables have only the epithet; the same epithet in two genera is two species.
        ranks["species"] = f"{ranks['genus']} {ranks['species']}"
    pair = binomial(values.get("name", ""))
    if pair and not {"genus", "species"} & ranks.keys():
        ranks["genus"], ranks["species"] = pair
    return Taxon(
        id=label,
        name=values.get("name") or ranks.get("species") or label,
        common_name=values.get("common_name", ""),
        supercategory=values.get("supercategory", ""),
        ranks=ranks,
    )


def clean(frame: pl.DataFrame) -> pl.DataFrame:
    """Convert all cells to stripped text, without the `'` before a formula; an empty cell is null."""
    return frame.select(
        pl.all().cast(pl.String).str.strip_chars().str.replace(ESCAPED, "$1").replace("", None)
    )


def read_text_table(
    path: Path, separator: str | None = None, *, quote: str | None = '"', advice: str = "download it again"
) -> pl.DataFrame:
    """Read a table of text, gzipped or not, or of Excel, all cells text; an empty cell is null.

    The encoding is UTF-8, UTF-16 or, where a text is neither, cp1252.

    Args:
        path: a sheet of Excel where its suffix is .xlsx, else text.
        separator: of the cells; None: the comma, semicolon or tab that divides the first line most often.
        quote: what cells may be put in; None: nothing.
        advice: what to do where it cannot be read.

    Raises:
        InputError: it cannot be read, is truncated, or a row has more cells than its header.
    """
    with table_errors(f"{path} could not be read as a table", advice):
        if path.suffix.lower() == ".xlsx":
            return clean(_read_sheet(path))
        first = _first_line(path)
        whole = None
        if first.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in first[:200]:
            whole = _recoded(path.read_bytes())
            first = whole.split(b"\n", 1)[0]
        separator = separator or _separator(first, quote)
        if not whole:
            check_complete(path, separator, quote)
        told = first.strip().strip(b'"').lower().startswith(b"sep=")  # Excel's own first line
        read = partial(pl.read_csv, separator=separator, infer_schema=False, quote_char=quote)
        try:
            try:
                frame = read(whole or path, skip_rows=int(told))
            except pl.exceptions.ComputeError as error:
                if whole or "utf-8" not in str(error).lower():
                    raise
                try:
                    frame = read(path, skip_rows=int(told), encoding="cp1252")
                except UnicodeDecodeError:
                    raise InputError(f"{path} is neither UTF-8 nor cp1252: save it as UTF-8.") from error
        except pl.exceptions.NoDataError as error:
            raise InputError(f"{path} is empty: {advice}.") from error
        return clean(frame.rename(lambda name: name.strip().lstrip("\ufeff")))


def _first_line(path: Path) -> bytes:
    """Return the first line of a file, gzipped or not; nothing of a damaged one."""
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as handle:
            return handle.readline(_TAIL)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        return b""  # reading it will raise the error


def _recoded(data: bytes) -> bytes:
    """Return UTF-16, with a byte-order mark or without, as UTF-8."""
    marked = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    encoding = "utf-16" if marked else "utf-16-le" if data[1:2] == b"\0" else "utf-16-be"
    return data.decode(encoding, "replace").encode("utf-8", "replace")


def _separator(first: bytes, quote: str | None) -> str:
    """Return what divides a first line most often, or what Excel's `sep=;` says."""
    if told := re.fullmatch(rb'"?sep=(.)"?', first.strip(), re.IGNORECASE):
        return told[1].decode("latin-1")
    return max(",;\t", key=lambda each: _cells(first, each, quote))


def _read_sheet(path: Path) -> pl.DataFrame:
    """Read the first sheet of a workbook: times as ISO 8601, numbers without zeros at the end."""
    import openpyxl

    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > _LARGEST_SHEET:
            raise InputError(f"{path} unpacks to {unpacked:,} bytes: save the sheet as CSV.")
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        rows = [[*map(_sheet_cell, row)] for row in book.worksheets[0].iter_rows(values_only=True)]
    except (zipfile.BadZipFile, KeyError, ValueError, IndexError, SyntaxError, EOFError) as error:
        raise InputError(f"{path} is not a sheet of Excel ({first_line(error)}): save it as CSV.") from error
    rows = [row for row in rows if any(row)]
    if not rows:
        raise InputError(f"{path} has no row on its first sheet: name another file.")
    names = [name or f"column {number}" for number, name in enumerate(rows[0], 1)]
    if len(set(names)) < len(names):
        raise InputError(f"{path} has two columns of one name: rename one of {', '.join(names)}.")
    wide = [(row + [""] * len(names))[: len(names)] for row in rows[1:]]
    return pl.DataFrame(wide, dict.fromkeys(names, pl.String), orient="row")


def _sheet_cell(value: object) -> str:
    match value:
        case None:
            return ""
        case datetime():
            return value.isoformat(" ").removesuffix(" 00:00:00")
        case float() if value.is_integer():
            return str(int(value))
        case _:
            return str(value)


def check_complete(path: Path, separator: str = ",", quote: str | None = '"') -> None:
    """Raise `InputError` for a text table that was truncated within its last row.

    A last row without a line end must have as many cells as the first one. A truncated gzip file fails
    when it is decompressed.
    """
    try:
        with path.open("rb") as handle:
            first = handle.readline()
            handle.seek(max(len(first), path.stat().st_size - _TAIL))
            lines = handle.read().split(b"\n")
    except OSError:
        return  # reading it will raise the error
    if path.suffix.lower() == ".gz" or not lines[-1].strip():
        return
    last = lines.pop()
    # A line break within a quoted cell: the row began some lines above.
    while quote and last.count(quote.encode()) % 2 and lines:
        last = lines.pop() + b"\n" + last
    wanted, there = (_cells(line, separator, quote) for line in (first, last))
    if there < wanted:
        raise InputError(
            f"{path} ends within a row: the last one has {there} of {wanted} cells and no line end. "
            "Download it again, or end the line if nothing is missing."
        )


def _cells(lines: bytes, separator: str, quote: str | None) -> int:
    """Count the cells of the last row of some lines."""
    text = lines.decode("utf-8", "replace").strip("\r\n")
    if not quote:
        return text.count(separator) + 1
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator, quotechar=quote)
    try:
        return len((list(rows) or [[]])[-1])  # a line of nothing but NUL has no row
    except csv.Error:  # such as a cell of more than 128 KiB: Polars will find the error
        return sys.maxsize


def require_columns(frame: pl.DataFrame, names: Iterable[str], where: Path, what: str) -> None:
    """Raise InputError for a table that lacks one of some columns."""
    if missing := next((name for name in names if name not in frame.columns), None):
        raise InputError(f"{where} has no column {missing!r}, but {columns_said(frame)}: expected is {what}.")


def columns_said(frame: pl.DataFrame) -> str:
    """Say which columns the first line of a table gives."""
    return f"its first line gives {some_of([repr(name[:40]) for name in frame.columns], most=12)}"
