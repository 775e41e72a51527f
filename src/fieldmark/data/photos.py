"""PhotoTable: one row a photo, with its status and the reason for a rejection.

A photo is never deleted from a table: what cannot be used stays as `rejected`, with its reason. So
`kept + rejected == found` holds for every table.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from fieldmark.data.locations import DEGREES, SEEN
from fieldmark.data.storage import places
from fieldmark.data.storage.places import File, Place
from fieldmark.data.taxonomy import Taxonomy
from fieldmark.utils import io
from fieldmark.utils.errors import ImageRejected, InputError, RejectReason

KEPT = "kept"
REJECTED = "rejected"

_HARD_REASONS = ("SUSPECT_LABEL", "DARK", "BLURRED", "TINY", "ROTATED")
HARD = tuple(RejectReason[name].value for name in _HARD_REASONS)
"""The reasons of hard photos. They are measured but never learned from, so that an error cannot be lowered
by rejecting them."""

IS_KEPT = pl.col("status") == KEPT
IS_HARD = (pl.col("status") == REJECTED) & pl.col("reason").is_in(HARD) & pl.col("taxon_id").is_not_null()

SCHEMA: dict[str, pl.DataType] = {
    "id": pl.String(),  # unique in the table; the source's own id where it has one
    "path": pl.String(),  # as the source writes it, relative to the table's root
    "sha256": pl.String(),  # of the file's bytes; null where the file was not read
    "width": pl.Int32(),  # pixels, after EXIF orientation; null where unknown
    "height": pl.Int32(),
    "taxon_id": pl.String(),  # null for an unlabelled photo
    "group": pl.String(),  # what must stay in one part of a split; null: the photo is in no group
    "split": pl.String(),  # the source's own part: train, val, test; null where it has none
    "status": pl.String(),  # kept or rejected
    "reason": pl.String(),  # why it was rejected; null for a kept one
    "licence": pl.String(),  # as the source writes it; null: unknown
    "rights_holder": pl.String(),  # the owner to name with the photo
    "location": pl.String(),  # the camera's location, as the source names it; null: unknown
    "deployment": pl.String(),  # the deployment of the camera (Camtrap DP); null: unknown
    "taken": pl.String(),  # when, as the source writes it (ISO 8601); null: unknown
    "sequence": pl.String(),  # the sequence or event that the source puts it in; null: none, or unknown
    "latitude": pl.Float64(),  # where, in degrees; null: unknown
    "longitude": pl.Float64(),
    "temperature": pl.Float64(),  # of the camera, in degrees Celsius; null: unknown
    "camera_model": pl.String(),  # its maker and model; null: unknown
    "camera_serial": pl.String(),  # its serial number; null: unknown
}

_LATER = (*("licence", "rights_holder", "location", "deployment", "taken", "sequence"), *SEEN)
"""Columns that older tables do not have."""

# Tables are the same wherever the photos are stored, whoever holds the rights and whenever they were
# taken; a location counts where it is the group.
_NOT_IN_DIGEST = frozenset({"path", *_LATER})

_METADATA_KEY = "fieldmark"

# Exceptions of reading another or a damaged file; Polars panics on some.
_DAMAGE = (OSError, KeyError, TypeError, ValueError, pl.exceptions.PolarsError, pl.exceptions.PanicException)


@dataclass(frozen=True, slots=True)
class PhotoFile:
    """A photo to decode: the digest of its bytes, and where it is stored."""

    sha256: str
    path: Place


@dataclass(frozen=True)
class PhotoTable:
    """Photos, one row each, and the taxa of their labels.

    Attributes:
        frame: the rows, with the columns of `SCHEMA` in that order; `id` is unique.
        taxonomy: all taxa of the source, also those without a photo.
        root: the folder, or the URL, that `path` is below.
        source: the layout, a name in `fieldmark.data.readers.READERS`.
        box_threshold: where rows are boxes of photos, the confidence from which on one is a row; None: whole
            photos.
    """

    frame: pl.DataFrame
    taxonomy: Taxonomy
    root: File
    source: str
    box_threshold: float | None = None

    def __post_init__(self) -> None:
        if self.frame.schema != pl.Schema(SCHEMA):
            raise ValueError(f"a photo table has the columns {list(SCHEMA)} in this order")

    def __len__(self) -> int:
        return self.frame.height

    @property
    def kept(self) -> pl.DataFrame:
        """Return the rows that can be used."""
        return self.frame.filter(IS_KEPT)

    @property
    def labelled(self) -> pl.DataFrame:
        """Return the rows that can be used and have a label."""
        return self.kept.filter(pl.col("taxon_id").is_not_null())

    @property
    def measurable(self) -> pl.DataFrame:
        """Return the labelled rows that an error can be measured on: also those of hard photos."""
        return self.frame.filter((IS_KEPT & pl.col("taxon_id").is_not_null()) | IS_HARD)

    @property
    def hard(self) -> list[str]:
        """Return the ids of the hard photos."""
        return self.frame.filter(IS_HARD)["id"].to_list()

    @property
    def has_test(self) -> bool:
        """Return whether the source has a test part with labelled photos."""
        return "test" in set(self.measurable["split"].drop_nulls())

    def reasons(self) -> dict[str, int]:
        """Count the rejected photos by reason, the most frequent first."""
        counts = self.frame.filter(pl.col("status") == REJECTED).group_by("reason").len()
        return dict(counts.sort("len", "reason", descending=[True, False]).iter_rows())

    def rejected_names(self, most: int = 20) -> dict[str, list[str]]:
        """Return the paths of the first photos that were rejected for each reason."""
        rows = self.frame.filter(pl.col("status") == REJECTED)
        grouped = rows.group_by("reason").agg(pl.col("path").head(most))
        return dict(grouped.sort("reason").iter_rows())

    def with_frame(self, frame: pl.DataFrame) -> PhotoTable:
        """Return the table with other rows."""
        return replace(self, frame=frame.select(list(SCHEMA)))

    def reject_files(self, rejected: Mapping[str, ImageRejected]) -> PhotoTable:
        """Return the table with photos rejected that could not be decoded, by the SHA-256 of their bytes."""
        table = self
        for digest, error in rejected.items():
            ids = table.frame.filter(pl.col("sha256") == digest)["id"].to_list()
            table = table.reject(ids, error.reason.value)
        return table

    def reject(self, ids: Iterable[str], reason: str) -> PhotoTable:
        """Return the table with some photos rejected; an earlier reason stays, but that of a hard photo."""
        free = IS_KEPT if reason in HARD else IS_KEPT | IS_HARD
        hit = pl.col("id").is_in(list(ids)) & free
        return self.with_frame(
            self.frame.with_columns(
                status=pl.when(hit).then(pl.lit(REJECTED)).otherwise("status"),
                reason=pl.when(hit).then(pl.lit(reason)).otherwise("reason"),
            )
        )

    def file_of(self, path: str) -> Place:
        """Return where the photo with this `path` is stored."""
        return places.at(self.root, path)

    def digest(self) -> str:
        """Return a digest of the photos, independent of the order of the rows."""
        columns = (name for name in SCHEMA if name not in _NOT_IN_DIGEST)
        rows = self.frame.select(columns).sort("id").write_csv().encode()
        return io.digest([io.sha256(rows), self.taxonomy.to_json()])

    def write(self, path: Path) -> None:
        """Write the table as one Parquet file; taxonomy, root and source go into its metadata."""
        root, taxonomy = str(places.absolute(self.root)), self.taxonomy.to_json()
        about: dict[str, Any] = {"root": root, "source": self.source, "taxonomy": taxonomy}
        about |= {} if self.box_threshold is None else {"box_threshold": self.box_threshold}
        io.write_table(path, self.frame, {_METADATA_KEY: json.dumps(about, ensure_ascii=False)})

    @classmethod
    def read(cls, path: Path) -> PhotoTable:
        """Read what `write` wrote; `InputError` for any other file."""
        try:
            about = json.loads(pl.read_parquet_metadata(path)[_METADATA_KEY])
            frame, taxonomy = pl.read_parquet(path), Taxonomy.from_json(about["taxonomy"])
            lacking = {name: pl.lit(None, SCHEMA[name]) for name in _LATER if name not in frame.columns}
            frame, root = frame.with_columns(**lacking), places.root_of(about["root"])
            return cls(frame, taxonomy, root, about["source"], about.get("box_threshold"))
        except _DAMAGE as error:
            raise InputError(
                f"{path} is not a table written by `fieldmark index` ({error}): "
                "write it again with `fieldmark index PHOTOS --out FILE`."
            ) from error


def coordinates(table: PhotoTable) -> dict[str, tuple[float, float]]:
    """Return latitude and longitude of the locations, in degrees: the medians of their photos'."""
    known = table.frame.drop_nulls(["location", "latitude", "longitude"]).group_by("location")
    rows = known.agg(pl.col("latitude", "longitude").median()).iter_rows()
    return {name: (latitude, longitude) for name, latitude, longitude in rows}


