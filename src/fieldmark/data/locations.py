"""Where and when photos were taken: latitude, longitude and the day of the year."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from fieldmark.data import images
from fieldmark.data.storage import places
from fieldmark.data.storage.places import Place
from fieldmark.utils.threads import in_order
from fieldmark.utils.typing import BoolArray, DoubleArray, IntArray

if TYPE_CHECKING:
    from fieldmark.data.photos import PhotoTable

DEGREES = {"latitude": 90.0, "longitude": 180.0}
"""The columns of a place, and the largest value of each."""

OF_CAMERA = ("temperature", "camera_model", "camera_serial")
"""The columns that tell of the camera itself."""

SEEN = (*DEGREES, *OF_CAMERA)
"""The columns that cameras write into photos: the place, the temperature in degrees Celsius, maker and model,
and the camera's serial number."""

Location = tuple[float, float, int]
"""Latitude and longitude in degrees, NaN where they are unknown, and the day of the year, 0 likewise."""


@dataclass(frozen=True, eq=False)
class Locations:
    """Places and days, N of them.

    Attributes:
        latitude_N: in degrees; NaN: unknown.
        longitude_N: likewise.
        day_N: of the year, 1 to 366; 0: unknown.
    """

    latitude_N: DoubleArray
    longitude_N: DoubleArray
    day_N: IntArray

    @classmethod
    def of(cls, rows: Iterable[Location]) -> Locations:
        """Put locations into arrays."""
        table_N3 = np.array([*rows], np.float64).reshape(-1, 3)
        return cls(table_N3[:, 0], table_N3[:, 1], table_N3[:, 2].astype(np.int64))

    def __len__(self) -> int:
        return len(self.day_N)

    def where(self, rows: BoolArray | IntArray) -> Locations:
        """Return some of them."""
        return Locations(self.latitude_N[rows], self.longitude_N[rows], self.day_N[rows])

    @property
    def known_N(self) -> BoolArray:
        """Return which have a place."""
        found: BoolArray = np.isfinite(self.latitude_N) & np.isfinite(self.longitude_N)
        return found


def day_of_year(taken: str | None) -> int:
    """Return the day of the year of a date or time that begins as in ISO 8601 or EXIF; 0 for any other."""
    found = re.match(r"\s*(\d{4})[-:/](\d\d?)[-:/](\d\d?)(?!\d)", taken or "")
    try:
        return date(*map(int, found.groups())).timetuple().tm_yday if found else 0
    except ValueError:  # the 31st of June
        return 0


def location_of(place: Place, latitude: float | None, longitude: float | None, taken: str | None) -> Location:
    """Return where and when a photo was taken: as its list says, else as its EXIF data do.

    Only files of this machine are read.
    """
    day = day_of_year(taken)
    if (latitude is None or longitude is None or not day) and places.is_local(place):
        found = images.exif_of(place)
        day = day or day_of_year(found.taken)
        if latitude is None or longitude is None:
            latitude, longitude = found.latitude, found.longitude
    if latitude is None or longitude is None:
        return np.nan, np.nan, day
    return latitude, longitude, day


def with_exif(table: PhotoTable) -> PhotoTable:
    """Fill in when, where, by which camera and at which temperature kept photos were taken, from their EXIF
    data, where their list does not say.

    Only files of this machine are read.
    """
    import polars as pl

    unknown = pl.any_horizontal(pl.col(name).is_null() for name in ("taken", *SEEN))
    rows = [
        (number, place)
        for number, path in table.kept.filter(unknown).select("id", "path").iter_rows()
        if places.is_local(place := places.photo_of(table.file_of(path)))
    ]
    found = in_order(images.exif_of, [place for _, place in rows])
    read = [
        (number, *(None if (its := getattr(each, name)) == "" else its for name in ("taken", *SEEN)))
        for (number, _), each in zip(rows, found, strict=True)
    ]
    texts = ("id", "taken", "camera_model", "camera_serial")
    schema = {name: pl.String if name in texts else pl.Float64 for name in ("id", "taken", *SEEN)}
    new = pl.DataFrame(read, schema, orient="row")
    frame = table.frame.join(new, on="id", how="left", suffix="_seen", maintain_order="left")
    no_place = pl.any_horizontal(pl.col(name).is_null() for name in DEGREES)
    frame = frame.with_columns(
        *(pl.coalesce(name, f"{name}_seen").alias(name) for name in ("taken", *OF_CAMERA)),
        *(pl.when(no_place).then(f"{name}_seen").otherwise(name).alias(name) for name in DEGREES),
    )
    return table.with_frame(frame)


def locations_of(table: PhotoTable, ids: Sequence[str]) -> tuple[Locations, list[str]]:
    """Return where and when some photos were taken, and the name of each place.

    A name is the location or deployment of the photo, else its coordinates to 0.01 degrees, a kilometre.
    """
    read = cache(location_of)  # the boxes of a photo
    columns = ("id", "path", "location", "deployment", "taken", *DEGREES)
    rows = {row[0]: row[1:] for row in table.frame.select(columns).iter_rows()}
    found, names = [], []
    for each in ids:
        path, location, deployment, taken, *degrees = rows[each]
        found.append(read(places.photo_of(table.file_of(path)), *degrees, taken))
        names.append(location or deployment or f"{found[-1][0]:.2f},{found[-1][1]:.2f}")
    return Locations.of(found), names
