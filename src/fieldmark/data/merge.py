"""Merge tables of photos: the same taxon is one class, the same photo one row."""

from __future__ import annotations

import logging
from collections.abc import Container, Sequence
from dataclasses import replace
from itertools import chain, count
from pathlib import Path

import polars as pl

from fieldmark.data.photos import IS_HARD, IS_KEPT, KEPT, PhotoTable
from fieldmark.data.storage import places
from fieldmark.data.storage.places import File
from fieldmark.data.taxonomy import Taxon, Taxonomy, name_key
from fieldmark.utils.errors import InputError, RejectReason

logger = logging.getLogger(__name__)


def merge(tables: Sequence[PhotoTable], *, keep_first: bool = False) -> PhotoTable:
    """Merge the photos of some tables.

    Taxa are the same if they have the same scientific name and not two kingdoms; or, where one of
    them has no name but its id, the same id. Missing facts of a taxon come from the next table. Ids stay;
    a number is appended to one that is taken. Groups of the same name are one group: two could be a leak.

    Of photos with the same bytes one stays: a labelled one, then a test photo, then the first. The others
    are rejected as `duplicate`, and their groups are merged; as `ambiguous-label` all if labels differ.

    Args:
        tables: what to merge.
        keep_first: whether all photos of the first table stay. The labels of the others correct theirs: a
            photo with the same bytes gets the new label, and is kept if its label was suspect.

    Raises:
        InputError: one table cannot name all of their files.
    """
    taxa = _Taxa()
    root = _root([table.root for table in tables])
    frames = []
    for table in tables:
        ids = {taxon.id: taxa.add(taxon) for taxon in table.taxonomy}
        relabelled = table.frame.with_columns(taxon_id=pl.col("taxon_id").replace(ids))
        frames.append(_placed(relabelled, table.root, root))
    settled = len(tables[0]) if keep_first else 0
    frame = _numbered(pl.concat(frames))
    frame = _corrected(frame, settled) if settled else frame
    if len({table.box_threshold is None for table in tables}) > 1:
        raise InputError(
            "Some of these tables are of whole photos and some of boxes, which do not go together: name "
            "boxes for all of them (--boxes), or for none."
        )
    merged = PhotoTable(frame, Taxonomy(taxa.found.values()), root, tables[0].source, tables[0].box_threshold)
    return _deduplicate(merged, settled)


class _Taxa:
    """The taxa of all tables under one id each."""

    def __init__(self) -> None:
        self.found: dict[str, Taxon] = {}
        self.names: dict[str, dict[str, None]] = {}  # the ids of a name, in their order

    def add(self, taxon: Taxon) -> str:
        """Add a taxon; return its id among all."""
        if (known := self._same(taxon)) is not None:
            self.found[known] = _completed(self.found[known], taxon)
        else:
            known = _free(taxon.id, self.found)
            self.found[known] = replace(taxon, id=known)
        for name in (taxon.name, taxon.id):
            self.names.setdefault(name_key(name), {})[known] = None
        return known

    def _same(self, taxon: Taxon) -> str | None:
        nameless = taxon.name == taxon.id
        for known in self.names.get(name_key(taxon.name), ()):
            other = self.found[known]
            if nameless or other.name == other.id or name_key(other.name) == name_key(taxon.name):
                kingdoms = {each.ranks.get("kingdom") for each in (taxon, other)} - {None}
                if len(kingdoms) < 2:
                    return known
        for known in self.names.get(name_key(taxon.id), ()):
            if self.found[known].name == self.found[known].id and name_key(known) == name_key(taxon.id):
                return known
        return None


def _completed(taxon: Taxon, other: Taxon) -> Taxon:
    """Complete a taxon by the facts of another one."""
    nameless = taxon.name == taxon.id and other.name != other.id
    return Taxon(
        id=taxon.id,
        name=other.name if nameless else taxon.name,
        common_name=taxon.common_name or other.common_name,
        supercategory=taxon.supercategory or other.supercategory,
        ranks={**other.ranks, **taxon.ranks},
    )


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
    ids: dict[str, None] = {}
    for photo_id in frame["id"]:
        own = photo_id if photo_id not in ids else _free(photo_id, taken)
        ids[own] = None
        taken.add(own)
    return frame.with_columns(id=pl.Series(list(ids), dtype=pl.String))


def _free(name: str, taken: Container[str]) -> str:
    others = (f"{name}~{number}" for number in count(2))
    return next(found for found in chain((name,), others) if found not in taken)


def _corrected(frame: pl.DataFrame, settled: int) -> pl.DataFrame:
    """Give the first `settled` rows the label of the others with the same bytes, where they have only one."""
    old, new = frame[:settled], frame[settled:]
    by_digest = new.filter(IS_KEPT).drop_nulls("taxon_id").group_by("sha256")
    labels = by_digest.agg(now=pl.col("taxon_id").unique()).filter(pl.col("now").list.len() == 1)
    old = old.join(labels.explode("now"), on="sha256", how="left", maintain_order="left")
    given = pl.col("now").is_not_null() & (IS_KEPT | IS_HARD)
    reviewed = given & pl.col("reason").eq_missing(pl.lit(RejectReason.SUSPECT_LABEL.value))
    corrected = old.with_columns(
        taxon_id=pl.when(given).then("now").otherwise("taxon_id"),
        status=pl.when(reviewed).then(pl.lit(KEPT)).otherwise("status"),
        reason=pl.when(~reviewed).then("reason"),
    )
    return pl.concat([corrected.drop("now"), new])


def _deduplicate(table: PhotoTable, settled: int) -> PhotoTable:
    """Reject duplicates and conflicting labels, but none of the first `settled` rows."""
    rows = table.frame.with_row_index("row").filter(IS_KEPT | IS_HARD)
    kept = rows.filter(pl.col("sha256").is_not_null() & pl.col("sha256").is_duplicated())
    if kept.is_empty():
        return table
    free = pl.col("row") >= settled
    odd = kept.filter(free & (pl.col("taxon_id").drop_nulls().n_unique().over("sha256") > 1))
    best = kept.filter(~pl.col("id").is_in(odd["id"].implode())).sort(
        free, ~IS_KEPT, pl.col("taxon_id").is_null(), pl.col("split").ne_missing(pl.lit("test")), "row"
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
        if roots := sorted({root(group) for group in groups}):
            first.update(dict.fromkeys(roots, roots[0]))
            of_photo[digest] = roots[0]
    joined = {group: root(group) for group in first}
    by_digest = pl.col("sha256").replace_strict(of_photo, default=None, return_dtype=pl.String)
    lacking = pl.col("group").is_null() & (IS_KEPT | IS_HARD)
    return frame.with_columns(group=pl.when(lacking).then(by_digest).otherwise("group").replace(joined))
