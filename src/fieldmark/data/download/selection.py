"""Select photos of iNaturalist Open Data by its four tables.

One photo an observation is selected, the first with an accepted licence, so that photos are of different
animals. Observations are drawn as a function of the seed and the observation's id, so that a later
release with more observations changes as little as possible.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from fieldmark.data.readers import inat_tables
from fieldmark.data.taxonomy import RANKS
from fieldmark.utils import random
from fieldmark.utils.errors import InputError
from fieldmark.utils.logging import progress_bar

BASE = "https://inaturalist-open-data.s3.amazonaws.com"
LICENCES = ("CC0", "CC-BY", "CC-BY-NC", "CC-BY-SA", "CC-BY-ND", "CC-BY-NC-SA", "CC-BY-NC-ND", "PD")


@dataclass(frozen=True)
class PhotoQuery:
    """Which photos to download."""

    taxa: tuple[str, ...]  # scientific names or iNaturalist's ids; all species below them
    # South, west, north, east in degrees; west may be greater than east, across 180°.
    place: tuple[float, float, float, float] | None = None
    licences: tuple[str, ...] = ()  # of `LICENCES`; empty: all
    photos: int = 100  # at most so many a species
    research: bool = True  # only observations of research grade
    size: str = "medium"  # which of `inat_tables.SIZES`; "medium" is at most 500 pixels wide and high
    seed: int = 0  # another one draws other observations
    base: str = BASE  # the base URL of tables and photos, for a mirror

    def __post_init__(self) -> None:
        if not self.taxa:
            raise InputError("Which taxa? Name one or more with --taxon, as 'Papilionoidea' or 47224.")
        if unknown := set(self.licences) - set(LICENCES):
            known = ", ".join(LICENCES)
            raise InputError(f"There is no licence {min(unknown)!r} in the tables: choose of {known}.")
        if self.place:
            south, west, north, east = self.place
            if not (-90 <= south < north <= 90 and -180 <= west <= 180 and -180 <= east <= 180):
                raise InputError(
                    f"{self.place} is no box of degrees: write --place SOUTH,WEST,NORTH,EAST, as in "
                    "47.2,5.8,55.1,15.1."
                )


def choose(wanted: PhotoQuery, folder: Path) -> pl.DataFrame:
    """Select photos, one row each, sorted by label and file name.

    Raises:
        InputError: a table is damaged, or no photo matches.
    """
    species, counted = inat_tables.species_below(folder / "taxa.csv.gz", wanted.taxa)
    seen = _observations(wanted, folder / "observations.csv.gz", counted)
    best = _best_photos(wanted, folder / "photos.csv.gz", seen)
    if best.is_empty():
        raise InputError(
            f"No photo matches: {species.height:,} species, {seen.height:,} observations in the place, "
            "none with such a licence: relax a condition."
        )
    people = _observers(folder / "observers.csv.gz", best["observer_id"].unique())
    return _described(best, species, people, wanted)


def _observations(wanted: PhotoQuery, path: Path, counted: pl.DataFrame) -> pl.DataFrame:
    columns = ("observation_uuid", "taxon_id", "quality_grade", "latitude", "longitude", "observed_on")
    kept = []
    with progress_bar("choosing observations", unit="rows") as bar:
        for block in inat_tables.blocks(path, columns):
            bar.advance(block.height)
            typed = block.with_columns(
                pl.col("taxon_id").cast(pl.Int64, strict=False),
                pl.col("latitude", "longitude").cast(pl.Float64, strict=False),
            )
            if wanted.research:
                typed = typed.filter(quality_grade="research")
            typed = typed.filter(_inside(wanted.place)).join(counted, on="taxon_id")
            kept.append(typed.drop("taxon_id", "quality_grade"))
    return pl.concat(kept).unique("observation_uuid", keep="first", maintain_order=True)


def _inside(place: tuple[float, float, float, float] | None) -> pl.Expr:
    if place is None:
        return pl.lit(True)
    south, west, north, east = place
    after, before = pl.col("longitude") >= west, pl.col("longitude") <= east
    return pl.col("latitude").is_between(south, north) & (after & before if west <= east else after | before)


def _best_photos(wanted: PhotoQuery, path: Path, seen: pl.DataFrame) -> pl.DataFrame:
    """Select one photo an observation, and of each species the observations with the smallest hashes.

    Surplus rows are dropped after every block: whether an observation is surplus depends on its hash
    only, so that a photo of it in a later block would be dropped as well.
    """
    columns = ("photo_id", "observation_uuid", "observer_id", "extension", "license", "position")
    licences = [name.upper() for name in wanted.licences or LICENCES]
    best: pl.DataFrame | None = None
    with progress_bar("choosing photos", unit="rows") as bar:
        for block in inat_tables.blocks(path, columns):
            bar.advance(block.height)
            found = (
                block.with_columns(
                    pl.col("photo_id", "position", "observer_id").cast(pl.Int64, strict=False),
                    pl.col("license").str.to_uppercase(),
                    pl.col("extension").str.to_lowercase(),
                )
                .filter(
                    pl.col("license").is_in(licences),
                    pl.col("extension").str.contains("^[a-z0-9]{1,5}$"),
                    pl.col("photo_id").is_not_null(),
                )
                .join(seen, on="observation_uuid")
            )
            drawn = random.hashes(found["observation_uuid"].to_list(), "fetch", wanted.seed)
            found = found.with_columns(draw=pl.Series(drawn, dtype=pl.UInt64))
            best = _fewest(found if best is None else pl.concat([best, found]), wanted.photos)
    assert best is not None  # a table without a row is refused
    return best


def _fewest(found: pl.DataFrame, photos: int) -> pl.DataFrame:
    return (
        found.sort("position", "photo_id", nulls_last=True)
        .unique("observation_uuid", keep="first", maintain_order=True)
        .sort("species", "draw", "observation_uuid")
        .filter(pl.int_range(pl.len()).over("species") < photos)
    )


def _observers(path: Path, wanted: pl.Series) -> pl.DataFrame:
    found = [
        block.with_columns(pl.col("observer_id").cast(pl.Int64, strict=False)).filter(
            pl.col("observer_id").is_in(wanted.implode())
        )
        for block in inat_tables.blocks(path, ("observer_id", "login", "name"))
    ]
    people = pl.concat(found).unique("observer_id", keep="first", maintain_order=True)
    return people.select("observer_id", observer=pl.coalesce("name", "login"))


def _described(
    best: pl.DataFrame, species: pl.DataFrame, people: pl.DataFrame, wanted: PhotoQuery
) -> pl.DataFrame:
    named = species.with_columns(
        label=pl.when(pl.col("name").is_duplicated())
        .then(pl.format("{} ({})", "name", "taxon_id"))
        .otherwise("name")
    ).select(pl.col("taxon_id").alias("number"), "label", "name", *RANKS)
    rows = best.rename({"species": "number"}).join(named, on="number")
    rows = rows.join(people, on="observer_id", how="left").with_columns(
        observer=pl.coalesce("observer", pl.format("observer {}", "observer_id"), pl.lit("unknown"))
    )
    path = pl.format("photos/{}/{}.{}", "number", "photo_id", "extension")
    url = pl.format(
        "{}/photos/{}/{}.{}", pl.lit(wanted.base.rstrip("/")), "photo_id", pl.lit(wanted.size), "extension"
    )
    return rows.select(
        path.alias("file_name"),
        "label",
        "name",
        *RANKS,
        pl.col("observation_uuid").alias("group"),
        pl.col("license").alias("licence"),
        _attribution().alias("attribution"),
        "observer",
        "observed_on",
        "latitude",
        "longitude",
        pl.format("https://www.inaturalist.org/photos/{}", "photo_id").alias("page"),
        url.alias("url"),
    ).sort("label", "file_name")


def _attribution() -> pl.Expr:
    """Format the attribution as iNaturalist Open Data asks for it."""
    free = pl.format("{}, no rights reserved ({})", "observer", "license")
    other = pl.format("© {}, some rights reserved ({})", "observer", "license")
    return pl.when(pl.col("license").is_in(["CC0", "PD"])).then(free).otherwise(other)
