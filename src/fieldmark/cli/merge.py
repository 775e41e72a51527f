"""Merge sources into one table: a taxon becomes one class, duplicates one row.

Arguments:
    photos: Photos in any layout; two sources or more.
Options:
    out: The Parquet table to write.
"""

from __future__ import annotations

from pathlib import Path

from fieldmark.cli import options as opt


def merge(photos: tuple[Path, ...], out: Path = Path("photos.parquet"), names: Path | None = None) -> None:
    from fieldmark.data import merge as merging
    from fieldmark.data import readers, synonyms

    accepted = synonyms.read(names)
    opt.write_table(merging.merge([accepted.apply(readers.read(path)) for path in photos]), out)
