"""A table of occurrences, such as a download of GBIF or iNaturalist: a name, a place and a date a row."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from fieldmark.data.checklist import labels_of
from fieldmark.data.locations import DEGREES, Locations, day_of_year
from fieldmark.data.photos import degrees
from fieldmark.data.readers import column_names, tabular
from fieldmark.data.readers.base import table_errors
from fieldmark.data.species_list import NAMES
from fieldmark.data.taxonomy import Taxon, name_key
from fieldmark.utils.errors import InputError
from fieldmark.utils.typing import IntArray

logger = logging.getLogger(__name__)

_PLACE = {"latitude": ("decimallatitude", "latitude"), "longitude": ("decimallongitude", "longitude")}
_DATES = ("eventdate", "observed_on", "date")
_EXPECTS = (
    "a CSV, TSV or Parquet table with the columns species or scientificName, decimalLatitude, "
    "decimalLongitude and eventDate"
)


def check_columns(path: Path) -> None:
    """Raise InputError where the header of a text lacks a column that `read_occurrences` needs."""
    if path.suffix.lower() in (".csv", ".tsv", ".txt"):
        with path.open("rb") as handle:
            header = handle.readline(1 << 16).decode("utf-8-sig", errors="replace")
        if "\0" not in header:  # UTF-16
            _columns(path, [name.strip().strip('"').lower() for name in re.split("[\t,;]", header)])


def _columns(path: Path, there: Sequence[str]) -> tuple[list[str], dict[str, str | None]]:
    """Return the columns with names, and with latitude and longitude."""
    names = [name for name in NAMES if name in there]
    columns = {each: next((c for c in of if c in there), None) for each, of in _PLACE.items()}
    lacking = [*(["species"] if not names else []), *(each for each, column in columns.items() if not column)]
    if lacking:
        raise InputError(
            f"{path} has no column {lacking[0]}: expected is {_EXPECTS}; a list of species without places is "
            "for `fieldmark predict --prior`."
        )
    return names, columns


def read_occurrences(
    path: Path, taxa: Sequence[Taxon], checklist: Path | None = None
) -> tuple[Locations, IntArray]:
    """Read where and when labels occurred.

    Args:
        path: a table with the columns of a download of GBIF (`species`, `scientificName`, `decimalLatitude`,
            `decimalLongitude`, `eventDate`) or iNaturalist (`scientific_name`, `latitude`, `longitude`,
            `observed_on`).
        taxa: the labels; what an occurrence names is the number of one of them.
        checklist: an archive that tells which other names are of labels, see `fieldmark.data.checklist`.

    Returns:
        The places and days of N occurrences, and the label of each. Rows with another name or without
        coordinates are passed over, and counted in a message.

    Raises:
        InputError: it cannot be read, lacks a column, or has no occurrence of a label.
    """
    frame = _table(path)
    names, columns = _columns(path, frame.columns)
    date = next((name for name in _DATES if name in frame.columns), None)
    known = {name_key(each): at for at, taxon in enumerate(taxa) for each in (taxon.id, taxon.name)}
    rows = frame.select(
        pl.coalesce(names).alias("name"),
        *(pl.col(str(column)).alias(each) for each, column in columns.items()),
        (pl.col(date) if date else pl.lit(None, pl.String)).alias("date"),
    )
    rows = rows.with_columns(column_names.with_point(name) for name in DEGREES)
    rows = rows.with_columns(degrees(name, most) for name, most in DEGREES.items())
    label_of = {name: _label(name, known) for name in rows["name"].unique().drop_nulls()}
    if checklist is not None:
        others = [name for name, label in label_of.items() if label is None]
        found = labels_of(checklist, others, taxa)
        label_of |= {name: each[0] for name, each in found.items() if len(each) == 1}
    rows = rows.with_columns(
        label=pl.col("name").replace_strict(label_of, default=None, return_dtype=pl.Int64)
    )
    named = rows.drop_nulls("label")
    placed = named.drop_nulls(tuple(DEGREES))
    logger.info(
        f"{path.name}: {placed.height:,} of {rows.height:,} occurrences are of a label and have a place; "
        f"{rows.height - named.height:,} have another name, {named.height - placed.height:,} no place."
    )
    if placed.is_empty():
        raise InputError(f"{path} has no occurrence of a label with a place: expected is {_EXPECTS}.")
    days = {text: day_of_year(text) for text in placed["date"].unique().drop_nulls()}
    day_N = [days.get(text, 0) for text in placed["date"]]
    latitude_N, longitude_N = (placed[name].to_numpy().astype(np.float64) for name in DEGREES)
    at = Locations(latitude_N, longitude_N, np.array(day_N, np.int64))
    return at, placed["label"].to_numpy().astype(np.int64)


def _table(path: Path) -> pl.DataFrame:
    with table_errors(f"{path} could not be read as a table", f"expected is {_EXPECTS}"):
        if path.suffix.lower() == ".parquet":
            frame = pl.read_parquet(path)
            texts = [name for name, kind in frame.schema.items() if not kind.is_nested()]
            frame = tabular.clean(frame.select(texts))
        else:
            with path.open("rb") as handle:
                tabs = b"\t" in handle.readline()
            # GBIF's tables have tabs, whatever their suffix is, and no quotes.
            frame = tabular.read_text_table(
                path, "\t" if tabs else None, quote=None if tabs else '"', advice=f"expected is {_EXPECTS}"
            )
    return _lower(frame)


def _lower(frame: pl.DataFrame) -> pl.DataFrame:
    seen: dict[str, str] = {}
    for name in frame.columns:
        seen.setdefault(name.strip().lower(), name)
    return frame.select(pl.col(name).alias(lower) for lower, name in seen.items())


def _label(name: str, known: dict[str, int]) -> int | None:
    """Find the label of a name, with its author or without: Apis mellifera Linnaeus, 1758."""
    words = name.split()
    tried: Iterable[str] = (name, " ".join(words[:2]))
    return next((known[key] for each in tried if (key := name_key(each)) in known), None)
