"""Dataset: photos with labels, and the part of a split that each belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldmark.data import readers
from fieldmark.data.photos import PhotoTable, by_location
from fieldmark.data.readers import BoxFile
from fieldmark.data.split import PARTS, Part, Split, split_photos, undivided
from fieldmark.data.subset import DataSplits, LabelledPhotos, read
from fieldmark.data.transforms import PAPER_CROP, Preprocess
from fieldmark.utils.choices import SplitMethod
from fieldmark.utils.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    from torch.utils import data as torch_data

PartName = Part


@dataclass(frozen=True)
class Dataset:
    """Labelled photos, divided into a training, a validation and a test part.

    Attributes:
        table: every photo that was found, with its status.
        split: which photo is in which part.
        name: what the data set is called in reports.
        also: the taxon ids of all classes, where some have no training photo; empty: those that have one.
    """

    table: PhotoTable
    split: Split
    name: str = ""
    also: tuple[str, ...] = ()

    def __len__(self) -> int:
        return self.table.kept.height

    @cached_property
    def splits(self) -> DataSplits:
        """The three parts, and the classes that have a training photo.

        Raises:
            InputError: fewer than two classes have a training photo.
        """
        return DataSplits.of(self.table, self.split, self.also)

    @property
    def train(self) -> LabelledPhotos:
        """The training photos: what a classifier is trained on."""
        return self.splits.train

    @property
    def val(self) -> LabelledPhotos:
        """The validation photos: what choices are made on."""
        return self.splits.val

    @property
    def test(self) -> LabelledPhotos:
        """The test photos: what the error is measured on, once."""
        return self.splits.test

    @property
    def classes(self) -> tuple[str, ...]:
        """The taxon ids of the classes, in the order of the scores."""
        return self.splits.classes

    def to_torch(
        self, part: PartName = "train", preprocess: Preprocess | None = None
    ) -> torch_data.Dataset[tuple[Any, int]]:
        """Return one part as a map-style PyTorch dataset.

        Its items are a crop, uint8 tensor (3, S, S), and the number of its class among `classes` (-1: a
        class without a training photo). Reading a photo that cannot be decoded raises `ImageRejected`.

        Args:
            part: `train`, `val` or `test`.
            preprocess: makes the crop; None: 224 x 224 pixels, resized without its proportions.
        """
        from fieldmark.data.torch_dataset import PhotoDataset

        if part not in PARTS:
            raise InputError(f"part is {part!r}: choose train, val or test.")
        photos: LabelledPhotos = getattr(self, part)
        return PhotoDataset(photos, self.classes, preprocess or PAPER_CROP)

    @classmethod
    def undivided(cls, table: PhotoTable, *, name: str = "", seed: int = 0) -> Dataset:
        """Put all photos of a table into the training part, but an official test part."""
        return cls(table, undivided(table, seed), name)

    @classmethod
    def of(
        cls,
        table: PhotoTable,
        *,
        name: str = "",
        val: float = 0.1,
        test: float = 0.1,
        split: SplitMethod = "stratified",
        seed: int = 0,
    ) -> Dataset:
        """Divide the photos of a table; an official test part stays as it is."""
        test = 0.0 if table.has_test or split == "official" else test
        parts = split_photos(table, val=val, test=test, seed=seed, way=split)
        return cls(table, parts, name)


def load_dataset(
    photos: str | Path | PhotoTable | pl.DataFrame | pd.DataFrame,
    *,
    val: float = 0.1,
    test: float = 0.1,
    split: SplitMethod = "stratified",
    limit: int | None = None,
    names: str | Path | None = None,
    seed: int = 0,
    boxes: str | Path | None = None,
    box_threshold: float | None = None,
) -> Dataset:
    """Read labelled photos and divide them.

    Args:
        photos: a folder, a file or a URL in any layout that fieldmark reads; a `PhotoTable`; or a pandas or
            Polars data frame with the columns `file_name` and `label`, optionally `split` and `group`.
        val: the share of validation photos.
        test: the share of test photos; photos that the source itself sets apart stay apart.
        split: `stratified` (by class), `random`, `official` (as the source divides them), or `location`
            (by class, with no location in two parts).
        limit: use at most so many labelled photos, drawn by their ids; None: all.
        names: a CSV file of accepted names for the labels; None: labels as they are.
        seed: of the split and of the drawing.
        boxes: a file of boxes, see `fieldmark.data.readers.box_files`: each box of an animal is a photo of
            its own; None: whole photos.
        box_threshold: from which confidence on a box counts; None: see `fieldmark.data.boxes`.

    Raises:
        InputError: the photos cannot be read, or cannot be divided like this.

    Example:
        >>> dataset = load_dataset(photos)  # doctest: +SKIP
        >>> len(dataset.train), len(dataset.val), len(dataset.test)  # doctest: +SKIP
        (480, 60, 60)
    """
    if limit is not None and limit < 1:
        raise InputError(f"limit is {limit}: use at least one photo, or None for all.")
    table, name = read_photos(
        photos,
        limit=limit,
        names=names,
        seed=seed,
        boxes=BoxFile.of(boxes, box_threshold),
        by_place=split == "location",
    )
    return Dataset.of(table, name=name, val=val, test=test, split=split, seed=seed)


def read_photos(
    photos: Any,
    *,
    limit: int | None = None,
    names: str | Path | None = None,
    seed: int = 0,
    boxes: BoxFile | None = None,
    by_place: bool = False,
) -> tuple[PhotoTable, str]:
    """Read photos as `load_dataset` takes them, without dividing them; return them with a name.

    With `by_place` the photos of a location are a group.
    """
    if isinstance(photos, PhotoTable):
        found, name = photos, photos.source
    elif isinstance(photos, str | Path):
        found, name = readers.read(Path(photos), verify=False), Path(photos).resolve().name
    elif hasattr(photos, "columns") and hasattr(photos, "shape"):
        found, name = readers.from_frame(photos), "data frame"
    else:
        raise InputError(
            f"Photos are a path, a data frame or a PhotoTable, not {type(photos).__name__}: name a "
            "folder of labelled photos."
        )
    if boxes is not None:
        found = boxes.cut(found)
    if by_place:
        found = by_location(found)
    accepted = None if names is None else Path(names)
    return read(found, limit=limit, seed=seed, accepted=accepted), name
