"""Shards on a Ray cluster of two nodes in processes of their own."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fieldmark import cluster, shards
from fieldmark.backbones import load
from fieldmark.errors import InputError
from fieldmark.experiment import Bench
from fieldmark.features import FeatureStore

NETWORKS = {"shufflenet_v2_x0_5": {"weights": "random"}}


def vectors(bench: Bench, digests: list[str]) -> Any:
    shelf = bench.shelf(load("shufflenet_v2_x0_5", weights="random"))
    shelf.gather()
    return shelf.get(digests)[slice(None)]


@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_a_cluster_gives_the_same_features_though_a_node_dies(
    insects: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray", reason="fieldmark[cluster] is not installed")
    from ray.cluster_utils import Cluster

    from fieldmark import sources

    table, looked_at = shards.read(insects), sources.read(insects)
    alone = Bench(engine="torch", store=FeatureStore(tmp_path / "alone"))
    backbones = {name: load(name, **how) for name, how in NETWORKS.items()}
    shards.extract_shard(table, backbones, alone)
    size = {"object_store_memory": 100 * 2**20, "num_cpus": 1}
    nodes = Cluster(initialize_head=True, head_node_args=size | {"include_dashboard": False})
    try:
        second = nodes.add_node(**size)
        ray.init(address=nodes.address, log_to_driver=False)
        shared = Bench(engine="torch", store=FeatureStore(tmp_path / "cluster"))
        monkeypatch.setattr(cluster.progress, "stage", _killing(nodes, second))
        report = cluster.extract_over(nodes.address, table, NETWORKS, shared, shards=6)
    finally:
        ray.shutdown()
        nodes.shutdown()
    assert report.photos == 64
    assert [error.reason.value for error in report.rejected.values()] == ["truncated"]
    digests = looked_at.kept["sha256"].to_list()
    assert np.array_equal(vectors(alone, digests), vectors(shared, digests))


def test_an_address_where_no_cluster_is_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="fieldmark[cluster] is not installed")
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED", raising=False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with (
        pytest.raises(InputError, match=f"No Ray cluster answers at {address}"),
        cluster.connected(address),
    ):
        pass
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


def _killing(nodes: Any, node: Any) -> Any:
    """A stage that kills a node when the first shard is done."""
    from contextlib import contextmanager
    from types import SimpleNamespace

    @contextmanager
    def stage(*about: object) -> Any:
        living = [node]

        def advance() -> None:
            if living:
                nodes.remove_node(living.pop(), allow_graceful=False)

        yield SimpleNamespace(advance=advance)

    return stage
