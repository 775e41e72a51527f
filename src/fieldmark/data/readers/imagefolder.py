"""Hugging Face's imagefolder: photos with `metadata.csv` or `metadata.jsonl`.

The metadata are in the folder, or in each part's (`train`, `validation`, `test`); `file_name` is
relative to them. The label is the column `label`, `class`, `species` or `scientific_name`.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from fieldmark.data.photos import PhotoTable
from fieldmark.data.readers import tabular
from fieldmark.data.readers.base import Reader, part_named, table_errors
from fieldmark.utils.errors import InputError

_EXPECTS = "an imagefolder (metadata.csv or metadata.jsonl with the column file_name)"
_NAMES = ("metadata.csv", "metadata.jsonl")
_LABELS = ("label", "class", "species", "scientific_name")
_RENAMED = {"license": "licence", "attribution": "rights_holder", "observation_id": "group"}


def _metadata_in(path: Path) -> list[Path]:
    """Return the metadata of a folder or, where it has none, of its parts; sorted."""
    if not path.is_dir():
        return []
    own = [path / name for name in _NAMES if (path / name).is_file()]
    parts = [p for p in path.iterdir() if p.is_dir() and part_named(p.name)]
    return own[:1] or sorted(p / name for p in parts for name in _NAMES if (p / name).is_file())


def _read(path: Path) -> PhotoTable:
    found = _metadata_in(path)
    if not found:
        raise InputError(f"{path} has no metadata: expected is {_EXPECTS}.")
    rows = pl.concat([_rows(each, path) for each in found], how="diagonal")
    return tabular.to_photo_table(rows, found[0], path, READER.name)


def _rows(metadata: Path, root: Path) -> pl.DataFrame:
    frame = _load(metadata)
    tabular.require_columns(frame, ("file_name",), metadata, _EXPECTS)
    label = next((name for name in _LABELS if name in frame.columns), None)
    there = set(frame.columns)
    frame = frame.rename({a: b for a, b in _RENAMED.items() if a in there and b not in there})
    kept = [name for name in tabular.COLUMNS if name in frame.columns and name != "reason"]
    rows = frame.select(kept).with_columns(label=pl.col(label) if label else pl.lit(None, pl.String))
    if metadata.parent == root:
        return rows
    part = metadata.parent.name
    below = pl.when(tabular.outside()).then("file_name").otherwise(pl.lit(f"{part}/") + pl.col("file_name"))
    return rows.with_columns(file_name=below, split=pl.lit(part_named(part)))


def _load(path: Path) -> pl.DataFrame:
    if path.suffix == ".csv":
        return tabular.read_text_table(path)
    with table_errors(f"{path} could not be read as JSON lines"):
        frame = pl.read_ndjson(path, infer_schema_length=None)
    return tabular.clean(frame.select(name for name, dtype in frame.schema.items() if not dtype.is_nested()))


READER = Reader("imagefolder", _EXPECTS, _metadata_in, _read)
