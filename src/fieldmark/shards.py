"""`fieldmark extract`: features of one shard of the photos, so that many processes share the work.

A shard is the unit of work, of retry and of resume. Its photos' bytes are read once, in order and a
bounded number at a time, so memory does not grow with the photos and nothing is copied to the disk.
Each process writes onto a segment of its own beside the shelf; when it is done the segment's rows are
taken onto the shelf. A killed process loses its last batch; the same shard, started again, goes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from fieldmark import files, images, progress, sources
from fieldmark.backbones import Backbone, engines
from fieldmark.backbones.engines import Engine
from fieldmark.crops import PhotoFile, cores
from fieldmark.errors import ImageRejected, InputError, StoreError
from fieldmark.experiment import Bench
from fieldmark.extraction import BATCH, Job, extract
from fieldmark.features import Shelf
from fieldmark.photos import PhotoTable
from fieldmark.places import Held, Place

CHUNK = 8 * BATCH
"""Photos whose bytes are held at a time; as many again are read ahead."""


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
            raise InputError(
                f"--shard {text} is no shard: write i/n with i from 1 to n, such as 3/8."
            )
        return cls(int(number), int(of))

    @property
    def name(self) -> str:
        """What its segment is called."""
        return f"{self.number:05}-of-{self.of:05}"

    def share(self, table: PhotoTable) -> PhotoTable:
        """The rows of this shard: one stretch, so that files beside each other are read in order."""
        first, last = ((part * len(table)) // self.of for part in (self.number - 1, self.number))
        return table.with_frame(table.frame[first:last])


@dataclass
class Report:
    """What an extraction of a shard did.

    Attributes:
        photos: how many of the shard's photos have their features now.
        computed: vectors computed now, over all networks; the others were kept from before.
        rejected: why a photo has none, by its id.
    """

    photos: int = 0
    computed: int = 0
    rejected: dict[str, ImageRejected] = field(default_factory=dict)


def extract_shard(
    table: PhotoTable, backbones: dict[str, Backbone], bench: Bench, shard: Shard = Shard(1, 1)
) -> Report:
    """Bring the features of one shard of the photos onto the shelves.

    The features are those that `train` and `study` compute, bit for bit on one engine.

    Args:
        table: all photos; looked at or not. A photo whose digest is known and whose features are
            kept is not read.
        backbones: the networks, by name.
        bench: where features are kept, and how they are computed.
        shard: which share of the rows.

    Raises:
        InputError: the photos or the cache cannot be read or written.
        StoreError: another process computes the same shard.
    """
    report = Report()
    desks = [_Desk(name, backbone, bench, shard) for name, backbone in backbones.items()]
    rows = shard.share(table).kept.select("id", "path", "sha256").rows()
    with progress.stage(f"shard {shard.number}/{shard.of}", len(rows)) as bar:
        for chunk in _chunks(table, rows, desks, bench.workers):
            _compute(chunk, desks, bench, report)
            bar.advance(len(chunk))
    for desk in desks:
        with suppress(StoreError):  # somebody writes to the shelf: whoever opens it next takes them
            desk.shelf.gather()
    return report


_Row = tuple[str, str, str | None]
_Read = tuple[str, PhotoFile | ImageRejected]


class _Desk:
    """One network: its shelf, this shard's segment of it, and its engine once it is needed."""

    def __init__(self, name: str, backbone: Backbone, bench: Bench, shard: Shard) -> None:
        self.name, self.backbone, self.bench = name, backbone, bench
        self.shelf: Shelf = bench.shelf(backbone)
        self.segment = self.shelf.segment(shard.name)
        self.crop = bench.crop_for(backbone)
        self._engine: Engine | None = None

    def lacks(self, digest: str) -> bool:
        """Whether the vector of a photo is still to be computed."""
        return all(shelf.rows([digest])[0] < 0 for shelf in (self.shelf, self.segment))

    def engine(self) -> Engine:
        """The engine, kept from chunk to chunk."""
        if self._engine is None:
            self._engine = engines.engine(self.backbone, self.bench.engine, batch=BATCH)
        return self._engine

    def job(self) -> Job:
        """The work of this network onto the segment."""
        cost = self.backbone.architecture.giga_macs
        return Job(name=self.name, shelf=self.segment, giga_macs=cost, engine=self.engine)


def _chunks(
    table: PhotoTable, rows: Sequence[_Row], desks: Sequence[_Desk], workers: int | None
) -> Iterator[list[_Read]]:
    """The photos with their bytes, in order; one chunk is read while the one before is computed."""
    starts = range(0, len(rows), CHUNK)
    with ThreadPoolExecutor(1) as ahead, ThreadPoolExecutor(workers or cores()) as readers:

        def load(start: int) -> list[_Read]:
            work = ((row, table.file_of(row[1]), desks) for row in rows[start : start + CHUNK])
            return list(readers.map(_read, work))

        waiting = ahead.submit(load, 0) if rows else None
        for start in starts:
            assert waiting is not None
            chunk = waiting.result()
            following = start + CHUNK
            waiting = ahead.submit(load, following) if following < len(rows) else None
            yield chunk


def _read(work: tuple[_Row, Place, Sequence[_Desk]]) -> _Read:
    (photo_id, _, digest), place, desks = work
    if digest is not None and not any(desk.lacks(digest) for desk in desks):
        return photo_id, PhotoFile(digest, place)  # it is kept already, and not read
    try:
        data = images.read_bytes(place)
    except ImageRejected as error:
        return photo_id, error
    return photo_id, PhotoFile(digest or files.sha256(data), Held(data))


def _compute(chunk: Sequence[_Read], desks: Sequence[_Desk], bench: Bench, report: Report) -> None:
    photos = {name: photo for name, photo in chunk if isinstance(photo, PhotoFile)}
    report.rejected |= {name: each for name, each in chunk if isinstance(each, ImageRejected)}
    result = replace(bench.extraction, rejected={}, seconds={}, computed={})
    for crop in {desk.crop for desk in desks}:
        sharing = [desk for desk in desks if desk.crop == crop]
        todo = [p for p in photos.values() if any(desk.lacks(p.sha256) for desk in sharing)]
        jobs = [desk.job() for desk in sharing]
        for _ in extract(todo, jobs, crop, result, workers=bench.workers, quiet=True):
            pass
    refused = {
        name: result.rejected[p.sha256] for name, p in photos.items() if p.sha256 in result.rejected
    }
    report.rejected |= refused
    report.photos += len(photos) - len(refused)
    report.computed += sum(result.computed.values())


def read(photos: Path, *, source: str | None = None) -> PhotoTable:
    """The photos as they are listed, not looked at: the extraction itself reads their bytes."""
    return sources.read(photos, source=source, verify=False)
