"""Shares of the photos over a Ray cluster: the same functions as without it, a task a share.

Ray places tasks, and starts one anew whose worker or node died. All nodes share the photos and the
cache, as under any scheduler; what a killed task had put on its segment is kept, so the task that takes
its place goes on behind it. `extract --shard i/n` by hand does the same without Ray.
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

from fieldmark.curation import CheckConfig, files_of, image_stats
from fieldmark.data import readers
from fieldmark.data.photos import PhotoFile, PhotoTable
from fieldmark.data.readers.verification import FileCheck, PhotoRows, check_in_threads
from fieldmark.data.storage import places
from fieldmark.data.storage.places import File
from fieldmark.data.taxonomy import Taxonomy
from fieldmark.features.cache import FeatureCache
from fieldmark.features.extractor import FeatureExtractor
from fieldmark.features.sharded import Shard, ShardResult, extract_shard
from fieldmark.inference import InputPhoto, PhotoResult, predict
from fieldmark.inference.classifier import Classifier
from fieldmark.inference.predictor import BATCH
from fieldmark.models import Backbone, load
from fieldmark.utils import cpu, io
from fieldmark.utils.errors import ImageRejected, InputError, StoreError
from fieldmark.utils.logging import progress_bar

RETRIES = 3
"""How often a share is started anew whose worker died."""

_PATIENCE = 5.0  # seconds for a cluster to take a connection; Ray itself would wait for minutes
_LINGERS = 60.0  # seconds until a worker that Ray gave up is gone, with its node if need be
_AHEAD = 64  # shares that are given to Ray at a time: what is done early waits for its turn

T = TypeVar("T")
S = TypeVar("S")
C = TypeVar("C")
Networks = dict[str, dict[str, Any]]
"""For each network's name, the arguments of `backbones.load`."""


@contextmanager
def connected(address: str, shares: int = 16) -> Iterator[Workers]:
    """The workers of a cluster: `local` starts one on this machine for the length of the block.

    Args:
        address: `local`, or where the cluster is.
        shares: into how many tasks photos are cut.

    Raises:
        InputError: Ray is not installed, or no cluster answers at the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing about a user's work is sent
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")  # of one failed share, not of all
    try:
        import ray
    except ImportError as error:
        raise InputError("--cluster needs Ray: pip install 'fieldmark[cluster]'.") from error
    if ray.is_initialized():  # the caller's own connection
        yield Workers(ray, shares)
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    try:
        if address == "local":
            memory = 200 * 2**20
            own: dict[str, Any] = {"include_dashboard": False, "object_store_memory": memory}
            ray.init(address="local", num_cpus=cpu.cores(), **own, **quiet)
        else:
            _knock(address)
            ray.init(address=address, **quiet)
    except (OSError, ValueError, RuntimeError) as error:
        first = str(error).splitlines()[0]
        raise InputError(
            f"No Ray cluster answers at {address} ({first}): name the address that `ray start` "
            "printed, or local."
        ) from error
    try:
        yield Workers(ray, shares)
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Raise OSError where nobody listens at HOST:PORT; `auto`, which Ray resolves, is let through."""
    place = urlsplit(address if "://" in address else f"ray://{address}")
    if place.hostname and place.port:
        socket.create_connection((place.hostname, place.port), timeout=_PATIENCE).close()


