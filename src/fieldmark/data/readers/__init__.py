"""Read photos in any layout: a new one is a module here and its name in `_MODULES`."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import polars as pl

from fieldmark.data.photos import PhotoTable
from fieldmark.data.readers import (
    camtrap,
    coco_camera_traps,
    darwin_core,
    folder,
    imagefolder,
    inat,
    inat_export,
    inat_open_data,
    parquet,
    table,
    verification,
    webdataset,
)
from fieldmark.data.readers import remote as remote
from fieldmark.data.readers.base import Reader, check_zip
from fieldmark.data.readers.box_files import BoxFile as BoxFile
from fieldmark.data.storage import fsspec
from fieldmark.utils.errors import InputError, RejectReason

_MODULES = (
    *(inat, folder, table, webdataset, parquet, camtrap, imagefolder, darwin_core, inat_export),
    *(inat_open_data, coco_camera_traps),
)
READERS: dict[str, Reader] = {module.READER.name: module.READER for module in _MODULES}
# A folder of photos is what no other reader knows.
READERS["folder"] = replace(folder.READER, matches=lambda path: path.is_dir() and not is_list(path))


def read(
    path: Path,
    *,
    source: str | None = None,
    verify: bool = True,
    workers: int | None = None,
    boxes: BoxFile | None = None,
) -> PhotoTable:
    """Read photos in any layout: one row for each photo that is listed or found.

    Args:
        path: a folder, an annotation file, a table, or a table that `fieldmark index` wrote, which is
            used as it is; or the URL of one of these (`s3://`, `gs://`, `https://`).
        source: a name in `READERS`; None: detected.
        verify: check every file: its digest, its size and whether it is an image. Annotations without
            any photo are only counted.
        workers: how many threads check files; None: two for each core.
        boxes: a file of boxes: one row for each box of an animal in place of the photo.

    Raises:
        InputError: the path does not exist, has no known layout, or has no photos; or the same of the boxes.
    """
    if (place := fsspec.parse_url(path)) is not None:
        found = remote.read(place, lambda here: _pick(here, source))
    elif not path.exists():
        raise InputError(f"{path} not found: name a folder of photos, or a list of them.")
    elif source is None and table.is_index(path):
        found = PhotoTable.read(path)
        if boxes is None:
            return found
    else:
        found = _pick(path, source).read(path)
    if boxes is not None:
        found = boxes.cut(found)
    return verify_files(found, workers=workers) if verify else found


def verify_files(
    table: PhotoTable, *, workers: int | None = None, checker: verification.Checker | None = None
) -> PhotoTable:
    """Check every file that was not checked before, by `checker` or threads: see `read`."""
    if not table.kept["sha256"].null_count():
        return table
    return verification.check_files(table, checker or partial(verification.check_in_threads, workers=workers))


def without_empty(table: PhotoTable) -> PhotoTable:
    """Reject photos that are labelled as empty (`empty`, `blank`)."""
    empty = table.taxonomy.of_kind("blank")
    ids = table.frame.filter(pl.col("taxon_id").is_in(empty))["id"]
    found = table.reject(ids, RejectReason.NO_ANIMAL.value)
    rejected = pl.col("reason").eq_missing(pl.lit(RejectReason.NO_ANIMAL.value))
    frame = found.frame.with_columns(taxon_id=pl.when(~rejected).then("taxon_id"))
    left = [taxon.id for taxon in table.taxonomy if taxon.id not in empty]
    return replace(found, frame=frame, taxonomy=table.taxonomy.only(left))


def is_list(path: Path) -> bool:
    """Return whether a path is a list of photos (a table, an archive ...), or a folder with one."""
    return any(each.matches(path) for name, each in READERS.items() if name != folder.READER.name)


def _pick(path: Path, name: str | None) -> Reader:
    if name is not None:
        if name not in READERS:
            raise InputError(f"There is no source {name!r}: choose one of {', '.join(READERS)}.")
        return READERS[name]
    if found := next((each for each in READERS.values() if each.matches(path)), None):
        return found
    check_zip(path)
    known = "; ".join(f"{each.name}: {each.expects}" for each in READERS.values())
    raise InputError(f"{path} has no known layout. Expected is {known}.")


from_frame = table.from_frame
