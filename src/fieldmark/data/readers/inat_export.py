"""iNaturalist's export of observations: a CSV file, or its zip, one row an observation.

https://www.inaturalist.org/observations/export. The columns are selected there; `id`, `image_url` (of
the first photo) and `scientific_name` are required. Offline copies are searched below the file's folder.
"""

from __future__ import annotations

import csv
import logging
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import IO

import polars as pl

from fieldmark.data.photos import PhotoTable
from fieldmark.data.readers import offline_media, scientific_names, tabular
from fieldmark.data.readers.base import Reader, no_photos
from fieldmark.data.taxonomy import RANKS
from fieldmark.utils import io
from fieldmark.utils.errors import InputError

logger = logging.getLogger(__name__)

_EXPECTS = "an iNaturalist export (a CSV, or its zip, with id, image_url and scientific_name)"
_LARGEST = 2**32
"""Bytes of a table in a zip: an export has at most 200,000 observations."""
_NEEDED = ("id", "image_url", "scientific_name")
_TYPICAL = {"quality_grade", "iconic_taxon_name", "user_login", "species_guess", "observed_on"}
"""Columns that a user's own list rarely has together with `image_url`."""


def is_export(path: Path) -> bool:
    """Return whether a file is such an export, or the zip of one, by its header."""
    try:
        with _opened(path) as handle:
            header = set(next(csv.reader(handle), []))
    except (OSError, ValueError, zipfile.BadZipFile, csv.Error):
        return False
    return {"id", "image_url"} <= header and bool(_TYPICAL & header) and "file_name" not in header


def _exports_in(path: Path) -> list[Path]:
    """Return the exports at the top of a folder, or the path itself."""
    there = sorted(path.iterdir()) if path.is_dir() else [path]
    return [each for each in there if each.suffix.lower() in (".csv", ".zip") and is_export(each)]


@contextmanager
def _opened(path: Path) -> Iterator[IO[str]]:
    """Open the table as text; `ValueError` for what is neither a CSV file nor a zip of one."""
    if path.suffix.lower() == ".csv":
        with path.open(encoding="utf-8-sig", newline="") as handle:
            yield handle
    else:
        with zipfile.ZipFile(path) as archive, archive.open(_inside(archive)) as packed:
            yield TextIOWrapper(packed, encoding="utf-8-sig", newline="")


def _inside(archive: zipfile.ZipFile) -> str:
    found = [name for name in archive.namelist() if name.lower().endswith(".csv")]
    if len(found) != 1:
        raise ValueError("it has no table, or several")
    return found[0]


def _rows(path: Path) -> pl.DataFrame:
    if path.suffix.lower() != ".zip":
        return tabular.read_text_table(path)
    try:
        with zipfile.ZipFile(path) as archive:
            name = _inside(archive).rpartition("/")[2]
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} could not be read ({error}): expected is {_EXPECTS}.") from error
    return tabular.read_text_table(io.unzip(path, {name: _LARGEST}) / name)


def _read(path: Path) -> PhotoTable:
    found = _exports_in(path) if path.is_dir() else [path]
    if len(found) != 1:
        several = ", ".join(each.name for each in found) or "none"
        raise InputError(f"{path} holds several exports or none ({several}): name one file.")
    path = found[0]
    rows = _rows(path)
    tabular.require_columns(rows, _NEEDED, path, _EXPECTS)
    pictured = rows.filter(pl.col("image_url").is_not_null())
    if pictured.is_empty():
        raise no_photos(path, "none of its observations has an image_url")
    if without := rows.height - pictured.height:
        logger.info(f"{without:,} observations without a photo are left out.")
    grade = pl.col("quality_grade")
    if "quality_grade" in rows.columns and (doubtful := pictured.filter(grade != "research").height):
        logger.info(f"{doubtful:,} of {pictured.height:,} observations are not of research grade.")
    copies = offline_media.find_copies(path.parent, pictured.select("image_url", "id"))
    rows = _completed(pictured).with_columns(label=scientific_names.label())
    given = rows.select(
        *scientific_names.ranks(),
        *("label", "id"),
        file_name=copies,
        group="id",
        name="label",
        common_name=pl.when(pl.col("label") == pl.col("scientificName")).then("common_name"),
        supercategory="iconic_taxon_name",
        licence="license",
        rights_holder=pl.coalesce("user_name", "user_login"),
    )
    return tabular.to_photo_table(given, path, path.parent, READER.name)


def _completed(rows: pl.DataFrame) -> pl.DataFrame:
    """Rename the columns to Darwin Core's terms; add the missing ones as null."""
    renamed = {f"taxon_{rank}_name": rank for rank in RANKS} | {"scientific_name": "scientificName"}
    rows = rows.rename({old: new for old, new in renamed.items() if old in rows.columns})
    if "taxon_hybrid_name" in rows.columns:  # the species column has then the one that it is filed under
        hybrid = pl.col("taxon_hybrid_name")
        rows = rows.with_columns(scientificName=pl.coalesce(hybrid, "scientificName"))
        if "species" in rows.columns:
            rows = rows.with_columns(species=pl.when(hybrid.is_null()).then("species"))
    more = ("common_name", "iconic_taxon_name", "license", "user_name", "user_login")
    return tabular.with_missing(rows, (*scientific_names.TERMS, *more))


READER = Reader("inat-export", _EXPECTS, _exports_in, _read, searches_folder=True)
