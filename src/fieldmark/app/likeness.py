"""The order by likeness: photos that look alike stand beside each other.

The look of a photo, or of the crop of a box, is its perceptual hash of 64 bits, measured in the job that
names it, together with its thumbnail. The order is a chain: from each photo on to the one that is most like
it among those that are left (the greedy rule of nearest neighbours). It is made for all photos at once; those
of a group stand in this order.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from fieldmark.app import answers, pictures
from fieldmark.app.store import Project
from fieldmark.data import images
from fieldmark.data.storage.places import Boxed
from fieldmark.features import image_stats
from fieldmark.features.hamming_search import Hashes
from fieldmark.inference.inputs import read_list
from fieldmark.inference.record import box_in
from fieldmark.utils import io
from fieldmark.utils.logging import progress_bar
from fieldmark.utils.threads import in_order
from fieldmark.utils.typing import IntArray

FILE = "looks.json"
_AT_ONCE = 50_000  # photos of one chain: its time grows with their square


def measure(job: Path) -> None:
    """Draw the thumbnails of the photos that a job has named, and write their looks beside its answers."""
    if not (job / "answers.jsonl").exists():
        return
    where = {photo.name: photo.path for photo in read_list(str(job / "photos.txt"))}
    found: dict[str, Path | Boxed] = {}
    for line in (job / "answers.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        path = where.get(record["file_name"])
        if isinstance(path, Path) and "rejected" not in record:
            box = box_in(record["detection"]) if answers.is_box(record) else None
            found[answers.key(record)] = Boxed(path, box) if box else path
    folder = pictures.thumbnails_of(job.parents[1])
    drawn = in_order(lambda place: look(pictures.thumbnail(folder, place)), found.values())
    looks = {}
    with progress_bar("measuring photos", len(found)) as bar:
        for key, value in zip(found, drawn, strict=True):
            bar.advance()
            if value is not None:
                looks[key] = value
    io.write_json(job / FILE, looks)


def look(thumbnail: bytes | None) -> int | None:
    """Return the perceptual hash of a small picture as SQLite keeps it: with a sign."""
    if thumbnail is None:
        return None
    grey_SS = image_stats.VIEW.apply(images.decode(thumbnail)) @ image_stats.LUMA
    return int(image_stats.perceptual_hash(grey_SS).view("<i8")[0])


def looks_of(job: Path) -> dict[str, int]:
    """Return what `measure` wrote: the look of each photo or box; {} where it wrote nothing."""
    return dict(io.read_json(job / FILE)) if (job / FILE).exists() else {}


def arrange(project: Project) -> None:
    """Give each photo its number in the order by likeness."""
    rows = project.rows(
        "SELECT photo, look FROM answers JOIN photos ON id = photo "
        "WHERE role = 'new' AND look IS NOT NULL ORDER BY path"
    )
    if not rows:
        return
    hash_N = np.array([row[1] for row in rows], np.int64).view(np.uint64)
    numbers = ((number, rows[at][0]) for number, at in enumerate(chain(hash_N).tolist()))
    with project.changing() as db:
        db.executemany("UPDATE answers SET likeness = ? WHERE photo = ?", numbers)


def chain(hash_N: Hashes) -> IntArray:
    """Return the rows of hashes so that each is followed by the one nearest to it among those that are left.

    The first row is the first one. More than 50,000 rows are chained part by part.
    """
    parts = [hash_N[start : start + _AT_ONCE] for start in range(0, len(hash_N), _AT_ONCE)]
    return np.concatenate([_chain(part) + at * _AT_ONCE for at, part in enumerate(parts)])


def _chain(hash_N: Hashes) -> IntArray:
    hash_N, row_N, count = hash_N.copy(), np.arange(len(hash_N)), len(hash_N)
    order, at = np.empty(count, np.int64), 0
    for number in range(count):
        order[number], here = row_N[at], hash_N[at]
        count -= 1
        hash_N[at], row_N[at] = hash_N[count], row_N[count]  # the last one takes its place
        at = int(np.bitwise_count(hash_N[:count] ^ here).argmin()) if count else 0
    return order
