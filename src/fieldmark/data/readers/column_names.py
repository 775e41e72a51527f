"""The names that people give to the columns of a list of photos, in English and in some other languages."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

import polars as pl

from fieldmark.data.locations import DEGREES
from fieldmark.data.photos import degrees

_NAMES: Mapping[str, tuple[str, ...]] = {
    "file_name": (
        *("filename", "file", "filepath", "path", "relativepath", "image", "imagename", "imagefile"),
        *("imagepath", "img", "photo", "photoname", "photofile", "picture", "media", "datei", "dateiname"),
        *("dateipfad", "foto", "bild", "bilddatei", "fichier", "nomfichier", "archivo", "imagen"),
    ),
    # `class` is also a rank: it is the label only where nothing else can be.
    "label": (
        *("labels", "species", "scientificname", "name", "taxon", "taxonname", "art", "artname", "espece"),
        *("especie", "speciesname", "commonname", "category", "class", "classname", "klasse"),
    ),
    "latitude": ("lat", "decimallatitude", "breite", "breitengrad", "latitud", "y"),
    "longitude": ("lon", "lng", "long", "decimallongitude", "lange", "laenge", "langengrad", "longitud", "x"),
    "taken": (
        *("date", "datetime", "datetaken", "timestamp", "eventdate", "observedon", "datum", "aufnahmedatum"),
        *("aufnahmezeit", "fecha"),
    ),
    "location": ("place", "site", "station", "locationid", "ort", "standort", "lieu", "lugar"),
    "deployment": ("deploymentid", "camera", "cameraid", "kamera"),
    "licence": ("license",),
    "rights_holder": ("rightsholder", "attribution", "observer"),
    "group": ("groupid",),
    "sequence": ("sequenceid", "seqid"),
}
_OF_NAMES = {"species", "scientificname", "name"}
"""Columns that are names of taxa: used as the label, they still tell genus and species."""
_PREDICTED = {"file", "name", "sure", "second_score"}
_CANDIDATES = {"file_name", "source", "among", "taxon_id"}


def is_predicted(frame: pl.DataFrame) -> bool:
    """Return whether `fieldmark predict` wrote a table, with a row a photo."""
    return set(frame.columns) >= _PREDICTED


def has_candidates(frame: pl.DataFrame) -> bool:
    """Return whether `fieldmark predict --candidates` wrote a table: its names are of no person."""
    return set(frame.columns) >= _CANDIDATES


def with_usual_names(frame: pl.DataFrame) -> pl.DataFrame:
    """Rename the columns of a list, all text, to those of `tabular.COLUMNS`; what has its usual name stays.

    Decimal commas become points, and dates such as 31.5.2024 those of ISO 8601.
    """
    short = {_short(name): name for name in reversed(frame.columns)}
    chosen = {name: name for name in frame.columns}
    for usual, others in _NAMES.items():
        found = next((short[each] for each in (usual.replace("_", ""), *others) if each in short), None)
        if usual in chosen or found is None or (found in ("x", "y") and not _are_degrees(frame)):
            continue
        if usual == "label" and _short(found) in _OF_NAMES:
            chosen.setdefault("name", found)
        else:
            del chosen[found]
        chosen[usual] = found
    frame = frame.select(pl.col(found).alias(name) for name, found in chosen.items())
    numbers = [with_point(name) for name in DEGREES if name in chosen]
    return frame.with_columns(*numbers, *([_iso("taken")] if "taken" in chosen else []))


def with_point(column: str) -> pl.Expr:
    """Return a column of numbers as text with a decimal point, where they have a comma."""
    return pl.col(column).str.replace(r"^([+-]?\d+),(\d+)$", "$1.$2")


def _short(name: str) -> str:
    """Return a column's name without accents, spaces and other signs, in lower case."""
    plain = unicodedata.normalize("NFKD", name.casefold())
    return re.sub(r"[^a-z0-9]", "", plain)


def _are_degrees(frame: pl.DataFrame) -> bool:
    """Return whether the columns x and y hold degrees, and no pixels or metres."""
    lacking = [name for name in "xy" if name not in frame.columns]
    return not lacking and all(
        frame.select((pl.col(axis).is_null() | degrees(axis, most).is_not_null()).all()).item()
        for axis, most in (("y", 90), ("x", 180))
    )


def _iso(column: str) -> pl.Expr:
    return (
        pl.col(column)
        .str.replace(r"^(\d)\.", "0$1.")
        .str.replace(r"^(\d\d)\.(\d)\.", "$1.0$2.")
        .str.replace(r"^(\d\d)\.(\d\d)\.(\d{4})", "$3-$2-$1")
    )
