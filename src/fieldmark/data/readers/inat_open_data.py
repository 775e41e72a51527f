"""A mirror of iNaturalist Open Data: its tables, and photos at `photos/PHOTO_ID/SIZE.EXTENSION`.

https://github.com/inaturalist/inaturalist-open-data. Of a partial mirror the photos that exist are
listed; without any, all of the tables. The tables are read block by block, so that memory grows with the
photos and not with the tables.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

import polars as pl

from fieldmark.data.photos import PhotoTable
from fieldmark.data.readers import inat_tables, tabular
from fieldmark.data.readers.base import Reader, first_reason
from fieldmark.data.taxonomy import RANKS
from fieldmark.utils.errors import InputError, RejectReason
from fieldmark.utils.logging import progress_bar

logger = logging.getLogger(__name__)

_EXPECTS = "a mirror of iNaturalist Open Data (photos, observations and taxa.csv.gz)"
_NEEDED = ("photos", "observations", "taxa")


def _tables(folder: Path) -> dict[str, Path]:
    """Return the tables in a folder by their names."""
    packed = ((name, folder / f"{name}.csv{end}") for end in ("", ".gz") for name in inat_tables.NAMES)
    return {name: path for name, path in packed if path.is_file()}


def _is_mirror(path: Path) -> bool:
    return {*_NEEDED} <= _tables(path).keys()


def _read(path: Path) -> PhotoTable:
    there = _tables(path)
    if lacking := [name for name in _NEEDED if name not in there]:
        raise InputError(f"{path} has no {lacking[0]}.csv.gz: expected is {_EXPECTS}.")
    local = _find_files(path / "photos")
    photos = _photos(there["photos"], local)
    if photos.is_empty():
        raise InputError(f"{path}: none of the files in photos is in the table of photos.")
    wanted = photos["observation_uuid"].unique().implode()
    columns = ("observation_uuid", "taxon_id", "quality_grade")
    observed = _rows(there["observations"], columns, pl.col("observation_uuid").is_in(wanted))
    observed = observed.unique("observation_uuid").with_columns(
        pl.col("taxon_id").cast(pl.Int64, strict=False), seen=True
    )
    if doubtful := observed.filter(pl.col("quality_grade") != "research").height:
        logger.info(f"{doubtful:,} of {observed.height:,} observations are not of research grade.")
    taxa = inat_tables.labels(there["taxa"], observed["taxon_id"].drop_nulls())
    rows = tabular.add(tabular.add(photos, observed, on="observation_uuid"), taxa, on="taxon_id")
    rows = tabular.add(rows, _observers(there.get("observers"), rows), on="observer_id")
    given = rows.select(
        *(*RANKS, "label", "file_name", "rights_holder"),
        id="photo_id",
        group="observation_uuid",
        name="label",
        licence="license",
        reason=first_reason((pl.col("seen").is_null(), RejectReason.NO_LABEL)),
    )
    return tabular.to_photo_table(given, path, path, READER.name)


def _find_files(folder: Path) -> dict[str, str] | None:
    """Return the file of the largest size of each photo by its id."""
    if not folder.is_dir():
        return None
    found = {}
    with progress_bar("Finding photos", unit="photos") as bar:
        for entry in os.scandir(folder):
            names = os.listdir(entry.path) if entry.is_dir() else []  # noqa: PTH208  # no Path each
            sizes = {name.partition(".")[0]: name for name in names}
            best = next((sizes[size] for size in inat_tables.SIZES if size in sizes), None)
            if best:
                found[entry.name] = f"{folder.name}/{entry.name}/{best}"
                bar.advance()
    return found


def _rows(path: Path, columns: tuple[str, ...], wanted: pl.Expr) -> pl.DataFrame:
    """Read the matching rows of a table, block by block."""
    return pl.concat(block.filter(wanted) for block in inat_tables.blocks(path, columns))


def _photos(path: Path, local: dict[str, str] | None) -> pl.DataFrame:
    """Read one row a photo: those that exist, or without any, all of the table."""
    columns = ("photo_id", "observation_uuid", "observer_id", "extension", "license")
    if not local:
        rows = _rows(path, columns, pl.col("photo_id").is_not_null())
        return rows.with_columns(file_name=pl.format("photos/{}/medium.{}", "photo_id", "extension"))
    here = pl.DataFrame({"photo_id": list(local), "file_name": list(local.values())})
    rows = _rows(path, columns, pl.col("photo_id").is_in(here["photo_id"].implode()))
    found = tabular.add(rows, here, on="photo_id")
    if unlisted := here.height - found["photo_id"].n_unique():
        logger.info(f"{unlisted:,} photos are not in {path.name}: they are left out.")
    return found


def _observers(path: Path | None, rows: pl.DataFrame) -> pl.DataFrame:
    """Read the name of each observer of some rows: `observer_id`, `rights_holder`."""
    wanted = rows["observer_id"].unique()
    if path is None:
        return pl.DataFrame({"observer_id": wanted, "rights_holder": wanted})
    columns = ("observer_id", "login", "name")
    known = _rows(path, columns, pl.col("observer_id").is_in(wanted.implode()))
    holder = pl.coalesce("name", "login")
    return known.unique("observer_id").select("observer_id", rights_holder=holder)


READER = Reader("inat-open-data", _EXPECTS, _is_mirror, _read)
