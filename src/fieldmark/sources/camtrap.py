"""Camtrap DP 1.0: `datapackage.json` with the tables deployments, media and observations.

https://camtrap-dp.tdwg.org. A photo's label is the scientific name of its observations (at the level of
the media file, else of the event that it belongs to); what is no animal is a label of its own:
blank, human, vehicle. Observations by a person outweigh those by a machine, and what only a machine has
named is no truth to learn from. The group is the place of the deployment (`locationID`, else
`deploymentID`). Pictures behind URLs are looked for as copies beside.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from fieldmark import files
from fieldmark.errors import InputError, RejectReason
from fieldmark.photos import PhotoTable
from fieldmark.sources import copies, listing
from fieldmark.sources.base import Source
from fieldmark.taxonomy import RANKS

_EXPECTS = "a Camtrap DP (datapackage.json with deployments, media, observations)"
_TABLES = ("deployments", "media", "observations")
_NOTHING = ["NA", "NaN", "nan"]
"""What stands for an empty cell, beside nothing, since Camtrap DP 1.0.2."""
_NO_ANIMAL = ("blank", "human", "vehicle")


def package_in(path: Path) -> Path | None:
    """The `datapackage.json` of a Camtrap DP; None where the path is none."""
    about = path / "datapackage.json" if path.is_dir() else path
    return about if about.name == "datapackage.json" and about.is_file() else None


def _matches(path: Path) -> bool:
    return package_in(path) is not None


def _read(path: Path) -> PhotoTable:
    about = package_in(path)
    if about is None:
        raise InputError(f"{path} is no Camtrap DP: expected is {_EXPECTS}.")
    package = files.read_json(about)
    tables = {name: _table(package, name, about) for name in _TABLES}
    media, observations = tables["media"], tables["observations"]
    what = _EXPECTS
    listing.need(media, ("mediaID", "deploymentID", "filePath"), about, what)
    listing.need(observations, ("observationID", "deploymentID", "observationType"), about, what)
    labels = _labels(media, observations)
    places = _places(tables["deployments"], about)
    rows = media.join(labels, on="mediaID", how="left", maintain_order="left").join(
        places, on="deploymentID", how="left", maintain_order="left"
    )
    named = rows.select(pl.col("filePath").fill_null(""), "mediaID")
    pictures = [copies.Picture(*each) for each in named.iter_rows()]
    names = copies.find(about.parent, pictures)
    given = rows.select(
        *("label", "group"),
        id="mediaID",
        location="group",
        file_name=pl.Series(names, dtype=pl.String),
        reason=pl.when("machine").then(pl.lit(RejectReason.MACHINE_LABEL.value)),
    )
    licence = _licence(package)
    given = given.with_columns(licence=pl.lit(licence, pl.String)).join(
        _taxa(package), on="label", how="left", maintain_order="left"
    )
    return listing.table_of(given, about, about.parent, SOURCE.name)


def _table(package: Any, name: str, about: Path) -> pl.DataFrame:
    resources = package.get("resources") if isinstance(package, dict) else None
    found = [
        each
        for each in resources or []
        if isinstance(each, dict) and each.get("name") == name and isinstance(each.get("path"), str)
    ]
    if not found:
        raise InputError(f"{about} names no table {name!r}: expected is {_EXPECTS}.")
    path = found[0]["path"]
    if ".." in Path(path).parts or Path(path).is_absolute() or "://" in path:
        raise InputError(
            f"{about}: the table {name} is at {path}, outside of its folder: copy it in."
        )
    rows = listing.read_text_table(about.parent / path)
    return rows.with_columns(pl.all().replace(_NOTHING, [None] * len(_NOTHING)))


def _labels(media: pl.DataFrame, observations: pl.DataFrame) -> pl.DataFrame:
    """The label of each photo, and whether a machine alone gave it; two species are two rows."""
    for name in ("mediaID", "eventID", "scientificName", "classificationMethod"):
        if name not in observations.columns:
            observations = observations.with_columns(pl.lit(None, pl.String).alias(name))
    kind = pl.col("observationType")
    said = observations.with_columns(
        label=pl.when(kind.is_in(_NO_ANIMAL)).then(kind).otherwise("scientificName"),
        machine=(pl.col("classificationMethod") == "machine").fill_null(False),
    ).filter(pl.col("label").is_not_null())
    columns = ("mediaID", "label", "machine", "wide")
    found = said.filter(pl.col("mediaID").is_not_null()).with_columns(wide=False).select(columns)
    if "eventID" in media.columns:
        events = said.filter(pl.col("mediaID").is_null()).select("eventID", "label", "machine")
        shared = media.join(events, on="eventID").with_columns(wide=True).select(columns)
        found = pl.concat([found, shared])
    # A person's word before a machine's, then what is said of the photo before what is said of its
    # event: a person often names a sequence as a whole, after a machine has named each photo of it.
    weight = 2 * pl.col("machine").cast(pl.Int8) + pl.col("wide").cast(pl.Int8)
    best = found.filter(weight == weight.min().over("mediaID"))
    return best.select("mediaID", "label", "machine").unique(maintain_order=True)


def _places(deployments: pl.DataFrame, about: Path) -> pl.DataFrame:
    listing.need(deployments, ("deploymentID",), about, _EXPECTS)
    place = [name for name in ("locationID", "deploymentID") if name in deployments.columns]
    return deployments.select("deploymentID", group=pl.coalesce(place)).unique("deploymentID")


def _licence(package: Any) -> str | None:
    licences = [each for each in package.get("licenses") or [] if isinstance(each, dict)]
    media = [each for each in licences if each.get("scope") == "media"] or licences
    return str(media[0].get("name") or media[0].get("path")) if media else None


def _taxa(package: Any) -> pl.DataFrame:
    """What the package says of its scientific names."""
    rows = []
    for each in package.get("taxonomic") or []:
        if isinstance(each, dict) and each.get("scientificName"):
            names = each.get("vernacularNames")
            english = names.get("eng") or names.get("en") if isinstance(names, dict) else None
            said = {rank: each.get(rank) for rank in RANKS if isinstance(each.get(rank), str)}
            rows.append({"label": each["scientificName"], "common_name": english, **said})
    schema = dict.fromkeys(("label", "common_name", *RANKS), pl.String)
    frame = pl.DataFrame(rows, schema=schema).unique("label", keep="first")
    return frame.with_columns(name=pl.col("label"))


SOURCE = Source("camtrap-dp", _EXPECTS, _matches, _read, looks_around=True)
