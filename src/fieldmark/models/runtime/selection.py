"""Which engine is the fastest here: measured once a network, batch and machine, then kept.

How fast an engine is depends on the shapes of the layers and hardly on the numbers in them, so that one
choice serves all weights of a network. Whether its features are right does depend on the numbers: that
is checked for each backbone, on a few crops.
"""

from __future__ import annotations

import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldmark.models.runtime import graphs
from fieldmark.models.runtime.base import Engine
from fieldmark.utils import io
from fieldmark.utils.cpu import cores
from fieldmark.utils.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fieldmark.models.architecture import Architecture
    from fieldmark.models.backbone import Backbone

SECONDS = 0.3  # how long each engine is measured, after a first run that does not count
_FEWEST = 2  # calls, however long they take
_ENGINES = 3  # goes up when an engine runs otherwise: what was measured before no longer holds
_GIGA_MACS_A_CALL = 30.0  # some tenths of a second of two cores: a large network gets fewer crops


def conditions(facts: Architecture, batch: int) -> dict[str, Any]:
    """All that a choice holds for: another machine or version is measured anew."""
    return {
        "network": [facts.library, facts.name, facts.input_size],
        "batch": batch,
        "engines": _ENGINES,
        "processor": _processor(),
        "cores": cores(),
        "gpus": _gpus(),
        "versions": {name: _version(name) for name in ("torch", "onnxruntime", "openvino")},
    }


def cached_choice(facts: Architecture, batch: int) -> str | None:
    """The engine that was the fastest when this was last measured, or None. Imports no PyTorch."""
    now = conditions(facts, batch)
    try:
        record = io.read_json(_path(now))
    except InputError:  # never measured, or damaged: it is measured anew
        return None
    if not isinstance(record, dict) or record.get("conditions") != now:
        return None
    return str(record.get("engine"))


def measure(
    backbone: Backbone, batch: int, make: Mapping[str, Callable[[], Engine]]
) -> Engine | None:
    """The fastest engine, on crops of noise; its name and the rates of all are kept.

    An engine whose features are not the network's own is out; None if that leaves none.
    """
    facts = backbone.architecture
    count = max(1, min(batch, int(_GIGA_MACS_A_CALL / max(facts.giga_macs, 1e-3))))
    rates: dict[str, float] = {}
    best: Engine | None = None
    for name, build in make.items():
        engine = build()
        if not graphs.agrees(engine, backbone):
            continue
        crops = graphs.sample(facts.input_size, getattr(engine, "preferred", count))
        rates[name] = round(_rate(engine, crops), 2)
        if rates[name] == max(rates.values()):
            best = engine
    if best is not None:
        now = conditions(facts, batch)
        record = {"engine": best.name, "crops_per_second": rates, "conditions": now}
        io.write_json(_path(now), record)
    return best


def _rate(engine: Engine, crops: Any) -> float:
    """Crops a second, from the fastest of the calls within the time."""
    engine(crops)  # memory is found, and OpenVINO compiles for the number of crops
    seconds: list[float] = []
    while sum(seconds) < SECONDS or len(seconds) < _FEWEST:
        begin = time.perf_counter()
        engine(crops)
        seconds.append(time.perf_counter() - begin)
    return len(crops) / min(seconds)


def _path(now: dict[str, Any]) -> Path:
    return graphs.folder() / f"{now['network'][1]}.{io.digest(now)[:16]}.json"


def _gpus() -> list[str]:
    """The GPUs of this machine, as its driver lists them."""
    listed = Path("/proc/driver/nvidia/gpus")
    return sorted(path.name for path in listed.iterdir()) if listed.is_dir() else []


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    # Virtual machines often share a model's name: what it can do tells them apart.
    features = sorted({line for line in lines if line.startswith(("model name", "flags"))})
    return f"{platform.machine()} {platform.processor()} {io.digest(features)[:16]}"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
