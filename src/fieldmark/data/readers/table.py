"""A table of photos: CSV, TSV or Parquet with the columns `file_name,label[,split][,group]`.

Optional columns: `common_name`, `supercategory`, `name` (the
scientific name), the ranks from `kingdom` to `species`, `licence`, `rights_holder`, `location`,
`deployment` and `taken`. File names are relative to the table's folder, or absolute. A photo without a
label is unlabelled.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from fieldmark.data.photos import PhotoTable
from fieldmark.data.readers import inat_export, parquet, tabular
from fieldmark.data.readers.base import Reader, no_photos
from fieldmark.utils.errors import InputError, first_line

_TEXT_SUFFIXES = {".csv": ",", ".tsv": "\t"}
_NEEDED = ("file_name", "label")
_READ = (
    *(*_NEEDED, "split", "group", "licence", "rights_holder", "location", "deployment", "taken"),
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
    claims = (parquet.bytes_column, inat_export.is_export)
    return known and not any(claim(path) for claim in claims)


def _read(path: Path) -> PhotoTable:
    given = _load(path)
    if given.is_empty():
        raise no_photos(path, "expected is a header and a row for each photo")
    return tabular.to_photo_table(given, path, path.parent, READER.name, trusted=True)


def from_frame(frame: Any) -> PhotoTable:
    """Read a pandas or Polars data frame with the columns of a table of photos.

    File names are absolute, or relative to the current folder.

    Raises:
        InputError: a column is missing, or there is no row.
    """
    where = Path("data frame")
    if not isinstance(frame, pl.DataFrame):
        # Through plain lists, so that pandas needs no PyArrow for this.
        frame = pl.DataFrame(
            {str(name): list(map(_cell, frame[name])) for name in frame.columns},
            schema={str(name): pl.String for name in frame.columns},
        )
    given = _chosen(frame.cast(pl.String), where)
    if given.is_empty():
        raise no_photos(where, "expected is a row for each photo")
    return tabular.to_photo_table(given, where, Path.cwd(), READER.name, trusted=True)


def _cell(value: Any) -> str | None:
    """Convert a cell of pandas to text; None where it is missing."""
    return None if value is None or value != value else str(value)  # noqa: PLR0124  # NaN


def _load(path: Path) -> pl.DataFrame:
    """Read all columns as stripped text; an empty cell is null."""
    separator = _TEXT_SUFFIXES.get(path.suffix.lower())
    try:
        if separator is None:
            frame = pl.read_parquet(path)
        else:
            tabular.check_complete(path, separator)
            frame = pl.read_csv(path, separator=separator, infer_schema=False)
        return _chosen(frame, path)
    except pl.exceptions.NoDataError as error:
        raise InputError(f"{path} is empty: expected is {_EXPECTS}.") from error
    except (OSError, pl.exceptions.PolarsError) as error:
        raise InputError(f"{path} could not be read as a table ({first_line(error)}).") from error


def _chosen(frame: pl.DataFrame, path: Path) -> pl.DataFrame:
    """Select the known columns, under their usual names."""
    frame = frame.rename(lambda name: name.strip().lower())
    for other, name in _RENAMED.items():
        if other in frame.columns and name not in frame.columns:
            frame = frame.rename({other: name})
    frame = tabular.clean(frame.select(name for name in _READ if name in frame.columns))
    for name in _NEEDED:
        if name not in frame.columns:
            raise InputError(
                f"{path} has no column {name!r}: rename one of its columns; expected is {_EXPECTS}."
            )
    return frame


READER = Reader("table", _EXPECTS, _matches, _read)
