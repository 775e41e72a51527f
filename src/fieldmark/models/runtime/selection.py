"""Choose the fastest engine: measured once for each network, batch and machine.

Speed depends on the shapes of the layers, so that one choice holds for all weights of a network. Whether
its features are correct depends on the weights, and is checked for each backbone on a few crops.
"""

from __future__ import annotations

import platform
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldmark.models.runtime import graphs
from fieldmark.models.runtime.base import Engine
from fieldmark.utils import io
from fieldmark.utils.choices import TierName
from fieldmark.utils.cpu import cores
from fieldmark.utils.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fieldmark.models.architecture import Architecture
    from fieldmark.models.backbone import Backbone

SECONDS = 0.15  # of measurement of each engine, after a warm-up
_FEWEST = 2  # calls
_ENGINES = 4  # goes up when an engine changes, so that it is measured again
_GIGA_MACS_A_CALL = 10.0  # a tenth of a second of two cores


def conditions(facts: Architecture, batch: int, tier: TierName = "exact") -> dict[str, Any]:
    """Return the conditions of a choice: another machine or version is measured again."""
    return {
        "network": [facts.library, facts.name, facts.input_size],
        "batch": batch,
        "engines": _ENGINES,
        **({} if tier == "exact" else {"tier": tier}),
        "processor": _processor(),
        "cores": cores(),
        "gpus": sorted(path.name for path in Path("/proc/driver/nvidia/gpus").glob("*")),
        "versions": {name: _version(name) for name in ("torch", "onnxruntime", "openvino")},
    }


def cached_choice(facts: Architecture, batch: int, tier: TierName = "exact") -> str | None:
    """Return the fastest engine of an earlier measurement, or None; without importing PyTorch."""
    now = conditions(facts, batch, tier)
    with suppress(InputError):  # missing or damaged: it is measured again
        record = io.read_json(_path(now))
        if isinstance(record, dict) and record.get("conditions") == now:
            return str(record.get("engine"))
    return None


def measure(backbone: Backbone, batch: int, make: Mapping[str, Callable[[], Engine]]) -> Engine | None:
    """Return the fastest engine on crops of noise, and cache the choice; a lone engine needs no measurement.

    Engines with wrong features are excluded; None if no engine is left.
    """
    facts = backbone.architecture
    count = crops_a_call(facts, batch)
    right = {name: built for name, build in make.items() if graphs.agrees(built := build(), backbone)}
    if not right:
        return None
    rates: dict[str, float] = {}
    if len(right) > 1:
        for name, engine in right.items():
            crops = graphs.sample(facts.input_size, getattr(engine, "preferred", count))
            rates[name] = round(rate(engine, crops), 2)
    best = right[max(right, key=lambda name: rates.get(name, 0.0))]
    now = conditions(facts, batch, backbone.tier.name)
    with suppress(InputError):  # the disk is full: the next process measures again
        io.write_json(_path(now), {"engine": best.name, "crops_per_second": rates, "conditions": now})
    return best


def crops_a_call(facts: Architecture, batch: int) -> int:
    """Return how many crops, at most `batch`, are measured at once: fewer of a large network."""
    return max(1, min(batch, int(_GIGA_MACS_A_CALL / max(facts.giga_macs, 1e-3))))


def rate(engine: Engine, crops: Any) -> float:
    """Return crops a second of the fastest call."""
    engine(crops)  # warm-up; OpenVINO compiles for the number of crops
    seconds: list[float] = []
    while sum(seconds) < SECONDS or len(seconds) < _FEWEST:
        begin = time.perf_counter()
        engine(crops)
        seconds.append(time.perf_counter() - begin)
    return len(crops) / min(seconds)


def _path(now: dict[str, Any]) -> Path:
    return graphs.file(io.file_name(f"{now['network'][1]}.{io.digest(now)[:16]}.json"))


def _processor() -> str:
    lines: list[str] = []
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    # Virtual machines often share a model's name; the features differ.
    features = sorted({line for line in lines if line.startswith(("model name", "flags"))})
    return f"{platform.machine()} {platform.processor()} {io.digest(features)[:16]}"


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version  # only `auto` needs it, and it takes 10 ms

    with suppress(PackageNotFoundError):
        return version(package)
    return None