@dataclass(frozen=True)
class Workers:
    """The workers of a cluster. Photos and cache are to be at the same place on every node.

    Attributes:
        ray: the library, connected.
        shares: into how many tasks photos are cut.
    """

    ray: Any
    shares: int

    def over(
        self, work: Callable[[C, S], T], common: C, shares: Sequence[S], *, gpu: bool = False
    ) -> Iterator[T]:
        """What `work(common, share)` gives for each share, in their order.

        Args:
            work: a function of a module, run on the workers.
            common: what all tasks are given; it is sent once.
            shares: the work, cut up.
            gpu: whether a task has a GPU to itself, where the cluster has any.

        Raises:
            InputError: a task did, or a share's worker died again and again.
        """
        room = self._room(gpu=gpu)
        task = self.ray.remote(_at_work).options(max_retries=RETRIES, **room)
        held = self.ray.put((str(io.cache_dir()), work, common))
        left, waiting = iter(shares), deque[Any]()
        # When a share fails, those that are under way are not cancelled but forgotten: Ray ends the
        # whole process when a task comes to its end while it is being cancelled (ray-project/ray#54260).
        while True:
            waiting += [task.remote(held, each) for each in islice(left, _AHEAD - len(waiting))]
            if not waiting:
                return
            yield self._result(waiting.popleft())

    def _room(self, *, gpu: bool) -> dict[str, int]:
        """What a task takes: all cores of the smallest node, or a GPU with its part of the cores.

        A task has threads of its own for all the cores that it is given.
        """
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        having = [node for node in nodes if gpu and node.get("GPU", 0) >= 1]
        if having:
            cores = min(node.get("CPU", 0) / node["GPU"] for node in having)
            return {"num_gpus": 1, "num_cpus": max(1, int(cores))}
        return {"num_cpus": max(1, int(min((n["CPU"] for n in nodes if n.get("CPU")), default=1)))}

    def _result(self, task: Any) -> Any:
        wrong = self.ray.exceptions
        try:
            return self.ray.get(task)
        except wrong.RayTaskError as error:
            raise (error.cause or error) from None
        except wrong.RayError as error:
            first = str(error).splitlines()[0]
            raise InputError(
                f"A shard's worker died {RETRIES + 1} times ({first}): give it more memory, "
                "then run the same command again; what was done is kept."
            ) from error

    def looking(self, root: File, rows: PhotoRows) -> Iterator[list[FileCheck]]:
        """`sources.check.check_in_threads` of every share of the rows."""
        yield from self.over(_look, places.absolute(root), cut(rows, self.shares))

    def look(self, table: PhotoTable) -> PhotoTable:
        """`readers.verify_files`: the table with every file looked at."""
        return readers.verify_files(table, checker=self.looking)

    def extract(
        self, table: PhotoTable, networks: Networks, extractor: FeatureExtractor
    ) -> ShardResult:
        """`shards.extract_shard` of every shard.

        Args:
            table: all photos.
            networks: what to compute.
            bench: where features are kept, and how they are computed.
        """
        whole = ShardResult()
        shards = [Shard(number + 1, self.shares) for number in range(self.shares)]
        # A task is sent its own rows: a table of a hundred million is not for every worker to hold, nor
        # the names of its classes, which are not asked for.
        bare = replace(_fixed(table), taxonomy=Taxonomy(()))
        networks = {name: _fixed_weights(how) for name, how in networks.items()}
        shares = [(shard, shard.share(bare)) for shard in shards]
        reports = self.over(_extract, (networks, extractor), shares, gpu=True)
        with progress_bar("extracting", len(table)) as bar:
            for (_, rows), report in zip(shares, reports, strict=True):
                whole.photos += report.photos
                whole.computed += report.computed
                whole.rejected |= report.rejected
                bar.advance(len(rows))
        return whole

    def predict(
        self,
        classifier: Classifier,
        items: Sequence[InputPhoto],
        top: int = 5,
        *,
        wide: bool = False,
    ) -> Iterator[PhotoResult]:
        """`predict.predict` of every share, in whole batches, so that the answers are the same.

        Args:
            classifier: loaded from a folder that is there on every node.
            items: the photos.
            top: how many labels for each.
            wide: whether the probabilities of all labels are wanted.
        """
        common = classifier, top, wide
        sent = [replace(each, path=places.absolute_place(each.path)) for each in items]
        parts = self.over(_name, common, cut(sent, self.shares, BATCH), gpu=True)
        for item, named in zip(items, chain.from_iterable(parts), strict=True):
            yield replace(named, photo=item)

    def ready_to_check(self, config: CheckConfig) -> Callable[[Path], PhotoTable]:
        """A way to read photos for `check`, by which all that it asks of them is on the shelves."""
        network = {"weights": config.weights, "weights_dir": config.weights_dir}

        def read(photos: Path) -> PhotoTable:
            table = self.look(readers.read(photos, verify=False))
            extractor = FeatureExtractor(engine=config.engine)
            files_ = files_of(_fixed(table))
            feature_cache = image_stats.shelf_of(extractor.store)
            parts = list(enumerate(cut(files_, self.shares), 1))
            names = [(Shard(number, len(parts)).name, part) for number, part in parts]
            with progress_bar("looking at pictures", len(files_)) as bar:
                for (_, part), _failed in zip(
                    names, self.over(_see, feature_cache, names), strict=True
                ):
                    bar.advance(len(part))
            feature_cache.gather()
            self.extract(table, {config.backbone: network | {"seed": config.seed}}, extractor)
            return table

        return read


