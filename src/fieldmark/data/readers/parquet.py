"""Parquet with photos inside: a column of bytes, or Hugging Face's struct of bytes and path.

One file, or a folder of shards (or its folder `data`). The label is the column `label`, `class`,
`species` or `scientific_name`; numbers get the names that Hugging Face writes to the file's metadata.
The part is in a file's name: `train-00000-of-00002.parquet`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path, PurePosixPath

import polars as pl

from fieldmark.data.photos import PhotoTable
from fieldmark.data.readers import tabular
from fieldmark.data.readers.base import DAMAGE, Reader, folder_of, part_of_shard, table_errors
from fieldmark.data.storage import fsspec, places
from fieldmark.data.storage.places import File
from fieldmark.utils.errors import InputError
from fieldmark.utils.logging import progress_bar

_EXPECTS = "Parquet files with a column of image bytes"
_PREFERRED = ("image", "img", "photo", "picture", "jpg", "jpeg", "png")
_LABELS = ("label", "labels", "class", "species", "scientific_name", "fine_label")
_GROUPS = ("group", "seq_id", "observation_id", "observation_uuid", "deployment", "location")
_RENAMED = {"license": "licence", "attribution": "rights_holder"}
_RIGHTS = ("licence", "rights_holder")


def shards_in(path: Path) -> list[Path]:
    """Return the Parquet files with image bytes in a folder or its `data`, or the path itself.

    Damaged files are among them, so that reading them raises an error.
    """
    if path.is_file():
        return [path] if path.suffix.lower() == ".parquet" and bytes_column(path) else []
    near = [path, path / "data"] if (path / "data").is_dir() else [path]
    inside = sorted(p for folder in near for p in folder.iterdir() if p.suffix.lower() == ".parquet")
    files = {each: _schema(each) for each in inside if each.is_file()}
    there = any(bytes_column(each) for each in files)
    alone = not any(p.is_dir() for p in path.iterdir() if p.name != "data")
    if not there and not alone:
        return []
    return [each for each, schema in files.items() if schema is None or bytes_column(each)]


def _schema(path: Path) -> Mapping[str, pl.DataType] | None:
    """Return the columns of a file; None for a damaged one."""
    with suppress(*DAMAGE):
        return _read_schema(path, path.stat().st_mtime_ns)
    return None


@lru_cache(maxsize=256)
def _read_schema(path: Path, _changed: int) -> Mapping[str, pl.DataType]:
    return pl.read_parquet_schema(path)


def bytes_column(path: Path) -> str | None:
    """Return the column of image bytes (`image`, or `image.bytes` of a struct), or None."""
    found = {}
    for name, dtype in (_schema(path) or {}).items():
        if dtype == pl.Binary:
            found[name] = name
        elif isinstance(dtype, pl.Struct) and pl.Field("bytes", pl.Binary) in dtype.fields:
            found[name] = f"{name}.bytes"
    return next((found[name] for name in (*_PREFERRED, *found) if name in found), None)


def _read(path: Path) -> PhotoTable:
    shards = shards_in(path)
    if not shards:
        raise InputError(f"{path} has no photos: expected are {_EXPECTS}.")
    root = folder_of(path)
    return read_shards([(each, each.relative_to(root).as_posix()) for each in shards], path)


def read_shards(shards: Sequence[tuple[File, str]], path: Path) -> PhotoTable:
    """Read the photos of some Parquet files, one row each.

    Args:
        shards: each file, and its name below the folder. Of remote ones two at a time are copied.
        path: the folder, or the file.
    """
    frames = []
    with progress_bar("Reading shards", len(shards), unit="shards") as bar:
        for shard, name in shards:
            with fsspec.local_copy(shard) as here:
                frames.append(_rows(here, name, shard))
            bar.advance()
    return tabular.to_photo_table(pl.concat(frames, how="diagonal"), path, folder_of(path), READER.name)


def _rows(shard: Path, name: str, shown: File) -> pl.DataFrame:
    """Read the rows of a local shard; `shown` is its name in messages."""
    with table_errors(f"{shown} is not a complete Parquet file"):
        table = pl.scan_parquet(shard, glob=False)
        schema = table.collect_schema()
        if (column := bytes_column(shard)) is None:
            raise InputError(f"{shown} has no column of image bytes: expected are {_EXPECTS}.")
        label = next((each for each in _LABELS if each in schema), None)
        group = next((each for each in _GROUPS if each in schema), None)
        rights = {_RENAMED.get(c, c): c for c in schema if _RENAMED.get(c, c) in _RIGHTS}
        wanted = {"label": label, "group": group, **rights}
        wanted |= {each: each for each in tabular.TAXON_COLUMNS if each in schema}
        columns = [pl.col(source).alias(as_) for as_, source in wanted.items() if source]
        for source in filter(None, wanted.values()):
            if schema[source].is_nested():
                raise InputError(
                    f"{shown}: the column {source!r} holds {schema[source]}: write one text or "
                    "number a photo, or rename the column."
                )
        frame = table.select(pl.int_range(pl.len()).alias("id"), *columns).cast(pl.String).collect()
        names = _class_names(shard, label)
    if names and "label" in frame:
        known = {str(number): text for number, text in enumerate(names)} | {"-1": None}
        frame = frame.with_columns(pl.col("label").replace(known))
    part = part_of_shard(PurePosixPath(name).name)
    return tabular.clean(frame).with_columns(
        file_name=pl.lit(places.cell_text(name, column, 0)[:-1]) + pl.col("id"),
        id=pl.lit(f"{name}/") + pl.col("id"),
        split=pl.lit(part, pl.String),
    )


def _class_names(shard: Path, label: str | None) -> list[str]:
    """Read the names of a numbered label that Hugging Face's `datasets` writes to the file."""
    about = pl.read_parquet_metadata(shard).get("huggingface")
    try:
        names = json.loads(about)["info"]["features"][label]["names"] if about else []
    except (ValueError, KeyError, TypeError, RecursionError):
        return []
    return [str(name) for name in names] if isinstance(names, list) else []


READER = Reader("parquet", _EXPECTS, shards_in, _read)