def by_location(table: PhotoTable) -> PhotoTable:
    """Group the photos by location, so that no location is in two parts of a split.

    A photo without a location keeps its group; without any location `InputError` is raised.
    """
    if table.frame["location"].null_count() == len(table):
        raise InputError(f"{table.root}: no photo has a location: it cannot be divided by location.")
    return table.with_frame(table.frame.with_columns(group=pl.coalesce("location", "group")))


def degrees(name: str, most: float) -> pl.Expr:
    """Return a column of degrees as numbers; null where a value is no number or cannot be."""
    value = pl.col(name).cast(pl.Float64, strict=False)
    return pl.when(value.is_between(-most, most)).then(value).alias(name)


def build_frame(columns: Mapping[str, Any] | pl.DataFrame) -> pl.DataFrame:
    """Build rows in the table's schema from some of its columns; the others are null.

    The status is that of the reason, if it is not given: rejected with one, kept without. Degrees that
    cannot be are null.
    """
    frame = pl.DataFrame(columns)
    frame = frame.with_columns(degrees(name, most) for name, most in DEGREES.items() if name in frame.columns)
    if "status" not in frame.columns:
        rejected = pl.col("reason").is_not_null() if "reason" in frame.columns else pl.lit(False)
        frame = frame.with_columns(status=pl.when(rejected).then(pl.lit(REJECTED)).otherwise(pl.lit(KEPT)))
    return frame.select(
        (pl.col(name) if name in frame.columns else pl.lit(None)).cast(dtype).alias(name)
        for name, dtype in SCHEMA.items()
    )
