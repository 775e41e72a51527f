"""Shards over a Ray cluster: the same function as without it, a task a shard.

Ray places tasks, and starts one anew whose worker or node died. All nodes share the photos and the
cache, as under any scheduler; what a killed task had put on its segment is kept, so the task that takes
its place goes on behind it. `extract --shard i/n` by hand does the same without Ray.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from fieldmark import progress
from fieldmark.backbones import load
from fieldmark.errors import InputError
from fieldmark.experiment import Bench
from fieldmark.photos import PhotoTable
from fieldmark.shards import Report, Shard, extract_shard

RETRIES = 3
"""How often a shard is started anew whose worker died."""

_PATIENCE = 5.0  # seconds for a cluster to take a connection; Ray itself would wait for minutes


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """Ray, connected to a cluster: `local` starts one on this machine for the length of the block.

    Raises:
        InputError: Ray is not installed, or no cluster answers at the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing about a user's work is sent
    try:
        import ray
    except ImportError as error:
        raise InputError("--cluster needs Ray: pip install 'fieldmark[cluster]'.") from error
    if ray.is_initialized():  # the caller's own connection
        yield ray
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    try:
        if address == "local":
            ray.init(include_dashboard=False, object_store_memory=200 * 2**20, **quiet)
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
        yield ray
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Raise OSError where nobody listens at HOST:PORT; `auto`, which Ray resolves, is let through."""
    place = urlsplit(address if "://" in address else f"ray://{address}")
    if place.hostname and place.port:
        socket.create_connection((place.hostname, place.port), timeout=_PATIENCE).close()


def extract_over(
    address: str,
    table: PhotoTable,
    networks: dict[str, dict[str, Any]],
    bench: Bench,
    shards: int,
) -> Report:
    """`extract_shard` of every shard on a cluster.

    Args:
        address: `local`, or where the cluster is.
        table: all photos; its root is to be there on every node.
        networks: for each network's name, the arguments of `backbones.load`.
        bench: where features are kept (the same folder on every node), and how they are computed.
        shards: into how many tasks the photos are cut.

    Raises:
        InputError: as `extract_shard` and `connected` do, or a shard's worker died again and again.
    """
    whole = Report()
    with connected(address) as ray:
        task = ray.remote(_shard).options(num_cpus=1, max_retries=RETRIES)
        shared = ray.put(table)
        waiting = [
            task.remote(shared, networks, bench, number + 1, shards) for number in range(shards)
        ]
        with progress.stage("shards", shards, "shards") as bar:
            while waiting:
                done, waiting = ray.wait(waiting)
                try:
                    report = ray.get(done[0])
                except ray.exceptions.RayTaskError as error:
                    raise (error.cause or error) from None
                except ray.exceptions.RayError as error:
                    first = str(error).splitlines()[0]
                    raise InputError(
                        f"A shard's worker died {RETRIES + 1} times ({first}): give it more memory, "
                        "then run the same command again; what was done is kept."
                    ) from error
                whole.photos += report.photos
                whole.computed += report.computed
                whole.rejected |= report.rejected
                bar.advance()
    return whole


def _shard(
    table: PhotoTable, networks: dict[str, dict[str, Any]], bench: Bench, number: int, of: int
) -> Report:
    backbones = {name: load(name, **how) for name, how in networks.items()}
    return extract_shard(table, backbones, bench, Shard(number, of))
