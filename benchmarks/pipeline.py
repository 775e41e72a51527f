"""Measure photos to cached features, end to end, against the bare engine on prepared crops in memory.

End to end is what `fieldmark train` does: read, decode, resize, run the network, write each batch to
the feature cache and sync it. The bare engine runs the network alone. Where decoding and the network
share the same cores the work of both adds up, so that the best possible rate is

    1 / (1 / engine + 1 / decoding)        photos a second,

both measured alone on all cores in the same round. Each row gives the share of the bare engine's rate
that was reached, and its note the share of that bound. With a GPU, or for a costly network, the bound is
the engine itself.

Where the processor has 16 bits each network is measured in `half` as well: decoding then takes more of the
time.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from io import StringIO
from pathlib import Path

import numpy as np

from benchmarks.common import Row, alternate, compare, rounds, shared
from fieldmark import models
from fieldmark.data.loader import decoded
from fieldmark.data.photos import PhotoFile
from fieldmark.data.transforms import PAPER_CROP
from fieldmark.features.cache import FeatureStore
from fieldmark.features.extraction import BATCH, Extraction, Job, extract
from fieldmark.models import runtime
from fieldmark.utils import io

NETWORKS = ("shufflenet_v2_x0_5", "squeezenet1_1", "alexnet", "densenet121", "resnext50_32x4d")
PHOTOS, FEWEST = 512, 128  # fewer for a costly network
GIGA_MACS = 100.0  # about 4 s of two cores
AIM = 0.9

ENGINE, DECODE, BOTH = "engine on ready crops", "decoding", "end to end"


class FeatureExtractor:
    """Photos, their crops in memory, and an engine for each network."""

    def __init__(
        self, names: Sequence[str], count: int, engine: str = "auto", tier: runtime.Tier = runtime.EXACT
    ) -> None:
        paths = sorted(shared("data", "wild74", "train_val2019").rglob("*.jpg"))
        step = max(1, len(paths) // count)
        self.photos = [PhotoFile(io.sha256(p.read_bytes()), p) for p in paths[::step][:count]]
        crops = list(decoded(self.photos, PAPER_CROP))
        self.crops = np.stack([crop for crop in crops if isinstance(crop, np.ndarray)])
        self.backbones = {name: models.load(name, weights="random").computed(tier) for name in names}
        self.engines = {
            name: runtime.engine(backbone, engine, batch=BATCH) for name, backbone in self.backbones.items()
        }

    def count(self, names: Sequence[str]) -> int:
        """Return the number of photos for some networks."""
        cost = sum(self.backbones[name].architecture.giga_macs for name in names)
        few = min(len(self.photos), max(FEWEST, int(GIGA_MACS / cost)))
        return max(BATCH, few // BATCH * BATCH)

    def bare(self, names: Sequence[str]) -> float:
        """Measure crops per second through the engines, one after the other."""
        crops = self.crops[: self.count(names)]
        start = time.perf_counter()
        for name in names:
            for at in range(0, len(crops), BATCH):
                self.engines[name](crops[at : at + BATCH])
        return len(crops) / (time.perf_counter() - start)

    def decode(self, names: Sequence[str]) -> float:
        """Measure photos per second to crops, on all cores."""
        photos = self.photos[: self.count(names)]
        start = time.perf_counter()
        for _ in decoded(photos, PAPER_CROP):
            pass
        return len(photos) / (time.perf_counter() - start)

    def end_to_end(self, names: Sequence[str]) -> float:
        """Measure photos per second into an empty feature cache."""
        photos = self.photos[: self.count(names)]
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(StringIO()):
            store = FeatureStore(Path(folder))
            jobs = [self._job(store, name) for name in names]
            start = time.perf_counter()
            result = extract(photos, jobs, PAPER_CROP, Extraction())
            seconds = time.perf_counter() - start
            assert len(result.computed) == len(names)
        return len(photos) / seconds

    def _job(self, store: FeatureStore, name: str) -> Job:
        backbone = self.backbones[name]
        facts = backbone.architecture
        cache = store.cache(backbone.key, PAPER_CROP.key(), facts.feature_dim)
        return Job(name, cache, facts.giga_macs, lambda: self.engines[name])


def run(quick: bool = False, names: Sequence[str] = NETWORKS, *, engine: str = "auto") -> list[Row]:
    """Return a row per network and tier, and one for all networks together."""
    if quick:
        names = names[:1]
    groups = {name: [name] for name in names}
    if len(names) > 1:
        groups["all together"] = list(names)
    rows = []
    for tier in [runtime.EXACT, *([runtime.HALF] if runtime.halves() and engine == "auto" else [])]:
        extractor = FeatureExtractor(names, FEWEST if quick else PHOTOS, engine, tier)
        named = ", half" if tier == runtime.HALF else ""
        rows += [_row(extractor, what + named, group, rounds(quick)) for what, group in groups.items()]
    return rows


def _row(extractor: FeatureExtractor, what: str, names: Sequence[str], count: int) -> Row:
    ways: dict[str, Callable[[], float]] = {
        ENGINE: lambda: extractor.bare(names),
        DECODE: lambda: extractor.decode(names),
        BOTH: lambda: extractor.end_to_end(names),
    }
    values = alternate(ways, count, warm_up=True)
    bound, reached = _bound(values)
    used = ", ".join(dict.fromkeys(extractor.engines[name].name for name in names))
    return compare(
        what,
        values,
        BOTH,
        ENGINE,
        unit="img/s",
        more_is_better=True,
        aim=AIM,
        note=f"{used}; decoding on the same cores allows {bound:.2f}x: {reached:.0%} of it reached",
        more={
            "photos": extractor.count(names),
            "decoding_img_s": statistics.median(values[DECODE]),
            "bound": bound,
            "share_of_bound": reached,
        },
    )


def _bound(values: Mapping[str, Sequence[float]]) -> tuple[float, float]:
    """Return the best possible ratio, and the share of it that was reached; medians."""
    rows = list(zip(values[ENGINE], values[DECODE], values[BOTH], strict=True))
    bounds = [1 / (1 + engine / decode) for engine, decode, _ in rows]
    shares = [both * (1 / engine + 1 / decode) for engine, decode, both in rows]
    return statistics.median(bounds), statistics.median(shares)


if __name__ == "__main__":
    from benchmarks.common import table

    print(table("pipeline", run(names=sys.argv[1:] or NETWORKS)))
