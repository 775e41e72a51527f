"""Decode photos to crops in threads, once for all networks that share the crop.

Decoding releases the GIL, so threads use all cores without copying pixels between processes. The number
of photos in progress, and so the memory, is bounded.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from fieldmark.data import images
from fieldmark.data.photos import PhotoFile
from fieldmark.data.storage.places import InMemoryImage
from fieldmark.data.subset import LabelledPhotos
from fieldmark.data.transforms import Preprocess
from fieldmark.utils import io
from fieldmark.utils.errors import ImageRejected, InputError, RejectReason
from fieldmark.utils.threads import RecentValues, in_order
from fieldmark.utils.typing import ByteArray, IntArray

if TYPE_CHECKING:
    import torch

_AHEAD = 2048
"""Photos decoded ahead into a crop cache: two batches of a GPU."""


def decoded(
    photos: Sequence[PhotoFile], preprocess: Preprocess, *, workers: int | None = None
) -> Iterator[ByteArray | ImageRejected]:
    """Yield the crop of each photo in order, uint8 (S, S, 3), or the reason why there is none."""
    return in_order(lambda photo: _crop(photo, preprocess), photos, workers)


def _crop(photo: PhotoFile, preprocess: Preprocess) -> ByteArray | ImageRejected:
    try:
        data = images.read_bytes(photo.path)
        if io.sha256(data) != photo.sha256:
            return ImageRejected(RejectReason.CHANGED, "the file is not the one that was indexed")
        return preprocess.crop(data)
    except ImageRejected as error:
        return error


@dataclass
class CropCache:
    """Crops in an unnamed temporary file, which is deleted with the process."""

    crops: ByteArray  # shape (N, S, S, 3) uint8, a memory map; a rejected photo's crop is black
    rejected: dict[int, ImageRejected] = field(default_factory=dict)  # by the numbers of the photos

    @classmethod
    def empty(cls, count: int, size: int) -> CropCache:
        """Allocate `count` crops of `size` x `size` pixels in the cache folder.

        Raises:
            InputError: the disk is full.
        """
        if not count:
            return cls(np.empty((0, size, size, 3), np.uint8))
        folder = io.cache_dir()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder) as handle:
                if hasattr(os, "posix_fallocate"):  # Linux: else a full disk would kill the process later
                    os.posix_fallocate(handle.fileno(), 0, count * size * size * 3)
                else:
                    handle.truncate(count * size * size * 3)
                crops = np.memmap(handle, np.uint8, mode="r+", shape=(count, size, size, 3))
        except OSError as error:
            raise InputError(
                f"{folder} has no space for {count:,} crops ({error.strerror}): free some space "
                "or name another folder with --cache."
            ) from error
        return cls(crops)

    def fill(
        self, photos: Sequence[PhotoFile], preprocess: Preprocess, *, workers: int | None = None
    ) -> Iterator[int]:
        """Decode the photos; yield each photo's number when its crop is ready."""

        def decode(number: int) -> ImageRejected | None:
            crop = _crop(photos[number], preprocess)
            if isinstance(crop, ImageRejected):
                return crop
            self.crops[number] = crop
            return None

        for number, error in enumerate(in_order(decode, range(len(photos)), workers, _AHEAD)):
            if error is not None:
                self.rejected[number] = error
            yield number

    def take(self, numbers: Sequence[int]) -> ByteArray:
        """Return some crops, (len(numbers), S, S, 3); a view where they are consecutive."""
        if numbers and numbers[-1] - numbers[0] + 1 == len(numbers):
            return self.crops[numbers[0] : numbers[-1] + 1]
        return self.crops[list(numbers)]


BLOCK_PHOTOS = 128
"""Consecutive photos of a stream that are read together."""
SHUFFLED_BLOCKS = 8
"""Blocks whose photos are shuffled together."""


