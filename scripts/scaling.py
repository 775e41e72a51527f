"""Simulate how long photos take on a cluster: `python scripts/scaling.py` prints the plan.

A discrete-event simulation of shards on workers. A worker reads a shard's photos through a shared
network, decodes them on its cores and runs the network on its device, chunk by chunk; the three work
at the same time, each a chunk ahead of the next, as in `fieldmark.features.sharded`. The slowest of
reading, decoding and the device is saturated, and the simulation reports it.

docs/scaling.md gives the sources of the rates, and compares the simulation with measurements.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Plan:
    """A cluster and its work.

    Attributes:
        photos: their number.
        shards: the number of tasks.
        workers: tasks at a time.
        megabytes: of a photo, as it is stored.
        decode: seconds of a core per photo: bytes to crop.
        resize: seconds of these with Python's lock held: one photo at a time in a worker.
        cores: that decode, per worker.
        forward: seconds of a worker's device per photo; with `shared_cores` of a core.
        shared_cores: whether decoding and the network run on the same cores.
        network: megabytes per second from storage for all workers together.
        link: megabytes per second for one worker.
        latency: seconds of waiting per photo, for as many at a time as there are `cores`.
        start: seconds until a worker is ready for its first shard.
        overhead: seconds per shard, beside its photos.
        chunk: photos that are read ahead.
    """

    photos: int
    shards: int
    workers: int
    megabytes: float
    decode: float
    cores: float
    forward: float
    network: float
    link: float
    shared_cores: bool = False
    resize: float = 0.0
    latency: float = 0.0
    start: float = 0.0
    overhead: float = 0.0
    chunk: int = 256


@dataclass(frozen=True)
class Outcome:
    """The result of a plan.

    Attributes:
        seconds: until the last shard is done.
        busy: the share of the time in which storage, decoding and the device work.
        saturated: the busiest of them.
    """

    seconds: float
    busy: dict[str, float]
    saturated: str


def simulate(plan: Plan, most_events: int = 200_000) -> Outcome:
    """Run a plan; with very many photos a chunk stands for many, to limit the number of events."""
    chunks = max(1, -(-plan.photos // (plan.shards * plan.chunk)))
    chunks = max(1, min(chunks, most_events // plan.shards))
    in_chunk = plan.photos / (plan.shards * chunks)
    reading, decoding, running = _seconds(plan, in_chunk)
    storage = 0.0
    work = {"storage": 0.0, "decoding": 0.0, "device": 0.0}
    # For each worker: when it reads next, when its decoders and device are free, the remaining work.
    ready = [(plan.start, worker) for worker in range(plan.workers)]
    decoders, devices = [plan.start] * plan.workers, [plan.start] * plan.workers
    left = [0] * plan.workers
    shards = plan.shards
    end = plan.start
    while ready:
        now, worker = heapq.heappop(ready)
        if not left[worker]:
            if not shards:
                continue
            shards -= 1
            left[worker] = chunks
            now = max(now, devices[worker]) + plan.overhead  # after the previous shard
        left[worker] -= 1
        # Workers use the storage in turn; a worker's own link may be slower.
        storage = max(storage, now) + in_chunk * plan.megabytes / plan.network
        there = max(storage, now + reading)
        begun = max(there, decoders[worker])
        if plan.shared_cores:
            decoders[worker] = devices[worker] = begun + decoding + running
        else:
            decoders[worker] = begun + decoding
            devices[worker] = max(decoders[worker], devices[worker]) + running
        work["storage"] += in_chunk * plan.megabytes / plan.network
        work["decoding"] += decoding / plan.workers
        work["device"] += running / plan.workers
        end = max(end, devices[worker])
        # One chunk is read ahead while the previous one is decoded.
        heapq.heappush(ready, (max(there, begun), worker))
    busy = {name: spent / end for name, spent in work.items()}
    return Outcome(end, busy, max(busy, key=lambda name: busy[name]))


def _seconds(plan: Plan, photos: float) -> tuple[float, float, float]:
    """Return a worker's own seconds for reading, decoding and running so many photos."""
    cores = plan.cores
    read = max(plan.megabytes / plan.link, plan.latency / cores)
    decode = max(plan.decode / cores, plan.resize)
    forward = plan.forward / cores if plan.shared_cores else plan.forward
    return photos * read, photos * decode, photos * forward


# The plans of docs/scaling.md, which lists measured and assumed rates.

A_PHOTO = Plan(
    photos=10_000_000,
    shards=10_000,
    workers=8,
    megabytes=0.1,
    decode=0.0030,  # 800 x 600, exact: benchmarks/results/decode.json
    resize=0.0006,
    cores=16,
    forward=1 / 26_645,  # published, not measured here: see docs/scaling.md
    network=1250,  # 10 Gbit/s
    link=1250,
    latency=0.002,
    start=20,
    overhead=0.5,
    chunk=256,
)


OBJECTS = replace(A_PHOTO, network=12_500, latency=0.06)
"""Each photo an object behind a URL: two requests, one after the other."""


def table() -> str:
    """Return the plans as Markdown."""
    lines = [
        "| photos | of | GPUs | storage | hours | storage busy | decoding busy | GPUs busy |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for photos in (10_000_000, 1_000_000_000):
        for megabytes, decode in ((0.1, 0.0030), (0.8, 0.0128)):
            for gpus, network in ((8, 1250), (8, 12_500), (64, 1250), (64, 12_500)):
                plan = replace(
                    A_PHOTO,
                    photos=photos,
                    shards=max(photos // 100_000, 16 * gpus),
                    workers=gpus,
                    megabytes=megabytes,
                    decode=decode,
                    network=network,
                )
                found = simulate(plan)
                busy = (f"{found.busy[name]:.0%}" for name in ("storage", "decoding", "device"))
                storage, hours = f"{network / 1000:g} GB/s", f"{found.seconds / 3600:.3g}"
                cells = (f"{photos:,}", f"{megabytes} MB", gpus, storage, hours, *busy)
                lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())  # noqa: T201
    print(f"10 million objects on 8 GPUs: {simulate(OBJECTS).seconds / 3600:.3g} h")  # noqa: T201
