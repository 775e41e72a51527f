"""Shards of the photos on a Ray cluster: the same functions as on one machine, one task per shard.

Ray schedules tasks, and restarts a task whose worker or node died. All nodes share the photos and the
cache; a restarted task resumes from the segment of the cache that the killed one has written.
`extract --shard i/n` does the same without Ray.
"""

from __future__ import annotations

import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from fieldmark.curation import CheckConfig, files_of
from fieldmark.data import readers
from fieldmark.data.photos import PhotoFile, PhotoTable
from fieldmark.data.readers.verification import FileCheck, PhotoRows, check_in_threads
from fieldmark.data.storage import places
from fieldmark.data.storage.places import File
from fieldmark.data.taxonomy import Taxonomy
from fieldmark.features import image_stats
from fieldmark.features.cache import FeatureCache
from fieldmark.features.extractor import FeatureExtractor
from fieldmark.features.sharded import Shard, ShardResult, extract_shard
from fieldmark.inference.classifier import Classifier
from fieldmark.inference.clips import predict
from fieldmark.inference.inputs import InputPhoto
from fieldmark.inference.predictor import BATCH, PhotoResult
from fieldmark.models import Backbone, load
from fieldmark.utils import cpu, io
from fieldmark.utils.errors import ImageRejected, InputError, StoreError, first_line
from fieldmark.utils.logging import progress_bar

RETRIES = 3  # how often a shard is restarted whose worker died
_CONNECT_SECONDS = 5.0  # Ray itself would wait for minutes
_LOCK_SECONDS = 60.0  # until a worker that Ray has given up has ended
_SUBMITTED = 64  # tasks submitted to Ray at a time: early results wait in memory

T = TypeVar("T")
S = TypeVar("S")
C = TypeVar("C")
Networks = dict[str, dict[str, Any]]  # for each network's name, the arguments of `fieldmark.models.load`


