"""A table of photos: CSV, TSV, Excel or Parquet with the columns `file_name,label[,split][,group]`.

Optional columns: `common_name`, `supercategory`, `name` (the scientific name), the ranks from `kingdom` to
`species`, `licence`, `rights_holder`, `location`, `deployment`, `taken`, `sequence`, `latitude` and
`longitude`; see `column_names` for other names of them. File names are relative to the table's folder, or
absolute. A photo without a label is unlabelled.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import polars as pl

from fieldmark.data.locations import DEGREES
from fieldmark.data.photos import PhotoTable
from fieldmark.data.readers import column_names, inat_export, parquet, tabular
from fieldmark.data.readers.base import Reader, no_photos, table_errors
from fieldmark.utils.errors import InputError

logger = logging.getLogger(__name__)

_TEXT_SUFFIXES = (".csv", ".tsv", ".xlsx")
_READ = (
    *("file_name", "label", "split", "group", "licence", "rights_holder", "location", "deployment", "taken"),
    "sequence",
    *DEGREES,
    *tabular.TAXON_COLUMNS,
)
_EXPECTS = "a CSV, TSV, Excel or Parquet table with the columns file_name,label[,split][,group]"


def is_index(path: Path) -> bool:
    """Return whether a file is a photo table that `fieldmark index` wrote."""
    if path.suffix.lower() != ".parquet" or not path.is_file():
        return False
    try:
        return "fieldmark" in pl.read_parquet_metadata(path)
    except (OSError, pl.exceptions.PolarsError):
        return False


def _matches(path: Path) -> bool:
    known = path.suffix.lower() in (*_TEXT_SUFFIXES, ".parquet") and path.is_file()
    return known and not parquet.bytes_column(path) and not inat_export.is_export(path)


def _read(path: Path) -> PhotoTable:
    with table_errors(f"{path} could not be read as a table", f"expected is {_EXPECTS}"):
        if path.suffix.lower() in _TEXT_SUFFIXES:
            frame = tabular.read_text_table(path, advice=f"expected is {_EXPECTS}")
        else:
            frame = pl.read_parquet(path)
        predicted = column_names.is_predicted(frame)
        frame = _chosen(_corrected(frame, path) if predicted else frame, path)
    here = predicted and not (path.parent / frame["file_name"][0]).exists() if len(frame) else False
    return _to_photo_table(frame, path, Path.cwd() if here else path.parent)


def _corrected(frame: pl.DataFrame, path: Path) -> pl.DataFrame:
    """Return what a person may have corrected in a table of `fieldmark predict`: the name of each photo.

    Its files are named as in that command, so they may be below the current folder.
    """
    if unsure := frame.filter((pl.col("sure") == "no") & pl.col("name").is_not_null()).height:
        logger.warning(
            f"{path.name} was written by predict: its names count as labels, {unsure:,} of them with "
            "sure = no. Delete the rows that nobody has looked at."
        )
    kept = ("file", "name", "date", "place", *DEGREES)
    return frame.select(name for name in kept if name in frame.columns)


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
    if column_names.has_candidates(frame):
        raise InputError(
            f"{where} has a row a candidate: correct the names in one of predict without --candidates."
        )
    given = tabular.columns_said(frame)
    frame = frame.rename(lambda name: name.strip().lower())
    # Columns of other types than text, such as pictures, are of no use here.
    texts = [name for name, kind in frame.schema.items() if not kind.is_nested() and kind != pl.Binary]
    frame = column_names.with_usual_names(tabular.clean(frame.select(texts)))
    frame = frame.select(name for name in _READ if name in frame.columns)
    for name, others in (("file_name", "file, path, photo"), ("label", "species, name, class")):
        if name not in frame.columns:
            raise InputError(
                f"{where} has no column {name!r} (or {others} …), but {given}: rename one of its columns; "
                f"expected is {_EXPECTS}."
            )
    return frame


def _to_photo_table(frame: pl.DataFrame, where: Path, root: Path) -> PhotoTable:
    if frame.is_empty():
        raise no_photos(where, "expected is a row for each photo below the names of the columns")
    return tabular.to_photo_table(frame, where, root, READER.name, trusted=True)


READER = Reader("table", _EXPECTS, _matches, _read)
