"""`fieldmark extract`: features of one shard of the photos, so that many processes share the work.

A shard is the unit of work, of retry and of resume. Its photos are read once, in order and a bounded
number at a time, so memory does not grow with their number and nothing is copied to disk. Each process
writes to its own segment of the cache, whose rows are moved to the cache at the end. A killed process
loses its last batch; the same shard, started again, resumes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from fieldmark.data import images, readers
from fieldmark.data.photos import PhotoFile, PhotoTable
from fieldmark.data.storage.places import InMemoryImage, Place
from fieldmark.features.cache import FeatureCache
from fieldmark.features.extraction import BATCH, Extraction, Job, extract
from fieldmark.features.extractor import FeatureExtractor
from fieldmark.models import Backbone, runtime
from fieldmark.models.runtime import Engine
from fieldmark.utils import io
from fieldmark.utils.errors import ImageRejected, InputError, StoreError
from fieldmark.utils.logging import overall_progress
from fieldmark.utils.threads import in_order, one_ahead
from fieldmark.utils.typing import BoolArray

CHUNK = 8 * BATCH
"""Photos in memory at a time; as many again are read ahead."""


@dataclass(frozen=True)
class Shard:
    """One of `of` shares of the photos, counted from 1."""

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read `3/8`.

        Raises:
            InputError: it is not two whole numbers i/n with 1 <= i <= n.
        """
        number, slash, of = text.partition("/")
        if not slash or not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
            raise InputError(f"--shard {text} is not a shard: write i/n with i from 1 to n, such as 3/8.")
        return cls(int(number), int(of))

    @property
    def name(self) -> str:
        """Return the name of its segment."""
        return f"{self.number:05}-of-{self.of:05}"

    def share(self, table: PhotoTable) -> PhotoTable:
        """Return the rows of this shard, consecutive, so that files are read in order."""
        first, last = ((part * len(table)) // self.of for part in (self.number - 1, self.number))
        return table.with_frame(table.frame[first:last])


@dataclass
class ShardResult:
    """The result of an extraction of a shard.

    Attributes:
        photos: how many of the shard's photos have features.
        computed: vectors computed, over all networks; the others were cached.
        rejected: why photos have no features, by their ids.
    """

    photos: int = 0
    computed: int = 0
    rejected: dict[str, ImageRejected] = field(default_factory=dict)


def extract_shard(
    table: PhotoTable, backbones: dict[str, Backbone], extractor: FeatureExtractor, shard: Shard = Shard(1, 1)
) -> ShardResult:
    """Compute and cache the features of one shard of the photos.

    The features are those of `train` and `study`, bit for bit on one engine.

    Args:
        table: the shard's photos (`Shard.share`), checked or not. A photo with a known digest and cached
            features is not read.
        backbones: the networks, by name.
        extractor: how features are computed and where they are cached.
        shard: names the segments.

    Raises:
        InputError: the photos or the cache cannot be read or written.
        StoreError: another process computes the same shard.
    """
    report = ShardResult()
    networks = [_ShardNetwork(name, backbone, extractor, shard) for name, backbone in backbones.items()]
    mine = table.kept.select("id", "path", "sha256")
    digests = mine["sha256"].fill_null("0" * 64).to_list()
    kept = mine["sha256"].is_not_null().to_numpy() & _all_cached(networks, digests)
    report.photos = int(kept.sum())
    rows = mine.filter(~kept).rows()
    with overall_progress(f"shard {shard.number}/{shard.of}", len(rows)) as bar:
        for chunk in _chunks(table, rows, extractor.workers):
            _compute(chunk, networks, extractor, report)
            bar.advance(len(chunk))
    for network in networks:
        with suppress(StoreError):  # another process writes to the cache: the next one gathers them
            network.cache.gather()
    return report


_Row = tuple[str, str, str | None]
_Read = tuple[str, PhotoFile | ImageRejected]


class _ShardNetwork:
    """One network: its cache, this shard's segment of it, and its engine once it is needed."""

    def __init__(self, name: str, backbone: Backbone, extractor: FeatureExtractor, shard: Shard) -> None:
        self.name, self.backbone, self.extractor = name, backbone, extractor
        self.cache: FeatureCache = extractor.cache(backbone)
        self.segment = self.cache.segment(shard.name)
        self.crop = extractor.crop_for(backbone)

    def has(self, digests: Sequence[str]) -> BoolArray:
        """Return which photos' vectors are in the cache or the segment."""
        return (self.cache.rows(digests) >= 0) | (self.segment.rows(digests) >= 0)

    @cached_property
    def engine(self) -> Engine:
        """Return the engine, shared by all chunks."""
        return runtime.engine(self.backbone, self.extractor.engine, batch=BATCH)

    def job(self) -> Job:
        """Return the extraction job that writes to the segment."""
        cost = self.backbone.architecture.giga_macs
        return Job(self.name, self.segment, cost, engine=lambda: self.engine)


def _all_cached(networks: Sequence[_ShardNetwork], digests: Sequence[str]) -> BoolArray:
    have: BoolArray = np.all([network.has(digests) for network in networks], axis=0)
    return have


def _chunks(table: PhotoTable, rows: Sequence[_Row], workers: int | None) -> Iterator[list[_Read]]:
    """Yield the photos with their bytes, in order, reading one chunk ahead."""

    def load(start: int) -> list[_Read]:
        work = ((row, table.file_of(row[1])) for row in rows[start : start + CHUNK])
        return list(in_order(_read, work, workers))

    return one_ahead(load, range(0, len(rows), CHUNK))


def _read(work: tuple[_Row, Place]) -> _Read:
    (photo_id, _, digest), place = work
    try:
        data = images.read_bytes(place)
    except ImageRejected as error:
        return photo_id, error
    return photo_id, PhotoFile(digest or io.sha256(data), InMemoryImage(data))


def _compute(
    chunk: Sequence[_Read],
    networks: Sequence[_ShardNetwork],
    extractor: FeatureExtractor,
    report: ShardResult,
) -> None:
    photos = {name: photo for name, photo in chunk if isinstance(photo, PhotoFile)}
    report.rejected |= {name: each for name, each in chunk if isinstance(each, ImageRejected)}
    done = Extraction()
    for crop in dict.fromkeys(network.crop for network in networks):
        sharing = [network for network in networks if network.crop == crop]
        every = list(photos.values())
        lacking = ~_all_cached(sharing, [photo.sha256 for photo in every])
        todo = [every[number] for number in np.flatnonzero(lacking)]
        jobs = [network.job() for network in sharing]
        extract(todo, jobs, crop, done, workers=extractor.workers)
    refused = {
        name: done.rejected[photo.sha256] for name, photo in photos.items() if photo.sha256 in done.rejected
    }
    report.rejected |= refused
    report.photos += len(photos) - len(refused)
    report.computed += sum(done.computed.values())


def read(photos: Path, *, source: str | None = None) -> PhotoTable:
    """List the photos without checking them: the extraction reads their bytes."""
    return readers.read(photos, source=source, verify=False)
