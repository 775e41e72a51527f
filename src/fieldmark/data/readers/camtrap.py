"""Camtrap DP 1.0: `datapackage.json` with the tables deployments, media and observations.

https://camtrap-dp.tdwg.org. A photo's label is the scientific name of its observations (of the
media file, else of the event at the time of the photo), or one of blank, human, vehicle. Observations by
a person take precedence over those by a machine; photos with only the latter are rejected. The group is
the location (`locationID`, else `deploymentID`). Offline copies are searched for photos behind URLs.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import polars as pl

from fieldmark.data.locations import DEGREES
from fieldmark.data.photos import PhotoTable
from fieldmark.data.readers import offline_media, tabular
from fieldmark.data.readers.base import Reader, first_reason
from fieldmark.data.taxonomy import RANKS
from fieldmark.utils import io
from fieldmark.utils.errors import InputError, RejectReason

logger = logging.getLogger(__name__)

_EXPECTS = "a Camtrap DP (datapackage.json with deployments, media, observations)"
_NEEDED = {
    "deployments": ("deploymentID",),
    "media": ("mediaID", "deploymentID", "filePath"),
    "observations": ("observationID", "deploymentID", "observationType"),
}
_NOTHING = ["NA", "NaN", "nan"]
"""Empty cells, beside "", since Camtrap DP 1.0.2."""
_WARM = r'"AmbientTemperature"\s*:\s*"?(-?\d{1,2}(?:\.\d+)?)(?:\s*°?C)?\s*"?\s*[,}]'
"""The temperature in `exifData`, in degrees Celsius, under ExifTool's name of it."""
_MODEL, _SERIAL = (rf'"{name}"\s*:\s*"([^"\\]+)"' for name in ("Model", "SerialNumber"))
_NO_ANIMAL = ("blank", "human", "vehicle")


def _package_in(path: Path) -> Path | None:
    """Return the `datapackage.json` of a Camtrap DP; None for any other path."""
    about = path / "datapackage.json" if path.is_dir() else path
    return about if about.name == "datapackage.json" and about.is_file() else None


def _read(path: Path) -> PhotoTable:
    about = _package_in(path)
    if about is None:
        raise InputError(f"{path} is not a Camtrap DP: expected is {_EXPECTS}.")
    package = io.read_json(about)
    tables = {name: _table(package, name, about) for name in _NEEDED}
    media = _photos(tables["media"])
    labels = _labels(media, tables["observations"])
    rows = tabular.add(media, labels, on="mediaID")
    rows = tabular.add(rows, _places(tables["deployments"]), on="deploymentID")
    rows = tabular.with_missing(rows, ("eventID", "exifData"))
    named = rows.select(pl.col("filePath").fill_null(""), "mediaID")
    given = rows.select(
        *("label", "group", *DEGREES),
        temperature=pl.col("exifData").str.extract(_WARM).cast(pl.Float64, strict=False),
        camera_model=pl.coalesce(pl.col("exifData").str.extract(_MODEL), "cameraModel"),
        camera_serial=pl.coalesce(pl.col("exifData").str.extract(_SERIAL), "cameraID"),
        id="mediaID",
        location="group",
        deployment="deploymentID",
        taken="timestamp",
        sequence="eventID",
        file_name=offline_media.find_copies(about.parent, named),
        reason=first_reason((pl.col("machine"), RejectReason.MACHINE_LABEL)),
        licence=pl.lit(_licence(package), pl.String),
    )
    given = tabular.add(given, _taxa(package), on="label")
    return tabular.to_photo_table(given, about, about.parent, READER.name)


