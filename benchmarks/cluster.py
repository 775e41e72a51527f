"""Rows a second over a cluster, against one process and against Ray Data by hand; memory against photos.

Nodes of one core each in processes of their own (`ray.cluster_utils.Cluster`) on this machine; they are
up, and have done a warm-up, before anything is timed. Invented photos of 320 x 240 pixels in files; the
network is shufflenet_v2_x0_5 with random weights in ONNX Runtime. By hand the same photos are read,
decoded by our decoder and computed by our engine in the `map_batches` of Ray Data, and written as
Parquet: what is compared is the way through Ray alone.

The simulation of scripts/scaling.py predicts both from what one photo costs on one core.

Memory is the peak of one process that looks at, or extracts, ever more photos of 32 x 32 pixels in
tars. There the network is taken out (a vector is the mean of the crop): it is the pipeline that is
measured.
"""

from __future__ import annotations

import io
import json
import os
import resource
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import EXACT, ROOT, Row, Unavailable, alternate, compare, elsewhere, rounds
from fieldmark import shards
from fieldmark.backbones import engines, load
from fieldmark.experiment import Bench
from fieldmark.features import FeatureStore

NETWORK = "shufflenet_v2_x0_5"
HOW = {NETWORK: {"weights": "random"}}
PHOTOS, SHARDS = 600, 4
MEMORY = (10_000, 100_000)
ONE, BY_HAND = "one process, one thread", "Ray Data by hand"


def run(quick: bool = False) -> list[Row]:
    """Rates by workers, the simulation, and memory."""
    try:
        import ray  # noqa: F401
    except ImportError as error:
        raise Unavailable("fieldmark[cluster] is not installed") from error
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photos = _files(folder / "photos", 96 if quick else PHOTOS)
        found = _rates(folder, photos, rounds(quick, 1))
        return found + _memory(folder, (500, 1_000) if quick else MEMORY)


def _files(folder: Path, count: int) -> Path:
    (folder / "a").mkdir(parents=True)
    for number in range(count):
        (folder / "a" / f"{number:06}.jpg").write_bytes(_jpeg(number, (240, 320)))
    return folder


