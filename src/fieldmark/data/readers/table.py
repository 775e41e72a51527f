"""A table of photos: CSV, TSV or Parquet with the columns `file_name,label[,split][,group]`.

Optional columns: `common_name`, `supercategory`, `name` (the scientific name), the ranks from `kingdom` to
`species`, `licence`, `rights_holder`, `location`, `deployment`, `taken`, `sequence`, `latitude` and
`longitude`. File names are relative to the table's folder, or absolute. A photo without a label is
unlabelled.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from fieldmark.data.locations import DEGREES
from fieldmark.data.photos import PhotoTable
from fieldmark.data.readers import inat_export, parquet, tabular
from fieldmark.data.readers.base import Reader, no_photos, table_errors
from fieldmark.utils.errors import InputError

_TEXT_SUFFIXES = {".csv": ",", ".tsv": "\t"}
_NEEDED = ("file_name", "label")
_READ = (
    *(*_NEEDED, "split", "group", "licence", "rights_holder", "location", "deployment", "taken"),
    "sequence",
    *DEGREES,
    *tabular.TAXON_COLUMNS,
)
_RENAMED = {"license": "licence", "attribution": "rights_holder", "observer": "rights_holder"}
"""Other names of these columns, as written by `fieldmark fetch`; the first that exists is read."""
_EXPECTS = "a CSV, TSV or Parquet table with the columns file_name,label[,split][,group]"


def is_index(path: Path) -> bool:
    """Return whether a file is a photo table that `fieldmark index` wrote."""
    if path.suffix.lower() != ".parquet" or not path.is_file():
        return False
    try:
        return "fieldmark" in pl.read_parquet_metadata(path)
    except (OSError, pl.exceptions.PolarsError):
        return False


def _matches(path: Path) -> bool:
    known = path.suffix.lower() in {*_TEXT_SUFFIXES, ".parquet"} and path.is_file()
    return known and not parquet.bytes_column(path) and not inat_export.is_export(path)


def _read(path: Path) -> PhotoTable:
    with table_errors(f"{path} could not be read as a table", f"expected is {_EXPECTS}"):
        if separator := _TEXT_SUFFIXES.get(path.suffix.lower()):
            frame = tabular.read_text_table(path, separator, advice=f"expected is {_EXPECTS}")
        else:
            frame = pl.read_parquet(path)
        frame = _chosen(frame, path)
    return _to_photo_table(frame, path, path.parent)


def from_frame(frame: Any) -> PhotoTable:
    """Read a pandas or Polars data frame with the columns of a table of photos.

    File names are absolute, or relative to the current folder.

    Raises:
        InputError: a column is missing, or there is no row.
    """
    if not isinstance(frame, pl.DataFrame):
        # Through plain lists, so that pandas needs no PyArrow for this.
        columns = {str(name): list(map(_cell, frame[name])) for name in frame.columns}
        frame = pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String))
    where = Path("data frame")
    return _to_photo_table(_chosen(frame.cast(pl.String), where), where, Path.cwd())


def _cell(value: Any) -> str | None:
    """Convert a cell of pandas to text; None where it is missing."""
    return None if value is None or value != value else str(value)  # noqa: PLR0124  # NaN


def _chosen(frame: pl.DataFrame, where: Path) -> pl.DataFrame:
    """Select the known columns, under their usual names."""
    frame = frame.rename(lambda name: name.strip().lower())
    for other, name in _RENAMED.items():
        if other in frame.columns and name not in frame.columns:
            frame = frame.rename({other: name})
    frame = tabular.clean(frame.select(name for name in _READ if name in frame.columns))
    for name in _NEEDED:
        if name not in frame.columns:
            raise InputError(
                f"{where} has no column {name!r}: rename one of its columns; expected is {_EXPECTS}."
            )
    return frame


def _to_photo_table(frame: pl.DataFrame, where: Path, root: Path) -> PhotoTable:
    if frame.is_empty():
        raise no_photos(where, "expected is a row for each photo below the names of the columns")
    return tabular.to_photo_table(frame, where, root, READER.name, trusted=True)


READER = Reader("table", _EXPECTS, _matches, _read)
