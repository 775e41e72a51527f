"""Check every listed file: its digest, its size, and whether it is an image.

Threads do the work, since reading, hashing and decoding release the GIL.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import polars as pl

from fieldmark.data import images
from fieldmark.data.photos import KEPT, REJECTED, PhotoTable
from fieldmark.data.readers.tabular import add
from fieldmark.data.storage import places
from fieldmark.data.storage.places import File, Place
from fieldmark.utils import io
from fieldmark.utils.cpu import cores
from fieldmark.utils.errors import ImageRejected
from fieldmark.utils.logging import progress_bar
from fieldmark.utils.printable import NAMED, some_of
from fieldmark.utils.threads import in_order

logger = logging.getLogger(__name__)

# About a tenth of a second of work, so that the progress bar moves smoothly.
_BATCH = 32

FileCheck = tuple[str, str | None, int | None, int | None, str | None]
"""The id of a photo, and its digest, width, height and reason where there are."""
PhotoRows = Sequence[tuple[str, str]]
"""The id and the path of each photo."""
Checker = Callable[[File, PhotoRows], Iterator[list[FileCheck]]]
"""Checks photos below a root: see `check_in_threads`."""

_SCHEMA = {
    **{"id": pl.String(), "found_sha256": pl.String()},
    **{"found_width": pl.Int32(), "found_height": pl.Int32(), "found_reason": pl.String()},
}


def check_files(table: PhotoTable, checker: Checker) -> PhotoTable:
    """Set digest, size, status and reason of the photos by their files.

    Rejected rows stay as they are. So does a table whose photos are not on this machine at all, since
    annotations are enough for counting. `checker` may return results in any order.
    """
    listed = table.frame.filter(pl.col("status") == KEPT).select("id", "path")
    if listed.is_empty():
        return table
    if _photos_are_missing(table.root, listed["path"]):
        logger.info(f"No photos found under {table.root}: only the annotations are counted.")
        return table
    rows = list(listed.iter_rows())
    with progress_bar("Checking photos", len(rows)) as bar:
        findings: list[FileCheck] = []
        for batch in checker(table.root, rows):
            findings += batch
            bar.advance(len(batch))
    path_of = dict(rows)
    if bad := [f"{path_of[each[0]]} ({each[-1]})" for each in findings if each[-1] is not None]:
        logger.warning(
            f"{len(bad):,} of {len(rows):,} photos cannot be used: {some_of(bad)}."
            + " All of them with the reasons: fieldmark index." * (len(bad) > NAMED)
        )
    found = pl.DataFrame(findings, schema=_SCHEMA, orient="row").with_columns(checked=True)
    seen, refused = pl.col("checked").is_not_null(), pl.col("found_reason").is_not_null()
    return table.with_frame(
        add(table.frame, found, on="id").with_columns(
            sha256=pl.coalesce("found_sha256", "sha256"),
            width=pl.when(seen).then("found_width").otherwise("width"),
            height=pl.when(seen).then("found_height").otherwise("height"),
            status=pl.when(refused).then(pl.lit(REJECTED)).otherwise("status"),
            reason=pl.coalesce("found_reason", "reason"),
        )
    )


def _photos_are_missing(root: File, paths: pl.Series) -> bool:
    """Return whether none of the top folders of the paths exists below `root`."""
    if not isinstance(root, Path):
        return False
    tops = paths.str.extract(r"^(/?[^/]+)/", 1).fill_null(".").unique().to_list()
    return not any((root / top).is_dir() for top in tops)


def check_in_threads(root: File, rows: PhotoRows, workers: int | None = None) -> Iterator[list[FileCheck]]:
    """Yield results in the order of the rows; a bounded number of batches is in progress."""
    workers = workers or 2 * cores()
    batches = (rows[start : start + _BATCH] for start in range(0, len(rows), _BATCH))

    def check(batch: PhotoRows) -> list[FileCheck]:
        return [(photo_id, *_check(places.at(root, path))) for photo_id, path in batch]

    return in_order(check, batches, workers, ahead=0)


def _check(place: Place) -> tuple[str | None, int | None, int | None, str | None]:
    digest = None
    try:
        data = images.read_bytes(place)
        digest = io.sha256(data)
        header = images.verify(data)
    except ImageRejected as error:
        return digest, None, None, error.reason.value
    return digest, header.width, header.height, None