@contextmanager
def connected(address: str, shares: int = 16) -> Iterator[Workers]:
    """Connect to a cluster of so many shares; `local` starts one on this machine, for the block.

    Raises:
        InputError: Ray is not installed, or there is no cluster at the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # send no usage statistics
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")  # report only the first failed shard
    try:
        import ray
    except ImportError as error:
        raise InputError("--cluster needs Ray: pip install 'fieldmark[cluster]'.") from error
    if ray.is_initialized():  # by the caller
        yield Workers(ray, shares)
        return
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    try:
        if address == "local":
            memory = 200 * 2**20
            options |= {"include_dashboard": False, "object_store_memory": memory, "num_cpus": cpu.cores()}
        else:
            _require_listener(address)
        ray.init(address=address, **options)
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(
            f"No Ray cluster answers at {address} ({first_line(error)}): use the address that `ray start` "
            "printed, or local."
        ) from error
    try:
        yield Workers(ray, shares)
    finally:
        ray.shutdown()


def _require_listener(address: str) -> None:
    """Raise OSError if nothing listens at HOST:PORT; `auto` is resolved by Ray."""
    place = urlsplit(address if "://" in address else f"ray://{address}")
    if place.hostname and place.port:
        socket.create_connection((place.hostname, place.port), _CONNECT_SECONDS).close()


@dataclass(frozen=True)
class Workers:
    """The workers of a cluster. Photos and cache must have the same paths on all nodes."""

    ray: Any  # the connected library
    shares: int  # the number of shards

    def map(
        self, work: Callable[[C, S], T], common: C, shares: Sequence[S], *, gpu: bool = False
    ) -> Iterator[T]:
        """Yield `work(common, share)` for each share, in order.

        `work` is a function of a module, run on the workers, which get `common` once. With `gpu` each task
        gets one GPU, if the cluster has any.

        Raises:
            InputError: Raised by a task, or the worker of a shard died repeatedly.
        """
        resources = self._resources(gpu=gpu)
        task = self.ray.remote(_run_task).options(max_retries=RETRIES, **resources)
        reference = self.ray.put((str(io.cache_dir()), work, common))
        left, waiting = iter(shares), deque[Any]()
        # After an error the running tasks are not cancelled: Ray ends the whole process when a task
        # finishes while it is being cancelled (ray-project/ray#54260).
        while True:
            waiting += [task.remote(reference, each) for each in islice(left, _SUBMITTED - len(waiting))]
            if not waiting:
                return
            yield self._result(waiting.popleft())

    def _resources(self, *, gpu: bool) -> dict[str, int]:
        """Return the resources of a task: the cores of the smallest node, or one GPU and its cores.

        A task starts threads for all its cores.
        """
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        if gpu and (with_gpu := [node for node in nodes if node.get("GPU", 0) >= 1]):
            cores = min(node.get("CPU", 0) / node["GPU"] for node in with_gpu)
            return {"num_gpus": 1, "num_cpus": max(1, int(cores))}
        return {"num_cpus": max(1, int(min((n["CPU"] for n in nodes if n.get("CPU")), default=1)))}

    def _result(self, task: Any) -> Any:
        errors = self.ray.exceptions
        try:
            return self.ray.get(task)
        except errors.RayTaskError as error:
            raise (error.cause or error) from None
        except errors.RayError as error:
            raise InputError(
                f"A shard's worker died {RETRIES + 1} times ({first_line(error)}): give it more memory, "
                "then run the same command again, which resumes the work."
            ) from error

    def look(self, table: PhotoTable) -> PhotoTable:
        """Read and verify all files of a table, see `readers.verify_files`."""

        def verify(root: File, rows: PhotoRows) -> Iterator[list[FileCheck]]:
            return self.map(_verify, places.absolute(root), cut(rows, self.shares))

        return readers.verify_files(table, checker=verify)

    def extract(self, table: PhotoTable, networks: Networks, extractor: FeatureExtractor) -> ShardResult:
        """Compute and cache features of all photos, see `features.sharded.extract_shard`."""
        whole = ShardResult()
        # A task gets only its own rows, without the taxonomy: a whole table may not fit into its memory.
        bare = replace(_with_absolute_root(table), taxonomy=Taxonomy(()))
        networks = {name: _with_absolute_weights(how) for name, how in networks.items()}
        shards = [Shard(number, self.shares) for number in range(1, self.shares + 1)]
        shares = [(shard, shard.share(bare)) for shard in shards]
        reports = self.map(_extract, (networks, extractor), shares, gpu=True)
        with progress_bar("extracting", len(table)) as bar:
            for (_, rows), report in zip(shares, reports, strict=True):
                whole.photos += report.photos
                whole.computed += report.computed
                whole.rejected |= report.rejected
                bar.advance(len(rows))
        return whole

    def predict(
        self, classifier: Classifier, items: Sequence[InputPhoto], top: int = 5, *, wide: bool = False
    ) -> Iterator[PhotoResult]:
        """Classify photos as `clips.predict` does; in whole batches, so that results are the same.

        The classifier's folder must be readable on all nodes. `wide` returns the probabilities of all labels.
        """
        common = classifier, top, wide
        sent = [replace(each, path=places.absolute_place(each.path)) for each in items]
        parts = self.map(_predict, common, cut(sent, self.shares, BATCH), gpu=True)
        for item, named in zip(items, chain.from_iterable(parts), strict=True):
            yield replace(named, photo=item)

    def ready_to_check(self, config: CheckConfig) -> Callable[[Path], PhotoTable]:
        """Return a reader for `curation.check` that fills the caches of statistics and features."""
        network = {"weights": config.weights, "weights_dir": config.weights_dir}

        def read(photos: Path) -> PhotoTable:
            boxes = readers.BoxFile.of(config.boxes, config.box_threshold)
            table = self.look(readers.read(photos, verify=False, boxes=boxes))
            extractor = FeatureExtractor(engine=config.engine)
            files_ = files_of(_with_absolute_root(table))
            cache = image_stats.cache_of(extractor.store)
            parts = cut(files_, self.shares)
            shards = [(Shard(n, len(parts)).name, part) for n, part in enumerate(parts, 1)]
            with progress_bar("measuring photos", len(files_)) as bar:
                for part, _ in zip(parts, self.map(_measure, cache, shards), strict=True):
                    bar.advance(len(part))
            cache.gather()
            self.extract(table, {config.backbone: network | {"seed": config.seed}}, extractor)
            return table

        return read


def cut(rows: Sequence[T], shares: int, batch: int = 1) -> list[Sequence[T]]:
    """Cut rows into at most `shares` non-empty slices of whole batches; only the last may be shorter."""
    batches = -(-len(rows) // batch)
    ends = [batch * (part * batches // shares) for part in range(shares + 1)]
    return [rows[a:b] for a, b in pairwise(ends) if a < b]


def _with_absolute_root(table: PhotoTable) -> PhotoTable:
    """Return the table with an absolute root: workers have another current folder."""
    return replace(table, root=places.absolute(table.root))


def _with_absolute_weights(how: dict[str, Any]) -> dict[str, Any]:
    folder, named = how.get("weights_dir"), Path(str(how.get("weights", "")))
    fixed = {"weights_dir": folder.absolute()} if folder is not None else {}
    return how | fixed | ({"weights": str(named.absolute())} if named.is_file() else {})


# Functions that run on the workers


def _run_task(how: tuple[str, Callable[[C, S], T], C], share: S) -> T:
    cache, work, common = how
    os.environ["FIELDMARK_CACHE"] = cache  # of the driver, not of the node
    until = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            return work(common, share)
        except StoreError:
            # The task that this one replaces may still run, disconnected, and lock the segment.
            if time.monotonic() > until:
                raise
            time.sleep(1.0)


def _verify(root: File, rows: PhotoRows) -> list[FileCheck]:
    return [finding for batch in check_in_threads(root, rows) for finding in batch]


def _extract(common: tuple[Networks, FeatureExtractor], share: tuple[Shard, PhotoTable]) -> ShardResult:
    (networks, extractor), (shard, rows) = common, share
    backbones = {name: _network(name, tuple(how.items())) for name, how in networks.items()}
    return extract_shard(rows, backbones, extractor, shard)


@lru_cache(maxsize=8)
def _network(name: str, how: tuple[tuple[str, Any], ...]) -> Backbone:
    """Load a network once per worker."""
    return load(name, **dict(how))


def _measure(cache: FeatureCache, share: tuple[str, Sequence[PhotoFile]]) -> dict[str, ImageRejected]:
    name, photos = share
    return image_stats.fill(cache, cache.segment(name), photos)


_last: dict[str, Classifier] = {}
"""The classifier of the previous task, by digest: its network is loaded once per worker."""


def _predict(common: tuple[Classifier, int, bool], items: Sequence[InputPhoto]) -> list[PhotoResult]:
    classifier, top, wide = common
    if classifier.digest not in _last:
        _last.clear()
        _last[classifier.digest] = classifier
    found = list(predict(_last[classifier.digest], items, top))
    return found if wide else [replace(each, scores=None) for each in found]