def _jpeg(number: int, size: tuple[int, int]) -> bytes:
    from PIL import Image

    rng = np.random.default_rng(number)
    small = rng.integers(0, 255, (6, 8, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(small).resize(size[::-1], Image.Resampling.BICUBIC).save(file, "JPEG")
    return file.getvalue()


def _rates(folder: Path, photos: Path, times: int) -> list[Row]:
    os.environ["OMP_NUM_THREADS"] = "1"
    table = shards.read(photos)
    network = load(NETWORK, weights="random")
    engines.engine(network, "onnxruntime")  # converted once, for all
    number = iter(range(10**6))

    def bench() -> Bench:
        return Bench(engine="onnxruntime", store=FeatureStore(folder / f"store{next(number)}"))

    def alone() -> float:
        start = time.perf_counter()
        shards.extract_shard(table, {NETWORK: network}, bench())
        return len(table) / (time.perf_counter() - start)

    def over(workers: Any) -> float:
        start = time.perf_counter()
        workers.extract(table, HOW, bench())
        return len(table) / (time.perf_counter() - start)

    found, values = [], {}
    for nodes in (1, 2):
        with _cluster(nodes) as workers:
            over(workers)
            _by_hand(photos, folder / f"out{next(number)}", nodes)
            name = f"{nodes} worker{'s' * (nodes > 1)}"
            ways = {
                name: lambda workers=workers: over(workers),
                ONE: alone,
                BY_HAND: lambda nodes=nodes: _by_hand(photos, folder / f"o{next(number)}", nodes),
            }
            values[nodes] = got = alternate(ways, times)
        for peer in (ONE, BY_HAND):
            what = f"{len(table):,} photos, {name}"
            found.append(compare(what, got, name, peer, unit="img/s", more_is_better=True))
    return found + _predicted(len(table), table, network, values)


def _by_hand(photos: Path, out: Path, workers: int) -> float:
    """The plain way: paths, an actor that reads, decodes and computes, Parquet."""
    import ray

    class Network:
        def __init__(self) -> None:
            network = load(NETWORK, weights="random")
            self.crop = Bench().crop_for(network)
            self.run = engines.engine(network, "onnxruntime")

        def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
            crops = [self.crop.crop(Path(path).read_bytes()) for path in batch["path"]]
            return {"path": batch["path"], "vector": self.run(np.stack(crops)).astype(np.float16)}

    start = time.perf_counter()
    paths = [{"path": str(path)} for path in sorted(photos.rglob("*.jpg"))]
    ray.data.DataContext.get_current().enable_progress_bars = False
    rows = ray.data.from_items(paths, override_num_blocks=SHARDS)
    made = rows.map_batches(Network, batch_size=32, concurrency=workers, num_cpus=0.8)
    made.write_parquet(str(out), ray_remote_args={"num_cpus": 0.2})
    return len(paths) / (time.perf_counter() - start)


@contextmanager
def _cluster(nodes: int) -> Iterator[Any]:
    import ray
    from ray.cluster_utils import Cluster

    from fieldmark.cluster import connected

    size = {"object_store_memory": 200 * 2**20}
    head = size | {"num_cpus": 0, "include_dashboard": False}
    found = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(nodes):
            found.add_node(num_cpus=1, **size)
        ray.init(address=found.address, log_to_driver=False, logging_level="error")
        with connected(found.address, SHARDS) as workers:
            yield workers
    finally:
        ray.shutdown()
        found.shutdown()


def _predicted(photos: int, table: Any, network: Any, values: dict[int, Any]) -> list[Row]:
    """The simulated rate for 1 and 2 workers beside the measured one."""
    sys.path.insert(0, str(ROOT / "scripts"))
    from scaling import Plan, simulate

    data = [table.file_of(path).read_bytes() for path in table.frame["path"][:200]]
    crop, engine = Bench().crop_for(network), engines.engine(network, "onnxruntime")
    start = time.perf_counter()
    crops = np.stack([crop.crop(each) for each in data])
    decode = (time.perf_counter() - start) / len(data)
    engine(crops[:32])
    start = time.perf_counter()
    for at in range(0, len(crops) - 31, 32):
        engine(crops[at : at + 32])
    forward = (time.perf_counter() - start) / (len(crops) // 32 * 32)
    start = time.perf_counter()
    load(NETWORK, weights="random")
    engines.engine(network, "onnxruntime")(crops[:1])
    loading = time.perf_counter() - start
    found = []
    for workers, got in values.items():
        plan = Plan(
            photos=photos,
            shards=SHARDS,
            workers=workers,
            megabytes=0.01,
            decode=decode,
            cores=1,
            forward=forward,
            shared_cores=True,
            network=1000,
            link=1000,
            overhead=loading,
        )
        rate = photos / simulate(plan).seconds
        name = f"{workers} worker{'s' * (workers > 1)}"
        measured = float(np.median(got[name]))
        found.append(
            Row(
                f"the simulation, {name}",
                "img/s",
                rate,
                measured,
                "measured",
                rate / measured,
                rate / measured,
                rate / measured,
                EXACT,
                note="the nearer to 1 the better; from the cost of a photo and of a network's loading",
                more={"decode": decode, "forward": forward, "loading": loading},
            )
        )
    return found


def _memory(folder: Path, counts: tuple[int, ...]) -> list[Row]:
    found = []
    for count in counts:
        _tars(folder / f"tars{count}", count)
    for verb in ("index", "extract"):
        said = {count: _elsewhere(verb, folder / f"tars{count}") for count in counts}
        few = counts[0]
        for count in counts[1:]:
            ratio = said[few]["mib"] / said[count]["mib"]
            found.append(
                Row(
                    f"peak memory of {verb}, {count:,} photos",
                    "MiB",
                    said[count]["mib"],
                    said[few]["mib"],
                    f"{few:,} photos",
                    ratio,
                    ratio,
                    ratio,
                    EXACT,
                    note=f"{said[count]['rate']:,.0f} photos/s",
                )
            )
    return found


def _tars(folder: Path, count: int, in_tar: int = 10_000) -> None:
    folder.mkdir()
    data = [_jpeg(number, (32, 32)) for number in range(64)]
    for start in range(0, count, in_tar):
        with tarfile.open(folder / f"{start:08}.tar", "w") as archive:
            for number in range(start, min(count, start + in_tar)):
                # Bytes after the end of a JPEG are allowed, and make each photo another one.
                photo = data[number % 64] + number.to_bytes(8, "little")
                for suffix, text in (("jpg", photo), ("cls", str(number % 50).encode())):
                    about = tarfile.TarInfo(f"{number:08}.{suffix}")
                    about.size = len(text)
                    archive.addfile(about, io.BytesIO(text))


def _elsewhere(verb: str, path: Path) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as cache:
        return elsewhere("cluster", verb, path, FIELDMARK_CACHE=cache, OMP_NUM_THREADS="2")


def _one(verb: str, path: Path) -> dict[str, float]:
    start = time.perf_counter()
    if verb == "index":
        from fieldmark import sources

        count = len(sources.read(path))
    else:
        network = load(NETWORK, weights="random")
        dim = network.architecture.feature_dim

        def mean(crops: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
            return np.repeat(crops[:, ::32, ::32].mean((1, 2, 3))[:, None], dim, 1).astype(
                np.float32
            )

        shards.engines.engine = lambda *_, **__: mean  # type: ignore[attr-defined,assignment]
        count = shards.extract_shard(shards.read(path), {NETWORK: network}, Bench()).photos
    spent = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"mib": peak, "rate": count / spent}


if __name__ == "__main__":
    print(json.dumps(_one(sys.argv[1], Path(sys.argv[2]))))
