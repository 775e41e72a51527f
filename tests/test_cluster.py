"""Shards on a Ray cluster of two nodes: the same results as in one process, though workers die."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from fieldmark import curation
from fieldmark.data import readers
from fieldmark.data.photos import PhotoTable
from fieldmark.distributed import cluster
from fieldmark.distributed.cluster import Workers, cut
from fieldmark.evaluation.results import Evaluation
from fieldmark.features import sharded
from fieldmark.features.cache import FeatureStore
from fieldmark.features.extractor import FeatureExtractor
from fieldmark.inference import checkpoint, inputs
from fieldmark.inference.classifier import Classifier
from fieldmark.models import load
from fieldmark.training import TrainConfig, train
from fieldmark.utils.errors import InputError, StoreError

NETWORK = "shufflenet_v2_x0_5"
NETWORKS = {NETWORK: {"weights": "random"}}
SIZE = {"object_store_memory": 100 * 2**20, "num_cpus": 1}

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    """Connect to a cluster of two nodes; `kill` kills the second and starts another."""
    ray = pytest.importorskip("ray", reason="fieldmark[cluster] is not installed")
    from ray.cluster_utils import Cluster

    found = Cluster(initialize_head=True, head_node_args=SIZE | {"include_dashboard": False})
    second = [found.add_node(**SIZE)]

    def kill() -> None:
        found.remove_node(second.pop(), allow_graceful=False)
        second.append(found.add_node(wait=False, **SIZE))

    try:
        ray.init(address=found.address, log_to_driver=False)
        found.kill = kill  # type: ignore[attr-defined]
        yield found
    finally:
        ray.shutdown()
        found.shutdown()


@pytest.fixture
def workers(nodes: Any) -> Iterator[Workers]:
    with cluster.connected(nodes.address, 5) as found:
        yield found


def vectors(extractor: FeatureExtractor, digests: list[str]) -> Any:
    cache = extractor.cache(load(NETWORK, weights="random"))
    cache.gather()
    return cache.get(digests)[slice(None)]


def then(do: Callable[[], object], results: Iterator[Any]) -> Iterator[Any]:
    """The same results; when the first is there, something is done."""
    for number, result in enumerate(results):
        if number == 0:
            do()
        yield result


def kill_workers(killed: list[int]) -> None:
    """Kill two working processes of the cluster's nodes, as soon as there are any."""
    until = time.monotonic() + 60
    while len(killed) < 2 and time.monotonic() < until:
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if (path / "cmdline").read_bytes().startswith(b"ray::_run_task") and is_ours(path):
                    os.kill(int(path.name), signal.SIGKILL)
                    killed.append(int(path.name))
        time.sleep(0.02)


def is_ours(process: Path) -> bool:
    """Whether a process descends from this one."""
    number = process.name
    while number != "0":
        if int(number) == os.getpid():
            return True
        number = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[1]
    return False


def test_same_features_though_a_node_dies(
    insects: Path, tmp_path: Path, nodes: Any, workers: Workers
) -> None:
    table, looked_at = sharded.read(insects), readers.read(insects)
    alone = FeatureExtractor(engine="torch", store=FeatureStore(tmp_path / "alone"))
    backbones = {name: load(name, **how) for name, how in NETWORKS.items()}
    sharded.extract_shard(table, backbones, alone)
    shared = FeatureExtractor(engine="torch", store=FeatureStore(tmp_path / "cluster"))
    run = Workers.map
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Workers, "map", lambda *a, **k: then(nodes.kill, run(*a, **k)))
        report = workers.extract(table, NETWORKS, shared)
    assert report.photos == 64
    assert [error.reason.value for error in report.rejected.values()] == ["truncated"]
    digests = looked_at.kept["sha256"].to_list()
    assert np.array_equal(vectors(alone, digests), vectors(shared, digests))


def test_a_task_gets_only_its_own_rows_without_names(insects: Path, tmp_path: Path) -> None:
    table, sent = sharded.read(insects), list[Any]()

    class Here(Workers):
        def map(self, work: Any, common: Any, shares: Any, *, gpu: bool = False) -> Any:
            sent.extend(shares)
            return (work(common, share) for share in shares)

    extractor = FeatureExtractor(engine="torch", store=FeatureStore(tmp_path))
    report = Here(None, 5).extract(table, NETWORKS, extractor)
    assert report.photos == 64
    whole = pl.concat([rows.frame for _, rows in sent])
    assert whole.equals(table.frame)
    assert [len(rows) for _, rows in sent] == [13] * 5
    assert not any(len(rows.taxonomy) for _, rows in sent)


def test_index_and_training_are_the_same(
    insects: Path, model: Path, tmp_path: Path, workers: Workers
) -> None:
    table = workers.look(readers.read(insects, verify=False))
    assert table.frame.equals(readers.read(insects).frame)
    table.write(tmp_path / "table.parquet")
    workers.extract(table, NETWORKS, FeatureExtractor(engine="torch"))
    network = TrainConfig(backbone=NETWORK, weights="random", engine="torch")
    train(tmp_path / "table.parquet", out=tmp_path / "model", config=network)
    for name in ("split.parquet", "evaluation.json"):
        assert (tmp_path / "model" / name).read_bytes() == (model / name).read_bytes(), name
    scores = [Evaluation.load(at / "evaluation.safetensors").scores_NC for at in (tmp_path / "model", model)]
    assert np.array_equal(*scores)


