"""Merge tables of photos: the same taxon is one class, the same photo one row."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl

from fieldmark.data.photos import KEPT, PhotoTable
from fieldmark.data.storage import places
from fieldmark.data.storage.places import File
from fieldmark.data.taxonomy import Taxon, Taxonomy
from fieldmark.utils.errors import InputError, RejectReason

logger = logging.getLogger(__name__)


def merge(tables: Sequence[PhotoTable], *, keep_first: bool = False) -> PhotoTable:
    """Merge the photos of some tables.

    Taxa are the same if they have the same scientific name and not two kingdoms; or, where one of
    them has no name but its id, the same id. Missing facts of a taxon come from the next table. Ids
    stay; a number is appended to one that is taken. Groups of the same name are one group: two
    could be a leak.

    Of photos with the same bytes one stays: a labelled one, then a test photo, then the first.
    The others are rejected as `duplicate`, and their groups are merged. If their labels differ, all
    are rejected as `ambiguous-label`.

    Args:
        tables: what to merge.
        keep_first: whether all photos of the first table stay as they are.

    Raises:
        InputError: one table cannot name all of their files.
    """
    taxa = _Taxa()
    frames = [_relabelled(table, taxa) for table in tables]
    root = _root([table.root for table in tables])
    placed = [_placed(frame, table.root, root) for frame, table in zip(frames, tables, strict=True)]
    frame = _numbered(pl.concat(placed))
    merged = PhotoTable(frame, taxa.taxonomy(), root, tables[0].source)
    return _deduplicate(merged, len(tables[0]) if keep_first else 0)


class _Taxa:
    """The taxa of all tables under one id each."""

    def __init__(self) -> None:
        self.found: dict[str, Taxon] = {}
        self.names: dict[str, list[str]] = {}

    def add(self, taxon: Taxon) -> str:
        """Add a taxon; return its id among all."""
        known = self._same(taxon)
        if known is None:
            known = _free(taxon.id, self.found)
            self.found[known] = replace(taxon, id=known)
        else:
            self.found[known] = _completed(self.found[known], taxon)
        for name in {_key(taxon.name), _key(taxon.id)}:
            if known not in self.names.setdefault(name, []):
                self.names[name].append(known)
        return known

    def _same(self, taxon: Taxon) -> str | None:
        nameless = taxon.name == taxon.id
        for known in self.names.get(_key(taxon.name), []):
            other = self.found[known]
            if nameless or other.name == other.id or _key(other.name) == _key(taxon.name):
                kingdoms = {each.ranks.get("kingdom") for each in (taxon, other)} - {None}
                if len(kingdoms) < 2:
                    return known
        for known in self.names.get(_key(taxon.id), []):
            if self.found[known].name == self.found[known].id and _key(known) == _key(taxon.id):
                return known
        return None

    def taxonomy(self) -> Taxonomy:
        """Return the taxa in the order in which they were added."""
        return Taxonomy(self.found.values())


def _completed(taxon: Taxon, other: Taxon) -> Taxon:
    """Complete a taxon by the facts of another one."""
    named = taxon if taxon.name != taxon.id else other
    return Taxon(
        id=taxon.id,
        name=named.name if named.name != named.id else taxon.name,
        common_name=taxon.common_name or other.common_name,
        supercategory=taxon.supercategory or other.supercategory,
        ranks={**other.ranks, **taxon.ranks} if taxon.ranks else dict(other.ranks),
    )


def _relabelled(table: PhotoTable, taxa: _Taxa) -> pl.DataFrame:
    ids = {taxon.id: taxa.add(taxon) for taxon in table.taxonomy}
    return table.frame.with_columns(taxon_id=pl.col("taxon_id").replace(ids))


def _root(roots: Sequence[File]) -> File:
    """Return a root below which all photos can be named."""
    if all(root == roots[0] for root in roots):
        return roots[0]
    if far := [root for root in roots if not isinstance(root, Path)]:
        raise InputError(f"{far[0]} cannot be merged with photos from elsewhere: download them first.")
    return Path("/")


def _placed(frame: pl.DataFrame, own: File, root: File) -> pl.DataFrame:
    """Make the paths absolute where the common root is not the table's own."""
    if own == root:
        return frame
    prefix = str(places.absolute(own)).rstrip("/") + "/"
    absolute = pl.col("path").str.starts_with("/")
    return frame.with_columns(path=pl.when(absolute).then("path").otherwise(pl.lit(prefix) + pl.col("path")))


def _numbered(frame: pl.DataFrame) -> pl.DataFrame:
    """Append a number to each id that is taken."""
    taken = set(frame["id"])
    ids, seen = [], set[str]()
    for photo_id in frame["id"]:
        own = photo_id if photo_id not in seen else _free(photo_id, taken)
        seen.add(own)
        taken.add(own)
        ids.append(own)
    return frame.with_columns(id=pl.Series(ids, dtype=pl.String))


def _free(name: str, taken: Iterable[str]) -> str:
    found, number = name, 1
    while found in taken:
        number += 1
        found = f"{name}~{number}"
    return found


def _deduplicate(table: PhotoTable, settled: int) -> PhotoTable:
    """Reject duplicates and conflicting labels, but none of the first `settled` rows."""
    rows = table.frame.with_row_index("row").filter(pl.col("status") == KEPT)
    kept = rows.filter(pl.col("sha256").is_not_null() & pl.col("sha256").is_duplicated())
    if kept.is_empty():
        return table
    free = pl.col("row") >= settled
    odd = kept.filter(free & (pl.col("taxon_id").drop_nulls().n_unique().over("sha256") > 1))
    best = kept.filter(~pl.col("id").is_in(odd["id"].implode())).sort(
        free, pl.col("taxon_id").is_null(), pl.col("split").ne_missing(pl.lit("test")), "row"
    )
    more = best.filter(~pl.col("sha256").is_first_distinct() & free)
    logger.info(
        f"{len(more):,} duplicates removed; {len(odd):,} photos with several labels left out "
        "(ambiguous-label)."
    )
    table = table.with_frame(_joined(table.frame, kept))
    table = table.reject(odd["id"], RejectReason.AMBIGUOUS_LABEL.value)
    return table.reject(more["id"], RejectReason.DUPLICATE.value)


def _joined(frame: pl.DataFrame, same: pl.DataFrame) -> pl.DataFrame:
    """Merge the groups that share a photo."""
    first: dict[str, str] = {}

    def root(group: str) -> str:
        while first.get(group, group) != group:
            group = first[group]
        return group

    shared = same.group_by("sha256", maintain_order=True).agg(pl.col("group").drop_nulls().unique())
    of_photo: dict[str, str] = {}
    for digest, groups in shared.iter_rows():
        roots = sorted({root(group) for group in groups})
        first.update(dict.fromkeys(roots, roots[0]) if roots else {})
        if roots:
            of_photo[digest] = roots[0]
    joined = {group: root(group) for group in first}
    by_digest = pl.col("sha256").replace_strict(of_photo, default=None, return_dtype=pl.String)
    lacking = pl.col("group").is_null() & (pl.col("status") == KEPT)
    return frame.with_columns(group=pl.when(lacking).then(by_digest).otherwise("group").replace(joined))


def _key(name: str) -> str:
    return " ".join(name.split()).casefold()
