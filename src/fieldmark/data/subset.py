"""What training and the study share: parts of a split with their labels, and their features."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import compress
from pathlib import Path

import numpy as np
import polars as pl

from fieldmark.data import readers, synonyms
from fieldmark.data.photos import IS_HARD, PhotoFile, PhotoTable
from fieldmark.data.split import Part, Split
from fieldmark.data.storage import places
from fieldmark.data.storage.places import Boxed, Place
from fieldmark.utils import io
from fieldmark.utils.errors import InputError
from fieldmark.utils.random import order
from fieldmark.utils.threads import in_order
from fieldmark.utils.typing import BoolArray, IntArray

logger = logging.getLogger(__name__)

MOST_SCORES = 1 << 28
"""How many scores of a part are held at once: 1 GiB in float32."""
FEWEST = 64
"""So many photos are measured on, however many classes there are."""


@dataclass(frozen=True)
class LabelledPhotos:
    """Labelled photos of one part of a split, each with an entry in every field."""

    ids: tuple[str, ...]
    files: tuple[PhotoFile, ...]
    taxon_ids: tuple[str, ...]  # the labels
    groups: tuple[str | None, ...]  # None: in no group
    supercategories: tuple[str, ...]  # "" where there is none

    def __len__(self) -> int:
        return len(self.ids)

    def where(self, keep_N: BoolArray) -> LabelledPhotos:
        """Those photos for which `keep_N` is true."""
        columns = {each.name: getattr(self, each.name) for each in fields(self)}
        return LabelledPhotos(**{name: tuple(compress(all_, keep_N)) for name, all_ in columns.items()})

    def some(self, count: int) -> LabelledPhotos:
        """At most `count` of them, drawn by their ids; the order stays."""
        if len(self) <= count:
            return self
        keep_N = np.zeros(len(self), np.bool_)
        keep_N[order(self.ids, "some", 0)[:count]] = True
        return self.where(keep_N)

    def labels(self, classes: Sequence[str]) -> IntArray:
        """The number of each photo's class among `classes`, -1 where it is none of them; shape (N,)."""
        number = {taxon_id: index for index, taxon_id in enumerate(classes)}
        return np.array([number.get(taxon_id, -1) for taxon_id in self.taxon_ids], np.int64)


def photos_of(table: PhotoTable, split: Split, part: Part) -> LabelledPhotos:
    """The photos of one part of a split that can be used.

    Raises:
        InputError: the files of the photos were never looked at, so there is nothing to train on.
    """
    return _photos(table, split.rows(table, part))


def _photos(table: PhotoTable, rows: pl.DataFrame) -> LabelledPhotos:
    if rows["sha256"].null_count():
        raise InputError(
            f"{table.root} holds the annotations but not the photos of {rows['sha256'].null_count():,} "
            "labels: put the photos where the annotations say they are; counting alone works "
            "without them (`fieldmark stats`)."
        )
    files = rows.select("sha256", "path").iter_rows()
    return LabelledPhotos(
        ids=tuple(rows["id"]),
        files=tuple(PhotoFile(digest, table.file_of(path)) for digest, path in files),
        taxon_ids=tuple(rows["taxon_id"]),
        groups=tuple(rows["group"]),
        supercategories=tuple(table.taxonomy[taxon_id].supercategory for taxon_id in rows["taxon_id"]),
    )


def whole_photos(photos: LabelledPhotos) -> LabelledPhotos:
    """Return the same items with the whole photos that their boxes are of, in place of the crops.

    Raises:
        ImageRejected: a photo cannot be read.
    """

    def whole(file: PhotoFile) -> PhotoFile:
        if not isinstance(file.path, Boxed):
            return file
        return PhotoFile(io.sha256(places.read(file.path)), file.path.photo)

    return replace(photos, files=tuple(in_order(whole, photos.files)))


def read(
    photos: Path | PhotoTable, *, limit: int | None, seed: int, accepted: Path | None = None
) -> PhotoTable:
    """Photos in any layout, each looked at; with a limit, only so many of the labelled ones.

    Those are drawn by their ids before any file is opened, so that a small limit is quick. With a table
    of `accepted` names, labels are called as it says (see `fieldmark.data.synonyms`).
    """
    found = photos if isinstance(photos, PhotoTable) else readers.read(photos, verify=False)
    table = synonyms.read(accepted).apply(found)
    ids = table.measurable["id"].to_list()
    if limit is not None and limit < len(ids):
        drawn = [ids[index] for index in order(ids, "limit", seed)[:limit]]
        table = table.with_frame(table.frame.filter(pl.col("id").is_in(drawn)))
    return readers.verify_files(table)


@dataclass(frozen=True)
class DataSplits:
    """The three parts of a split, the classes to learn, and hard photos.

    `hard` are those outside the test part: measured in folds, and never learned from. Those of the test part
    are among its photos.
    """

    train: LabelledPhotos
    val: LabelledPhotos
    test: LabelledPhotos
    classes: tuple[str, ...]
    hard: LabelledPhotos = LabelledPhotos((), (), (), (), ())

    @classmethod
    def of(cls, table: PhotoTable, split: Split, classes: Sequence[str] = ()) -> DataSplits:
        """Every class that has a training photo is learned, unless `classes` says which are.

        Raises:
            InputError: there are fewer than two classes to tell apart.
        """
        train = photos_of(table, split, "train")
        present = set(train.taxon_ids)
        classes = tuple(classes) or tuple(taxon.id for taxon in table.taxonomy if taxon.id in present)
        if len(classes) < 2:
            raise InputError(
                f"{table.root} has training photos of {len(classes)} class: a classifier needs at "
                "least two; add photos of another species, or raise --limit."
            )
        val, test = photos_of(table, split, "val"), photos_of(table, split, "test")
        outside = split.frame.filter(pl.col("part") != "test")["id"].implode()
        hard = _photos(table, table.frame.filter(IS_HARD & pl.col("id").is_in(outside)))
        return cls(train, val, test, classes, hard)

    def measurable(self) -> DataSplits:
        """The same with as many photos to choose by and to measure on as scores are held for at once.

        That is all of them up to some thousand classes; with 100,000 it is 2,684 a part.
        """
        most = max(FEWEST, MOST_SCORES // len(self.classes))
        for part, name in ((self.val, "choose by"), (self.test, "measure on")):
            if len(part) > most:
                gib = 4 * len(part) * len(self.classes) / 2**30
                logger.info(
                    f"{most:,} of the {len(part):,} photos to {name} are drawn: the scores of all for "
                    f"{len(self.classes):,} classes would need {gib:.1f} GiB."
                )
        return replace(self, val=self.val.some(most), test=self.test.some(most))

    @cached_property
    def files(self) -> list[PhotoFile]:
        """All photos, whatever their part."""
        return [*self.train.files, *self.val.files, *self.test.files, *self.hard.files]

    def train_counts(self) -> dict[str, int]:
        """How many training photos each class has."""
        counts = Counter(self.train.taxon_ids)
        return {taxon_id: counts[taxon_id] for taxon_id in self.classes}


def photo_finder(table: PhotoTable) -> Callable[[str], Place | None]:
    """Where the photo with an id lies, for the pictures of a page."""
    places = dict(table.frame.select("id", "path").iter_rows())
    return lambda photo_id: table.file_of(places[photo_id]) if photo_id in places else None
