"""Read photos in any layout into a table: one row for each, kept or rejected.

Arguments:
    photos: Photos in any layout, or an annotation file.
Options:
    out: The Parquet table to write.
    verify: Open every file: digest, size, whether it is an image; time and place from its EXIF data.
    by_location: Keep all photos of a location in one part of a split.
    empty: Keep photos that are labelled as empty, as a class.
"""

from __future__ import annotations

from pathlib import Path

from fieldmark.cli import options as opt


def index(
    photos: Path,
    out: Path = Path("photos.parquet"),
    source: str | None = None,
    names: Path | None = None,
    verify: bool = True,
    by_location: bool = False,
    empty: bool = True,
    boxes: Path | None = None,
    box_threshold: opt.Confidence = None,
    cluster: str | None = None,
    shards: opt.Positive = 16,
) -> None:
    from fieldmark.data import readers, synonyms
    from fieldmark.data.locations import with_exif
    from fieldmark.data.photos import by_location as grouped_by_location

    accepted = synonyms.read(names)
    table = readers.read(photos, source=source, verify=False, boxes=readers.BoxFile.of(boxes, box_threshold))
    if not empty:
        table = readers.without_empty(table)
    if by_location:
        table = grouped_by_location(table)
    if verify:
        with opt.cluster_workers(cluster, shards) as workers:
            table = workers.look(table) if workers else readers.verify_files(table)
        table = with_exif(table)
    opt.write_table(accepted.apply(table), out)
