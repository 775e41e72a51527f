"""The four tables of iNaturalist Open Data, read block by block.

They are tab-separated text without quoting, usually gzipped, of up to some hundred million rows. Memory
grows with the selection, not with a table's length.
"""

from __future__ import annotations

import difflib
import gzip
import zlib
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, cast, get_args

import polars as pl

from fieldmark.data.readers.tabular import with_missing
from fieldmark.data.taxonomy import RANKS
from fieldmark.utils.choices import PhotoSize
from fieldmark.utils.errors import InputError, first_line

SIZES = get_args(PhotoSize)
"""The file names of a photo's sizes, the largest first; its folder is the photo's id."""

NAMES = ("taxa", "observations", "photos", "observers")
BLOCK = 64 * 2**20
"""Bytes of text in memory at a time."""

_BELOW_SPECIES = ("subspecies", "variety", "form")
_Id = pl.Int64


def blocks(path: Path, columns: Sequence[str], size: int = BLOCK) -> Iterator[pl.DataFrame]:
    """Read a table's rows as text, block by block; an empty cell is null.

    Raises:
        InputError: the file is truncated or damaged, lacks a column, or has no row.
    """
    try:
        opener = gzip.open if path.suffix == ".gz" else open
        with cast("BinaryIO", opener(path, "rb")) as handle:
            header = handle.readline().decode("utf-8-sig").rstrip("\r\n").split("\t")
            if missing := [name for name in columns if name not in header]:
                raise InputError(f"{path} has no column {missing[0]!r}: it is another table.")
            text = handle.read(size)
            if not text:
                raise InputError(f"{path} has no row below its header: delete it to download it again.")
            while text:
                yield pl.read_csv(
                    BytesIO(text + handle.readline()),
                    separator="\t",
                    has_header=False,
                    new_columns=header,
                    quote_char=None,
                    infer_schema=False,
                    encoding="utf8-lossy",
                ).select(columns)
                text = handle.read(size)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        message = f"{path} is truncated or damaged ({error}): delete it to download it again."
        raise InputError(message) from error
    except pl.exceptions.PolarsError as error:
        raise InputError(f"{path} is not a table of iNaturalist Open Data ({first_line(error)}).") from error


def species_below(path: Path, wanted: Sequence[str]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Find the species that some taxa, named or numbered, in `taxa.csv.gz` are or contain.

    Returns:
        One row a species: `species`, `name` and the `RANKS`; and one row for each taxon that counts as
        one of them (itself, its subspecies, varieties and forms): `taxon_id`, `species`.

    Raises:
        InputError: a taxon is not in the table, or its name is that of several.
    """
    taxa = _taxa(path).filter("active")
    numbers = [_number(taxa, each) for each in wanted]
    below = pl.col("ancestry").str.contains(f"(^|/)({'|'.join(map(str, numbers))})(/|$)")
    under = taxa.filter(pl.col("taxon_id").is_in(numbers) | below)
    above = _ancestors(taxa, under)
    own = under.filter(rank="species").select("taxon_id", species="taxon_id")
    below_species = under.filter(pl.col("rank").is_in(_BELOW_SPECIES)).select("taxon_id")
    lower = above.filter(rank="species").join(below_species, on="taxon_id")
    counted = pl.concat([own, lower.select("taxon_id", species="ancestor")])
    known = taxa.filter(pl.col("taxon_id").is_in(counted["species"].implode()), rank="species")
    ranked = known.select("taxon_id", "name").join(_ranks(taxa, known), on="taxon_id", how="left")
    species = ranked.with_columns(species="name").select("taxon_id", "name", *RANKS)
    return species.sort("name", "taxon_id"), counted


def labels(path: Path, taxon_ids: pl.Series) -> pl.DataFrame:
    """Return the label of some taxa, one row each: `taxon_id`, `label` and the `RANKS`.

    The label is the name of the species, also for subspecies, varieties and forms, or of the taxon itself.
    """
    taxa = _taxa(path)
    wanted = taxa.filter(pl.col("taxon_id").is_in(taxon_ids.unique().implode()))
    found = wanted.join(_ranks(taxa, wanted), on="taxon_id", how="left")
    below = pl.col("rank").is_in(_BELOW_SPECIES)
    return found.select(
        "taxon_id",
        *(pl.when(rank=rank).then("name").otherwise(rank).alias(rank) for rank in RANKS),
        label=pl.when(below).then(pl.coalesce("species", "name")).otherwise("name"),
    )


def _taxa(path: Path) -> pl.DataFrame:
    columns = ("taxon_id", "ancestry", "rank", "name", "active")
    taxa = pl.concat(blocks(path, columns)).with_columns(
        pl.col("taxon_id").cast(_Id, strict=False),
        pl.col("ancestry").str.replace_all("\\", "/", literal=True),
        active=pl.col("active").str.to_lowercase().str.starts_with("t"),
    )
    return taxa.filter(pl.col("taxon_id").is_not_null())


def _ranks(taxa: pl.DataFrame, of: pl.DataFrame) -> pl.DataFrame:
    """Return the names of the ancestors of some taxa: `taxon_id` and the `RANKS`."""
    ranks = _ancestors(taxa, of).filter(pl.col("rank").is_in(RANKS))
    wide = ranks.pivot("rank", index="taxon_id", values="name", aggregate_function="first")
    return with_missing(wide, RANKS).select("taxon_id", *RANKS)


def _ancestors(taxa: pl.DataFrame, of: pl.DataFrame) -> pl.DataFrame:
    """Return one row for each taxon and ancestor: `taxon_id`, `ancestor`, `rank`, `name`."""
    pairs = of.select("taxon_id", ancestor=pl.col("ancestry").str.split("/")).explode("ancestor")
    pairs = pairs.with_columns(pl.col("ancestor").cast(_Id, strict=False))
    return pairs.join(taxa.select(ancestor="taxon_id", rank="rank", name="name"), on="ancestor")


def _number(taxa: pl.DataFrame, wanted: str) -> int:
    if wanted.isdecimal():
        found = taxa.filter(taxon_id=int(wanted))
    else:
        found = taxa.filter(pl.col("name").str.to_lowercase() == wanted.lower())
    if found.height > 1:
        several = ", ".join(f"{row['taxon_id']} ({row['rank']})" for row in found.to_dicts())
        raise InputError(f"{wanted!r} is the name of several taxa: name one by its number, {several}.")
    if found.is_empty():
        start = pl.col("name").str.to_lowercase().str.starts_with(wanted[:2].lower())
        near = difflib.get_close_matches(wanted, taxa.filter(start)["name"].to_list(), n=3)
        hint = f": did you mean {', '.join(near)}?" if near else ": look it up at www.inaturalist.org."
        raise InputError(f"There is no taxon {wanted!r} in the table of taxa{hint}")
    return int(found["taxon_id"][0])
