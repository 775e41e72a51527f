"""A table of photos: CSV, TSV or Parquet with the columns `file_name,label[,split][,group]`.

Further columns that are read where they are there: `common_name`, `supercategory`, `name` (the
scientific name) and the ranks from `kingdom` to `species`. File names are relative to the table's
folder, or absolute. A photo without a label is kept as unlabelled.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from fieldmark.errors import InputError, RejectReason
from fieldmark.photos import KEPT, REJECTED, PhotoTable, build_frame
from fieldmark.sources.base import PART_NAMES, Source, binomial, no_photos, part_named
from fieldmark.taxonomy import RANKS, Taxon, Taxonomy

_TEXT_SUFFIXES = {".csv": ",", ".tsv": "\t"}
_NEEDED = ("file_name", "label")
_ABOUT_TAXA = ("name", "common_name", "supercategory", *RANKS)
_EXPECTS = "a CSV, TSV or Parquet table with the columns file_name,label[,split][,group]"


def is_index(path: Path) -> bool:
    """Whether a file is a photo table that `fieldmark index` wrote."""
    if path.suffix.lower() != ".parquet" or not path.is_file():
        return False
    try:
        return "fieldmark" in pl.read_parquet_metadata(path)
    except (OSError, pl.exceptions.PolarsError):
        return False


def _matches(path: Path) -> bool:
    return path.suffix.lower() in {*_TEXT_SUFFIXES, ".parquet"} and path.is_file()


def _read(path: Path) -> PhotoTable:
    given = _load(path)
    if given.is_empty():
        raise no_photos(path, "expected is a row for each photo below the names of the columns")
    nameless = given["file_name"].null_count()
    if nameless:
        raise InputError(f"{path}: {nameless:,} rows have no file_name: fill it in or delete them.")
    rows = given.select(
        id=pl.col("file_name") + _repeat_number(),
        path="file_name",
        taxon_id="label",
        group=pl.col("group") if "group" in given.columns else pl.lit(None),
        split=_parts(given, path),
        reason=_reason(),
    ).with_columns(
        taxon_id=pl.when(pl.col("reason").is_null()).then("taxon_id"),
        status=pl.when(pl.col("reason").is_null()).then(pl.lit(KEPT)).otherwise(pl.lit(REJECTED)),
    )
    return PhotoTable(
        build_frame(dict(rows.to_dict())), _taxonomy(given, path), path.parent, SOURCE.name
    )


def _load(path: Path) -> pl.DataFrame:
    """All columns as text without blanks around it; an empty cell is null."""
    separator = _TEXT_SUFFIXES.get(path.suffix.lower())
    try:
        if separator is None:
            frame = pl.read_parquet(path)
        else:
            frame = pl.read_csv(path, separator=separator, infer_schema=False)
        frame = frame.rename(lambda name: name.strip().lower())
        wanted = [name for name in (*_NEEDED, "split", "group", *_ABOUT_TAXA) if name in frame]
        text = pl.col(wanted).cast(pl.String).str.strip_chars()
        frame = frame.select(text.replace("", None))
    except pl.exceptions.NoDataError as error:
        raise InputError(f"{path} is empty: expected is {_EXPECTS}.") from error
    except (OSError, pl.exceptions.PolarsError) as error:
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path} could not be read as a table ({first_line}).") from error
    for name in _NEEDED:
        if name not in frame.columns:
            raise InputError(
                f"{path} has no column {name!r}: name one of its columns so; expected is {_EXPECTS}."
            )
    return frame


def _repeat_number() -> pl.Expr:
    """`#2` for the second row with a file name, and so on: ids are unique in a photo table."""
    number = pl.int_range(pl.len()).over("file_name") + 1
    return pl.when(number == 1).then(pl.lit("")).otherwise(pl.format("#{}", number))


def _reason() -> pl.Expr:
    labels = pl.col("label").n_unique().over("file_name")
    return (
        pl.when(labels > 1)
        .then(pl.lit(RejectReason.AMBIGUOUS_LABEL.value))
        .when(pl.int_range(pl.len()).over("file_name") > 0)
        .then(pl.lit(RejectReason.DUPLICATE_ID.value))
    )


def _parts(given: pl.DataFrame, path: Path) -> pl.Series:
    if "split" not in given.columns:
        return pl.Series([None] * given.height, dtype=pl.String)
    named = given["split"].unique().drop_nulls().to_list()
    meaning = {name: part_named(name) for name in named}
    if unknown := sorted(name for name, part in meaning.items() if part is None):
        raise InputError(
            f"{path}: the column split holds {unknown[0]!r}: write one of {', '.join(PART_NAMES)}."
        )
    return given["split"].replace_strict(meaning, return_dtype=pl.String)


def _taxonomy(given: pl.DataFrame, path: Path) -> Taxonomy:
    """The labels, sorted; what a column says of a label has to be the same in all of its rows."""
    columns = [name for name in _ABOUT_TAXA if name in given.columns]
    labelled = given.filter(pl.col("label").is_not_null()).group_by("label")
    said = labelled.agg(pl.col(columns).drop_nulls().unique().sort()).sort("label")
    taxa = []
    for row in said.iter_rows(named=True):
        for name in columns:
            if len(row[name]) > 1:
                raise InputError(
                    f"{path}: the label {row['label']!r} has two values of {name}, "
                    f"{row[name][0]!r} and {row[name][1]!r}: make them one."
                )
        taxa.append(_taxon(row["label"], {name: row[name][0] for name in columns if row[name]}))
    return Taxonomy(taxa)


def _taxon(label: str, said: dict[str, str]) -> Taxon:
    ranks = {rank: said[rank] for rank in RANKS if rank in said}
    if "genus" in ranks and "species" in ranks and " " not in ranks["species"]:
        # Some tables write the epithet alone; the same epithet in two genera is two species.
        ranks["species"] = f"{ranks['genus']} {ranks['species']}"
    pair = binomial(said.get("name", ""))
    if pair and not {"genus", "species"} & ranks.keys():
        ranks["genus"], ranks["species"] = pair
    return Taxon(
        id=label,
        name=said.get("name") or ranks.get("species") or label,
        common_name=said.get("common_name", ""),
        supercategory=said.get("supercategory", ""),
        ranks={rank: ranks[rank] for rank in RANKS if rank in ranks},
    )


SOURCE = Source("table", _EXPECTS, _matches, _read)
