"""Measure rows per second over a cluster, against one process and against Ray Data by hand.

Nodes of one core each are processes (`ray.cluster_utils.Cluster`) on this machine; they run before
anything is timed. Each run has new processes: importing PyTorch and loading the network are in all
times. Generated photos of 320 x 240 pixels in files; the network is shufflenet_v2_x0_5 with random
weights in ONNX Runtime. "By hand" reads the same photos, decodes them with our decoder, runs our engine
in the `map_batches` of Ray Data, and writes Parquet: the comparison is of Ray's part alone.

The simulation of scripts/scaling.py predicts these times from the cost of one photo on one core, and
from the start: a run of the same cluster over one photo per shard.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import EXACT, ROOT, Row, Unavailable, alternate, compare, elsewhere, jpeg, rounds
from fieldmark.data.photos import PhotoTable
from fieldmark.features import sharded
from fieldmark.features.cache import FeatureStore
from fieldmark.features.extraction import BATCH
from fieldmark.features.extractor import FeatureExtractor
from fieldmark.models import load, runtime

NETWORK = "shufflenet_v2_x0_5"
HOW = {NETWORK: {"weights": "random"}}
PHOTOS, SHARDS = 4_000, 4
ONE, BY_HAND = "one process, one thread", "Ray Data by hand"
OURS = {1: "1 worker", 2: "2 workers"}


def run(quick: bool = False) -> list[Row]:
    """Measure rates by workers, and the simulation."""
    try:
        import ray.data  # noqa: F401  # imported before anything is timed
    except ImportError as error:
        raise Unavailable("fieldmark[cluster] is not installed") from error
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photos = _files(folder / "photos", 96 if quick else PHOTOS)
        return _rates(folder, photos, rounds(quick))


def _files(folder: Path, count: int) -> Path:
    (folder / "a").mkdir(parents=True)
    for number in range(count):
        (folder / "a" / f"{number:06}.jpg").write_bytes(jpeg(number, (240, 320)))
    return folder


def _rates(folder: Path, photos: Path, times: int) -> list[Row]:
    os.environ["OMP_NUM_THREADS"] = "1"
    table = sharded.read(photos)
    cost = _costs([table.file_of(path) for path in table.frame["path"][:200]])
    number = iter(range(10**6))

    def over(address: str, photos: PhotoTable = table) -> float:
        extractor = FeatureExtractor(
            engine="onnxruntime", store=FeatureStore(folder / f"store{next(number)}")
        )
        with _connected(address) as workers:
            start = time.perf_counter()
            workers.extract(photos, HOW, extractor)
            return len(photos) / (time.perf_counter() - start)

    def by_hand(address: str, nodes: int) -> float:
        with _connected(address):
            return _by_hand(photos, folder / f"out{next(number)}", nodes)

    found = []
    for nodes, name in OURS.items():
        with _nodes(nodes) as address:
            ways = {
                name: lambda address=address: over(address),
                ONE: lambda: elsewhere("cluster", photos)["rate"],
                BY_HAND: lambda address=address, nodes=nodes: by_hand(address, nodes),
            }
            got = alternate(ways, times)
            start = SHARDS / over(address, table.with_frame(table.frame[:SHARDS]))
        for peer in (ONE, BY_HAND):
            what = f"{len(table):,} photos, {name}"
            found.append(compare(what, got, name, peer, unit="img/s", more_is_better=True))
        measured = len(table) / statistics.median(got[name])
        found.append(_predicted(len(table), nodes, cost | {"start": start}, measured))
    return found


def _by_hand(photos: Path, out: Path, workers: int) -> float:
    """Run the plain pipeline: paths, an actor that reads, decodes and computes, Parquet."""
    import ray

    class Network:
        def __init__(self) -> None:
            network = load(NETWORK, weights="random")
            self.crop = FeatureExtractor().crop_for(network)
            self.run = runtime.engine(network, "onnxruntime")

        def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
            crops = [self.crop.crop(Path(path).read_bytes()) for path in batch["path"]]
            return {"path": batch["path"], "vector": self.run(np.stack(crops)).astype(np.float16)}

    start = time.perf_counter()
    paths = [{"path": str(path)} for path in sorted(photos.rglob("*.jpg"))]
    ray.data.DataContext.get_current().enable_progress_bars = False
    rows = ray.data.from_items(paths, override_num_blocks=SHARDS)
    pool = ray.data.ActorPoolStrategy(size=workers)
    made = rows.map_batches(Network, batch_size=32, compute=pool, num_cpus=0.8)
    made.write_parquet(str(out), ray_remote_args={"num_cpus": 0.2})
    return len(paths) / (time.perf_counter() - start)


@contextmanager
def _nodes(count: int) -> Iterator[str]:
    """Start a cluster of nodes with one core each and return its address."""
    from ray.cluster_utils import Cluster

    size = {"object_store_memory": 200 * 2**20}
    head = size | {"num_cpus": 0, "include_dashboard": False}
    found = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(count):
            found.add_node(num_cpus=1, **size)
        yield found.address
    finally:
        found.shutdown()


def _connected(address: str) -> Any:
    from fieldmark.distributed.cluster import connected

    return connected(address, SHARDS)


def _predicted(photos: int, workers: int, cost: dict[str, float], measured: float) -> Row:
    """Compare the simulated time for some workers with the measured one."""
    sys.path.insert(0, str(ROOT / "scripts"))
    from scaling import Plan, simulate

    plan = Plan(
        photos=photos,
        shards=SHARDS,
        workers=workers,
        megabytes=0.01,
        cores=1,
        shared_cores=True,
        network=1000,
        link=1000,
        **cost,
    )
    ours = simulate(plan).seconds
    return Row(
        f"the simulation, {OURS[workers]}",
        "s",
        ours,
        measured,
        "measured",
        *[measured / ours] * 3,
        EXACT,
        note="closer to 1 is better; above 1 the cluster was slower than the plan",
        more=cost,
    )


def _costs(photos: Sequence[Any]) -> dict[str, float]:
    """Measure the seconds of one core per photo: decoding, and the network."""
    network = load(NETWORK, weights="random")
    crop, data = FeatureExtractor().crop_for(network), [each.read_bytes() for each in photos]
    start = time.perf_counter()
    crops = np.stack([crop.crop(each) for each in data])
    decode = time.perf_counter() - start
    engine = runtime.engine(network, "onnxruntime")  # converted here, for all
    engine(crops[:BATCH])
    start = time.perf_counter()
    for at in range(0, len(crops), BATCH):
        engine(crops[at : at + BATCH])
    forward = time.perf_counter() - start
    return {"decode": decode / len(data), "forward": forward / len(data)}


def _alone(photos: Path) -> dict[str, float]:
    """Measure photos per second of one process that extracts features."""
    start = time.perf_counter()
    network = load(NETWORK, weights="random")
    with tempfile.TemporaryDirectory() as store:
        extractor = FeatureExtractor(engine="onnxruntime", store=FeatureStore(Path(store)))
        count = sharded.extract_shard(sharded.read(photos), {NETWORK: network}, extractor).photos
    return {"rate": count / (time.perf_counter() - start)}


if __name__ == "__main__":
    print(json.dumps(_alone(Path(sys.argv[1]))))