def media_and_observations(about: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Read two tables of a package, its photos alone; `InputError` where it is none."""
    package = io.read_json(about)
    return _photos(_table(package, "media", about)), _table(package, "observations", about)


def _table(package: Any, name: str, about: Path) -> pl.DataFrame:
    """Read a table of the package, all cells text; concatenate its files."""
    resource = _resource(package, name, about)
    said = dialect if isinstance(dialect := resource.get("dialect"), dict) else {}
    separator, quote = said.get("delimiter", ","), said.get("quoteChar", '"')
    encoding = str(resource.get("encoding", "utf-8"))
    if encoding.lower().replace("-", "") not in ("utf8", "ascii", "usascii"):
        raise InputError(f"{about}: the table {name} is in {encoding}: only UTF-8 is read, convert it.")
    for what, byte in (("delimiter", separator), ("quoteChar", quote)):
        if not isinstance(byte, str) or len(byte.encode()) != 1:
            raise InputError(f"{about}: the {what} of {name} is {byte!r}: write one character.")
    places = _places_of(resource.get("path"), name, about)
    parts = [tabular.read_text_table(place, separator, quote=quote) for place in places]
    rows = pl.concat(parts, how="diagonal")
    tabular.require_columns(rows, _NEEDED[name], places[0], _EXPECTS)
    return rows.with_columns(pl.all().replace(_NOTHING, [None] * len(_NOTHING)))


def _resource(package: Any, name: str, about: Path) -> dict[str, Any]:
    resources = package.get("resources") if isinstance(package, dict) else None
    for each in resources if isinstance(resources, list) else []:
        if isinstance(each, dict) and each.get("name") == name:
            return each
    raise InputError(f"{about} names no table {name!r}: expected is {_EXPECTS}.")


def _places_of(path: Any, name: str, about: Path) -> list[Path]:
    """Return the files of a table, one or several."""
    paths: list[Any] = path if isinstance(path, list) else [path]
    if not paths or not all(isinstance(each, str) and each for each in paths):
        raise InputError(f"{about} has no path of the table {name!r}: name its file, or a list of files.")
    for each in paths:
        if ".." in Path(each).parts or Path(each).is_absolute() or "://" in each:
            raise InputError(f"{about}: the table {name} is at {each}, outside of its folder: copy it in.")
    return [about.parent / each for each in paths]


def _photos(media: pl.DataFrame) -> pl.DataFrame:
    """Select the media that are photos."""
    media = tabular.with_missing(media, ("timestamp", "fileMediatype"))
    kind = pl.col("fileMediatype").str.to_lowercase()
    photos = media.filter(kind.is_null() | kind.str.starts_with("image"))
    if others := media.height - photos.height:
        logger.info(f"{others:,} videos or sounds are left out.")
    return photos


def _labels(media: pl.DataFrame, observations: pl.DataFrame) -> pl.DataFrame:
    """Return the label of each photo, and whether only a machine gave it; two species are two rows."""
    optional = ("mediaID", "scientificName", "classificationMethod", "eventStart", "eventEnd")
    kind = pl.col("observationType")
    said = tabular.with_missing(observations, optional).with_columns(
        label=pl.when(kind.is_in(_NO_ANIMAL)).then(kind).otherwise("scientificName"),
        machine=(pl.col("classificationMethod") == "machine").fill_null(False),
    )
    said = said.drop_nulls("label")
    columns = ("mediaID", "label", "machine", "wide")
    own = said.filter(pl.col("mediaID").is_not_null()).with_columns(wide=False)
    shared = _of_events(media, said.filter(pl.col("mediaID").is_null())).with_columns(wide=True)
    found = pl.concat([own.select(columns), shared.select(columns)])
    # A person before a machine, then the photo before its event: a person often labels a sequence as a
    # whole, after a machine has labelled each photo of it.
    weight = 2 * pl.col("machine").cast(pl.Int8) + pl.col("wide").cast(pl.Int8)
    best = found.filter(weight == weight.min().over("mediaID"))
    return best.select("mediaID", "label", "machine").unique(maintain_order=True)


def _of_events(media: pl.DataFrame, said: pl.DataFrame) -> pl.DataFrame:
    """Assign the observations of events to photos.

    An event has the photos of its deployment from `eventStart` to `eventEnd`; of two that overlap a
    photo belongs to the later one. Some packages give the event's id of each photo.
    """
    if "eventID" in media.columns and "eventID" in said.columns:
        return media.select("mediaID", "eventID").join(said.drop("mediaID"), on="eventID")
    moment = {name: _moment(name) for name in ("eventStart", "eventEnd")}
    key = ["deploymentID", *moment]
    said = said.drop("mediaID").with_columns(**moment).drop_nulls(key)
    events = said.select(key).unique().sort("eventStart", "eventEnd")
    photos = media.select("mediaID", "deploymentID", taken=_moment("timestamp"))
    photos = photos.drop_nulls().sort("taken")
    inside = photos.join_asof(events, left_on="taken", right_on="eventStart", by="deploymentID")
    return inside.filter(pl.col("taken") <= pl.col("eventEnd")).join(said, on=key)


def _moment(name: str) -> pl.Expr:
    """Parse a time in ISO 8601; UTC where it has no zone."""
    text = pl.col(name).str.replace(r"[Zz]$", "+00:00")
    zoned = pl.when(text.str.contains(r"[+-]\d\d:?\d\d$")).then(text).otherwise(text + "+00:00")
    return zoned.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%z", time_zone="UTC", strict=False)


def _places(deployments: pl.DataFrame) -> pl.DataFrame:
    place = [name for name in ("locationID", "deploymentID") if name in deployments.columns]
    rows = tabular.with_missing(deployments, (*DEGREES, "cameraModel", "cameraID"))
    return rows.select("deploymentID", *DEGREES, "cameraModel", "cameraID", group=pl.coalesce(place)).unique(
        "deploymentID", keep="first", maintain_order=True
    )


def _licence(package: Any) -> str | None:
    licences = [each for each in package.get("licenses") or [] if isinstance(each, dict)]
    media = [each for each in licences if each.get("scope") == "media"] or licences
    return str(media[0].get("name") or media[0].get("path")) if media else None


def _taxa(package: Any) -> pl.DataFrame:
    """Return the facts of the package's scientific names."""
    rows = []
    for each in package.get("taxonomic") or []:
        if isinstance(each, dict) and each.get("scientificName"):
            names = each.get("vernacularNames")
            english = names.get("eng") or names.get("en") if isinstance(names, dict) else None
            said = {rank: each.get(rank) for rank in RANKS if isinstance(each.get(rank), str)}
            rows.append({"label": each["scientificName"], "common_name": english, **said})
    schema = dict.fromkeys(("label", "common_name", *RANKS), pl.String)
    return pl.DataFrame(rows, schema=schema).unique("label", keep="first").with_columns(name="label")


READER = Reader("camtrap-dp", _EXPECTS, _package_in, _read, searches_folder=True)