def test_paths_are_relative_to_the_driver(
    insects: Path, model: Path, tmp_path: Path, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers have the current folder of their node."""
    monkeypatch.chdir(insects.parent)
    monkeypatch.setenv("FIELDMARK_CACHE", os.path.relpath(tmp_path / "cache"))
    here = Path(insects.name)
    table = sharded.read(here)
    weights = os.path.relpath(tmp_path / "weights.safetensors")
    save_file(load(NETWORK, weights="random").network.state_dict(), weights)
    extractor = FeatureExtractor(engine="torch")
    for how in ({"weights": weights}, {"weights": "random", "weights_dir": Path(weights).parent}):
        report = workers.extract(table, {NETWORK: how}, extractor)
        assert (report.photos, len(report.rejected)) == (64, 1)
    assert workers.look(readers.read(here, verify=False)).frame.equals(readers.read(insects).frame)
    classifier = Classifier.load(os.path.relpath(model))
    items = inputs.find_photos([here])
    found = list(workers.predict(classifier, items))
    assert [each.photo for each in found] == items
    assert sum(each.prediction is not None for each in found) == 64
    config = curation.CheckConfig(NETWORK, weights="random", engine="torch")
    assert len(workers.ready_to_check(config)(here)) == 65


def test_predict_writes_the_same_bytes_though_workers_die(
    insects: Path, classifier: Any, tmp_path: Path, workers: Workers
) -> None:
    items = inputs.find_photos([insects])
    assert checkpoint.to_file(tmp_path / "alone.csv", classifier, items) == 1
    loaded = type(classifier).load(classifier.source)

    killed: list[int] = []
    killer = Thread(target=kill_workers, args=[killed])

    def name(*about: Any) -> Iterator[Any]:
        killer.start()
        yield from workers.predict(*about)
        killer.join()

    assert checkpoint.to_file(tmp_path / "cluster.csv", loaded, items, name=name) == 1
    assert len(killed) >= 2
    assert (tmp_path / "alone.csv").read_bytes() == (tmp_path / "cluster.csv").read_bytes()


def test_check_finds_the_same(insects: Path, tmp_path: Path, workers: Workers) -> None:
    config = curation.CheckConfig(NETWORK, weights="random", engine="torch")
    alone = curation.check(insects, tmp_path / "alone", config)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIELDMARK_CACHE", str(tmp_path / "cache"))
        read = workers.ready_to_check(config)
        shared = curation.check(insects, tmp_path / "cluster", config, read=read)
    assert shared.table.frame.equals(alone.table.frame)
    assert shared.findings.equals(alone.findings)


def test_error_of_a_worker_is_raised_unchanged(insects: Path, tmp_path: Path, workers: Workers) -> None:
    nowhere = {NETWORK: {"weights": str(tmp_path / "none.pth")}}
    with pytest.raises(InputError, match=r"none\.pth"):
        workers.extract(sharded.read(insects), nowhere, FeatureExtractor(engine="torch"))


def die(_common: object, _share: object) -> None:
    os._exit(1)


def test_shard_whose_worker_always_dies_is_an_error(workers: Workers) -> None:
    with pytest.raises(InputError, match="worker died 4 times"):
        list(workers.map(die, None, [1]))


def held_by_another(folder: Path, _share: object) -> bool:
    """Fail the first time, as if a disconnected worker still locked the segment."""
    if (folder / "seen").exists():
        return True
    (folder / "seen").touch()
    raise StoreError("in use by another fieldmark")


def test_locked_segment_is_waited_for(tmp_path: Path, workers: Workers) -> None:
    assert list(workers.map(held_by_another, tmp_path, [1])) == [True]


def test_the_command_starts_a_cluster_of_its_own(insects: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="fieldmark[cluster] is not installed")
    command = [sys.executable, "-m", "fieldmark", "index", str(insects), "--cluster", "local"]
    subprocess.run([*command, "--out", str(tmp_path / "table.parquet")], check=True, timeout=120)
    table = PhotoTable.read(tmp_path / "table.parquet")
    assert table.frame.drop("path").equals(readers.read(insects).frame.drop("path"))


@given(st.integers(0, 500), st.integers(1, 20), st.sampled_from([1, 32]))
def test_cut_gives_every_row_once_in_whole_batches(rows: int, shares: int, batch: int) -> None:
    parts = cut(range(rows), shares, batch)
    assert [row for part in parts for row in part] == list(range(rows))
    assert len(parts) <= shares
    assert all(len(part) and len(part) % batch == 0 for part in parts[:-1])


def test_address_without_a_cluster_is_an_error_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray", reason="fieldmark[cluster] is not installed")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED", raising=False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(InputError, match=f"No Ray cluster answers at {address}"), cluster.connected(address):
        pass
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