class StreamedCrops:
    """Crops that are decoded when they are needed, in place of the array of a `CropCache`.

    The bytes of `BLOCK_PHOTOS` photos are read in order, so that a remote shard is read sequentially; those
    of the last blocks stay in memory. In the order of `block_order` every byte is read once an epoch.
    """

    def __init__(self, photos: Sequence[PhotoFile], preprocess: Preprocess) -> None:
        self._photos, self._preprocess = photos, preprocess
        self.shape = (len(photos), preprocess.size, preprocess.size, 3)  # (N, S, S, 3)
        self._blocks: RecentValues[list[bytes]] = RecentValues(2 * SHUFFLED_BLOCKS)

    def __getitem__(self, rows: IntArray | np.int64) -> ByteArray:
        """Return one crop (S, S, 3), or those of some rows (n, S, S, 3); `InputError` for a lost photo."""
        if not isinstance(rows, np.ndarray):
            return self._crop(int(rows))
        return np.stack(list(in_order(lambda row: self._crop(int(row)), rows)))

    def _crop(self, row: int) -> ByteArray:
        stretch, at = divmod(row, BLOCK_PHOTOS)
        data = self._blocks.get(stretch, lambda: self._read(stretch))[at]
        found = _crop(PhotoFile(self._photos[row].sha256, InMemoryImage(data)), self._preprocess)
        if isinstance(found, ImageRejected):
            raise InputError(f"{self._photos[row].path} cannot be used ({found}): index the photos again.")
        return found

    def _read(self, stretch: int) -> list[bytes]:
        found = []
        for photo in self._photos[stretch * BLOCK_PHOTOS : (stretch + 1) * BLOCK_PHOTOS]:
            try:
                found.append(images.read_bytes(photo.path))
            except ImageRejected as error:
                message = f"{photo.path} could not be read ({error}): index the photos again."
                raise InputError(message) from error
        return found


@dataclass(frozen=True)
class LabelledCrops:
    """Crops with their labels."""

    pixels: ByteArray | StreamedCrops  # uint8 (N, S, S, 3), in memory, mapped from disk, or on demand
    rows: IntArray  # which of them to use, shape (n,)
    labels: IntArray  # their classes in 0 .. C-1, shape (n,)
    ids: tuple[str, ...]  # of their photos

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def side(self) -> int:
        """Return S, in pixels."""
        return int(self.pixels.shape[1])

    def batch(self, index: IntArray) -> tuple[torch.Tensor, torch.Tensor]:
        """Return some of the crops and their labels as tensors."""
        import torch

        pixels = np.ascontiguousarray(self.pixels[self.rows[index]])
        return torch.from_numpy(pixels), torch.from_numpy(self.labels[index])


@dataclass(frozen=True)
class CachedCrops:
    """Decoded crops on disk, and the row of each photo by its SHA-256."""

    crop_cache: CropCache
    rows: dict[str, int]

    def labelled(
        self, photos: LabelledPhotos, classes: Sequence[str], *, also_unknown: bool = False
    ) -> LabelledCrops:
        """Return the crops of the photos that could be decoded, with their labels.

        Photos of none of the classes are left out, unless `also_unknown`.
        """
        labels = photos.labels(classes)
        wanted = np.flatnonzero((labels >= 0) | also_unknown)
        rows = {number: self.rows[photos.files[number].sha256] for number in wanted}
        keep = [number for number, row in rows.items() if row not in self.crop_cache.rejected]
        ids = tuple(photos.ids[number] for number in keep)
        kept_rows = np.array([rows[number] for number in keep], np.int64)
        return LabelledCrops(self.crop_cache.crops, kept_rows, labels[keep], ids)


def streamed_crops(photos: LabelledPhotos, classes: Sequence[str], crop: Preprocess) -> LabelledCrops:
    """Return the photos of the classes with their labels, decoded on demand."""
    labels = photos.labels(classes)
    keep = np.flatnonzero(labels >= 0)
    pixels = StreamedCrops([photos.files[number] for number in keep], crop)
    ids = tuple(photos.ids[number] for number in keep)
    return LabelledCrops(pixels, np.arange(len(keep)), labels[keep], ids)
