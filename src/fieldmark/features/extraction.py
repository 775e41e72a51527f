"""Extraction: from photos to features, decoding each photo once for all backbones.

Photos are taken in chunks that fit the spool. The cheapest network works on the crops as they are
decoded; the others, in the order of their cost, read them from the spool. So the first network of a
data set of ordinary size is done within minutes, and no photo is decoded twice.

Two things go on at a time: threads decode a bounded stretch ahead while the network runs. What it gives
is appended at once, which is quick: the shelf waits for the disk only now and then.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from fieldmark.data.loader import CropCache
from fieldmark.data.photos import PhotoFile
from fieldmark.data.transforms import Preprocess
from fieldmark.features.cache import FeatureCache, Writer
from fieldmark.models.runtime import Engine
from fieldmark.utils import io
from fieldmark.utils.errors import ImageRejected, InputError
from fieldmark.utils.logging import progress_bar
from fieldmark.utils.typing import BoolArray

N = TypeVar("N", int, float)

BATCH = 32
"""Photos that a kill can cost at most, of the network that is running (a GPU's batches are larger)."""

CACHE_BYTES = 8 * 2**30


@dataclass(frozen=True)
class Job:
    """One network to run: its name, its shelf, its cost a photo, and how to get its engine."""

    name: str
    cache: FeatureCache
    giga_macs: float
    engine: Callable[[], Engine]


@dataclass
class Extraction:
    """What an extraction did.

    Attributes:
        rejected: the reason for each photo that could not be decoded, by its SHA-256.
        seconds: time spent in each network that ran.
        computed: how many vectors each network computed now; the others were kept from before.
    """

    rejected: dict[str, ImageRejected] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    computed: dict[str, int] = field(default_factory=dict)

    def merged(self, later: Extraction) -> Extraction:
        """Return what both did together."""
        return Extraction(
            {**self.rejected, **later.rejected},
            _sum(self.seconds, later.seconds),
            _sum(self.computed, later.computed),
        )


def _sum(first: Mapping[str, N], second: Mapping[str, N]) -> dict[str, N]:
    found = dict(first)
    for name, value in second.items():
        found[name] = found[name] + value if name in found else value
    return found


def extract(
    photos: Sequence[PhotoFile],
    jobs: Sequence[Job],
    preprocess: Preprocess,
    result: Extraction,
    *,
    on_complete: Callable[[str, Extraction], None] = lambda _name, _so_far: None,
    workers: int | None = None,
    cache_bytes: int = CACHE_BYTES,
) -> Extraction:
    """Compute the features that are missing in the jobs' caches.

    Only photos that some network lacks are decoded, and a network sees only those that it lacks. A
    kill at any moment loses at most one batch of `BATCH` photos.

    Args:
        photos: what to have on the shelves; a photo that occurs twice is computed once.
        jobs: the networks.
        preprocess: makes the crop that all of them share.
        result: is filled with what was rejected and how long it took, and returned.
        on_complete: called with a job's name and the result so far when its features are complete.
        workers: threads that decode (default: one a core).
        cache_bytes: room on disk for crops.
    """
    unique = list({photo.sha256: photo for photo in photos}.values())
    keys = [photo.sha256 for photo in unique]
    lacking = {job.name: job.cache.rows(keys) < 0 for job in jobs}
    ready = [job for job in jobs if not lacking[job.name].any()]
    for job in ready:
        on_complete(job.name, result)
    todo = sorted((job for job in jobs if job not in ready), key=lambda job: job.giga_macs)
    if not todo:
        return result
    needed = np.flatnonzero(np.any([lacking[job.name] for job in todo], axis=0))
    chunk = max(BATCH, cache_bytes // (preprocess.size**2 * 3))
    with ExitStack() as stack:
        writers = {job.name: stack.enter_context(job.cache.writing()) for job in todo}
        engines: dict[str, Engine] = {}
        for start in range(0, len(needed), chunk):
            part = needed[start : start + chunk]
            crop_cache = CropCache.empty(len(part), preprocess.size)
            files_of_part = [unique[index] for index in part]
            decoding: Iterator[int] = crop_cache.fill(files_of_part, preprocess, workers=workers)
            for job in todo:
                if job.name not in engines:
                    engines[job.name] = job.engine()
                wanted = lacking[job.name][part]
                run = _Run(job, engines[job.name], writers[job.name], result)
                run.over(crop_cache, decoding, files_of_part, wanted)
                decoding = iter(range(len(part)))
                if start + chunk >= len(needed):
                    writers[job.name].sync()
                    on_complete(job.name, result)
    return result


@dataclass
class _Run:
    """One network over one spool."""

    job: Job
    engine: Engine
    writer: Writer
    result: Extraction

    def over(
        self,
        crop_cache: CropCache,
        ready: Iterator[int],
        photos: Sequence[PhotoFile],
        wanted: BoolArray,
    ) -> None:
        keys = [photo.sha256 for photo in photos]
        size = getattr(self.engine, "preferred", BATCH)
        batch: list[int] = []
        with progress_bar(f"features of {self.job.name}", len(photos)) as stage:
            for number in ready:
                if number in crop_cache.rejected:
                    self.result.rejected[keys[number]] = crop_cache.rejected[number]
                elif wanted[number]:
                    batch.append(number)
                if len(batch) == size:
                    self._flush(crop_cache, batch, keys)
                stage.advance()
            self._flush(crop_cache, batch, keys)
        _note_cost(self.job, self.result)

    def _flush(self, crop_cache: CropCache, batch: list[int], keys: Sequence[str]) -> None:
        if not batch:
            return
        start = time.perf_counter()
        x_BD = self.engine(crop_cache.take(batch))
        spent = time.perf_counter() - start
        name, result = self.job.name, self.result
        try:
            self.writer.append([keys[number] for number in batch], x_BD)
        except ValueError as error:
            raise InputError(
                f"{name} gives features that cannot be kept ({error}): its weights do not fit it, "
                "or are damaged; name others."
            ) from error
        result.seconds[name] = result.seconds.get(name, 0.0) + spent
        result.computed[name] = result.computed.get(name, 0) + len(batch)
        batch.clear()


def _note_cost(job: Job, result: Extraction) -> None:
    """Keep the cost beside the features, so that a later run can still say what they cost."""
    if job.name in result.seconds:
        cost = {"seconds": result.seconds[job.name], "photos": result.computed[job.name]}
        io.write_json(job.cache.folder / "cost.json", cost)


def seconds_for(cache: FeatureCache, photos: int) -> float | None:
    """What the network's features of so many photos cost, by the rate at which they were computed."""
    try:
        cost = io.read_json(cache.folder / "cost.json")
        return float(cost["seconds"] / cost["photos"] * photos)
    except (InputError, KeyError, TypeError, ZeroDivisionError):
        return None  # never noted, or damaged: it is not worth stopping for
