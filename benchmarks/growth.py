"""Compute how cost grows with photos, classes and networks: a small model with measured constants.

Every constant is a median that a benchmark measured on one machine and stored in results/; everything
that `cost` returns is computed from them and was not run. Seconds are for all cores of that machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

EPOCHS = 10


@dataclass(frozen=True)
class Constants:
    """Measured constants.

    Attributes:
        table_seconds: index (annotations only), count, split and prune, per photo.
        table_bytes: the peak memory of that, per photo.
        decode_seconds: read, decode and resize of an 800 x 600 photo.
        network_seconds: features of one crop, by network.
        network_dims: the length of a feature vector, by network.
        head_flops: the rate of training a last layer at D = 2,048 and C = 1,000, in FLOP/s.
        read_bytes: the rate of reading a file from the disk, in bytes/s.
    """

    table_seconds: float
    table_bytes: float
    decode_seconds: float
    network_seconds: dict[str, float]
    network_dims: dict[str, int]
    head_flops: float
    read_bytes: float

    @classmethod
    def of(cls, hardware: dict[str, Any], tables: dict[str, Any] | None) -> Constants:
        """Read the stored results of the benchmarks `hardware` and `tables`."""
        by_name = {row["what"]: row for row in hardware["rows"]}
        networks = [row["more"] for row in by_name.values() if "giga_macs" in row["more"]]
        head = next(row for name, row in by_name.items() if name.startswith("last layer"))
        decode = next(row for name, row in by_name.items() if name.startswith("decode"))
        seconds, memory = _tables(tables)
        disk = hardware["rows"][0]["more"]["disk_read_gb_per_second"]
        return cls(
            table_seconds=seconds,
            table_bytes=memory,
            decode_seconds=1 / decode["ours"],
            network_seconds={each["network"]: 1 / each["photos_per_second"] for each in networks},
            network_dims={each["network"]: each["dim"] for each in networks},
            head_flops=1e9 * head["ours"],
            read_bytes=1e9 * disk,
        )


def _tables(tables: dict[str, Any] | None) -> tuple[float, float]:
    if tables is None:
        return 0.0, 0.0
    last = next(row for row in tables["rows"] if "peak_gib" in row["more"])
    photos = last["more"]["photos"]
    return last["ours"] / photos, last["more"]["peak_gib"] * 2**30 / photos


@dataclass(frozen=True)
class Cost:
    """The cost of a study of some networks; all computed.

    Attributes:
        tables: seconds to index, count, split and prune.
        decoding: seconds to read, decode and resize every photo once.
        features: seconds of the networks.
        heads: seconds to train a last layer on the features of each network, for `EPOCHS`.
        memory_bytes: the memory of the tables, or the largest head's weights with both moments and
            gradient, whichever is larger.
        disk_bytes: cached features, float16.
        reference: seconds of the networks and decoding the reference way: every epoch, every network,
            at the same rates. Its eager networks are slower than that.
    """

    tables: float
    decoding: float
    features: float
    heads: float
    memory_bytes: float
    disk_bytes: float
    reference: float

    @property
    def total(self) -> float:
        """The sum of all stages."""
        return self.tables + self.decoding + self.features + self.heads


def even(constants: Constants, networks: tuple[str, ...]) -> float:
    """Compute the number of classes at which the last layers cost as much as the networks."""
    features = sum(constants.network_seconds[name] for name in networks)
    dims = sum(constants.network_dims[name] for name in networks)
    return features * constants.head_flops / (6.0 * EPOCHS * dims)


def cost(constants: Constants, photos: int, classes: int, networks: tuple[str, ...]) -> Cost:
    """Compute the cost of training and comparing `networks` on some photos, from an empty cache.

    Decoding and the networks share the same cores, so their times add up. A last layer costs 6 N D C
    operations per epoch; the measured rate includes the update of its weights, once per batch. Features
    that do not fit into memory are read from the disk in each epoch.
    """
    features = photos * sum(constants.network_seconds[name] for name in networks)
    decoding = photos * constants.decode_seconds
    dims = [constants.network_dims[name] for name in networks]
    arithmetic = 6.0 * photos * classes * sum(dims) / constants.head_flops
    disk = 2.0 * photos * sum(dims)
    heads = EPOCHS * max(arithmetic, disk / constants.read_bytes)
    weights = 4 * 4.0 * max(dims) * classes
    return Cost(
        tables=photos * constants.table_seconds,
        decoding=decoding,
        features=features,
        heads=heads,
        memory_bytes=max(photos * constants.table_bytes, weights),
        disk_bytes=disk,
        reference=EPOCHS * (len(networks) * decoding + features),
    )
