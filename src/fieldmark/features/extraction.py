"""Compute features of photos, decoding each photo once for all backbones.

Photos are processed in chunks that fit the crop cache. The cheapest network runs on the crops as they
are decoded; the others, in the order of their cost, read them from the crop cache. So the features of
the first network are ready early, and no photo is decoded twice. Threads decode ahead while the network
runs.

Where not all crops fit the crop cache, a costly network has a pass of its own: decoding once more takes
little beside it, and the features of the others need not wait for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

from fieldmark.data.loader import CropCache
from fieldmark.data.photos import PhotoFile
from fieldmark.data.transforms import Preprocess
from fieldmark.features.cache import FeatureCache
from fieldmark.features.cache_writer import Writer
from fieldmark.models.runtime import Engine
from fieldmark.utils import io
from fieldmark.utils.errors import ImageRejected, InputError
from fieldmark.utils.logging import progress_bar
from fieldmark.utils.typing import BoolArray, IntArray

N = TypeVar("N", int, float)

BATCH = 32
"""Photos a batch, which a kill can cost (a GPU's batches are larger)."""

CACHE_BYTES = 8 * 2**30

COSTLY = 2.0
"""Giga multiplications a crop: from here on the network takes ten times as long as decoding, or longer."""


class BeyondFloat16(InputError):
    """Features are too large for float16. Their cache is marked, so the next attempt keeps float32."""


@dataclass(frozen=True)
class Job:
    """One network to run: its name, cache, cost a photo, and a function that returns its engine."""

    name: str
    cache: FeatureCache
    giga_macs: float
    engine: Callable[[], Engine]


@dataclass
class Extraction:
    """The result of an extraction.

    Attributes:
        rejected: the reason for each photo that could not be decoded, by its SHA-256.
        seconds: time spent in each network that ran.
        computed: how many vectors each network computed; the others were cached.
    """

    rejected: dict[str, ImageRejected] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    computed: dict[str, int] = field(default_factory=dict)

    def merged(self, later: Extraction) -> Extraction:
        """Return the sum of two results."""
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

    Each network computes only the photos that its cache lacks. A kill loses at most one batch.

    Args:
        photos: a photo that occurs twice is computed once.
        jobs: the networks.
        preprocess: makes the crop that all of them share.
        result: is added to, and returned.
        on_complete: called with a job's name and the result so far when its features are complete.
        workers: decoding threads; None: one a core.
        cache_bytes: disk space for crops.

    Raises:
        BeyondFloat16: a network's features must be kept in float32; the same call with new jobs does so.
        InputError: a network's features are not finite, or cannot be written.
    """
    unique = list({photo.sha256: photo for photo in photos}.values())
    keys = [photo.sha256 for photo in unique]
    lacking = {job.name: job.cache.rows(keys) < 0 for job in jobs}
    ready = [job for job in jobs if not lacking[job.name].any()]
    for job in ready:
        on_complete(job.name, result)
    todo = sorted((job for job in jobs if job not in ready), key=lambda job: job.giga_macs)
    chunk = max(BATCH, cache_bytes // (preprocess.size**2 * 3))
    with ExitStack() as stack:
        writers = {job.name: stack.enter_context(job.cache.writing()) for job in todo}
        engines: dict[str, Engine] = {}
        for sharing in _passes(todo, in_one=len(_needed(todo, lacking)) <= chunk):
            needed = _needed(sharing, lacking)
            for start in range(0, len(needed), chunk):
                part = needed[start : start + chunk]
                crop_cache = CropCache.empty(len(part), preprocess.size)
                files_of_part = [unique[index] for index in part]
                decoding: Iterator[int] = crop_cache.fill(files_of_part, preprocess, workers=workers)
                for job in sharing:
                    if job.name not in engines:
                        engines[job.name] = job.engine()
                    wanted = lacking[job.name][part]
                    where = _part(start, chunk, len(needed))
                    run = _Run(job, engines[job.name], writers[job.name], result, where)
                    run.over(crop_cache, decoding, files_of_part, wanted)
                    decoding = iter(range(len(part)))
                    if start + chunk >= len(needed):
                        writers[job.name].sync()
                        on_complete(job.name, result)
    return result


def _needed(jobs: Sequence[Job], lacking: Mapping[str, BoolArray]) -> IntArray:
    """Return the numbers of the photos that a job lacks."""
    return np.flatnonzero(np.logical_or.reduce([lacking[job.name] for job in jobs]))


def _passes(jobs: Sequence[Job], *, in_one: bool) -> list[list[Job]]:
    """Divide jobs, by rising cost, into those that share the decoding of all photos."""
    if in_one:
        return [[*jobs]] if jobs else []
    cheap = [job for job in jobs if job.giga_macs < COSTLY]
    return [*([cheap] if cheap else []), *([job] for job in jobs if job.giga_macs >= COSTLY)]


def _part(start: int, chunk: int, photos: int) -> str:
    """Say which part of the photos begins at `start`, where they are more than one chunk."""
    return f" ({start // chunk + 1}/{-(-photos // chunk)})" if photos > chunk else ""


@dataclass
class _Run:
    """One network on one crop cache; `part` says which one to a person, where there are several."""

    job: Job
    engine: Engine
    writer: Writer
    result: Extraction
    part: str = ""

    def over(
        self, crop_cache: CropCache, ready: Iterator[int], photos: Sequence[PhotoFile], wanted: BoolArray
    ) -> None:
        keys = [photo.sha256 for photo in photos]
        size = getattr(self.engine, "preferred", BATCH)
        batch: list[int] = []
        with progress_bar(f"features of {self.job.name}{self.part}", int(wanted.sum())) as stage:
            for number in ready:
                if number in crop_cache.rejected:
                    self.result.rejected[keys[number]] = crop_cache.rejected[number]
                elif wanted[number]:
                    batch.append(number)
                if len(batch) == size:
                    self._flush(crop_cache, batch, keys)
                stage.advance(int(wanted[number]))
            self._flush(crop_cache, batch, keys)
        _note_cost(self.job, self.result, crop_cache.crops.shape[1])

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
            if self.job.cache.dtype == np.float16 and np.isfinite(x_BD).all():
                self.job.cache.mark_beyond_float16()
                raise BeyondFloat16(
                    f"{name} gives features that are too large for float16: run the same command again, "
                    "and they are kept in float32."
                ) from error
            raise InputError(
                f"{name} gives features that cannot be stored ({error}): its weights do not fit it, "
                "or are damaged; name others."
            ) from error
        result.seconds[name] = result.seconds.get(name, 0.0) + spent
        result.computed[name] = result.computed.get(name, 0) + len(batch)
        batch.clear()


def _note_cost(job: Job, result: Extraction, side: int) -> None:
    """Write the cost to the cache, so that a later run can report it."""
    if job.name in result.seconds:
        cost = {"seconds": result.seconds[job.name], "photos": result.computed[job.name]}
        io.write_json(job.cache.folder / "cost.json", {**cost, "network": job.name, "side": side})


def seconds_for(cache: FeatureCache, photos: int) -> float | None:
    """Return the cost of a network's features of so many photos, by the measured rate."""
    try:
        cost = io.read_json(cache.folder / "cost.json")
        return float(cost["seconds"] / cost["photos"] * photos)
    except (InputError, KeyError, TypeError, ZeroDivisionError):
        return None  # missing or damaged


def measured_rates(features: Path) -> dict[tuple[str, int], float]:
    """Return the photos a second of each network and side of crops, from its largest extraction here.

    `features` is the folder of a `FeatureStore`. Decoding is not counted.
    """
    rates: dict[tuple[str, int], tuple[int, float]] = {}
    for path in features.glob("*/cost.json"):
        with suppress(InputError, KeyError, TypeError, ZeroDivisionError):  # damaged, or of an older version
            cost = io.read_json(path)
            key, photos = (cost["network"], cost["side"]), cost["photos"]
            rates[key] = max(rates.get(key, (0, 0.0)), (photos, photos / cost["seconds"]))
    return {key: rate for key, (_, rate) in rates.items()}