def cut(rows: Sequence[T], shares: int, batch: int = 1) -> list[Sequence[T]]:
    """The rows in at most so many stretches that are not empty, each of whole batches but the last."""
    batches = -(-len(rows) // batch)
    ends = [batch * (part * batches // shares) for part in range(shares + 1)]
    return [rows[a:b] for a, b in pairwise(ends) if a < b]


def _fixed(table: PhotoTable) -> PhotoTable:
    """The table for workers, which stand in other folders than who typed the command."""
    return replace(table, root=places.absolute(table.root))


def _fixed_weights(how: dict[str, Any]) -> dict[str, Any]:
    """The same for where weights lie."""
    folder, named = how.get("weights_dir"), Path(str(how.get("weights", "")))
    fixed = {"weights_dir": folder.absolute()} if folder is not None else {}
    return how | fixed | ({"weights": str(named.absolute())} if named.is_file() else {})


# What runs on the workers


def _at_work(how: tuple[str, Callable[[C, S], T], C], share: S) -> T:
    cache, work, common = how
    os.environ["FIELDMARK_CACHE"] = cache  # the driver's, not that of who started the node
    until = time.monotonic() + _LINGERS
    while True:
        try:
            return work(common, share)
        except StoreError:
            # Whose place this task takes may live on for a while, cut off, and hold the share's segment.
            if time.monotonic() > until:
                raise
            time.sleep(1.0)


def _look(root: File, rows: PhotoRows) -> list[FileCheck]:
    return [finding for batch in check_in_threads(root, rows) for finding in batch]


def _extract(
    common: tuple[Networks, FeatureExtractor], share: tuple[Shard, PhotoTable]
) -> ShardResult:
    (networks, extractor), (shard, rows) = common, share
    backbones = {name: _network(name, tuple(how.items())) for name, how in networks.items()}
    return extract_shard(rows, backbones, extractor, shard)


@lru_cache(maxsize=8)
def _network(name: str, how: tuple[tuple[str, Any], ...]) -> Backbone:
    """A network that was loaded for the shard before is not loaded again."""
    return load(name, **dict(how))


def _see(
    feature_cache: FeatureCache, share: tuple[str, Sequence[PhotoFile]]
) -> dict[str, ImageRejected]:
    name, photos = share
    return image_stats.fill(feature_cache, feature_cache.segment(name), photos)


_last: dict[str, Classifier] = {}
"""The classifier of the task before: its network is not loaded again."""


def _name(common: tuple[Classifier, int, bool], items: Sequence[InputPhoto]) -> list[PhotoResult]:
    classifier, top, wide = common
    if classifier.digest not in _last:
        _last.clear()
        _last[classifier.digest] = classifier
    found = list(predict(_last[classifier.digest], items, top))
    return found if wide else [replace(each, scores=None) for each in found]
