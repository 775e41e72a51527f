"""Which engine is the fastest here: measured once a backbone, batch and machine, then kept."""

from __future__ import annotations

import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fieldmark import files
from fieldmark.backbones.engines import graphs
from fieldmark.backbones.engines.base import Engine, cores
from fieldmark.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fieldmark.backbones.base import Backbone

SECONDS = 1.0  # how long each engine is measured, after a first run that does not count
_ENGINES = 2  # goes up when an engine runs otherwise: what was measured before no longer holds
_GIGA_MACS_A_CALL = 30.0  # about a second's work of two cores: a large network gets fewer crops


def conditions(key: str, batch: int) -> dict[str, Any]:
    """All that a choice holds for: another machine or version is measured anew."""
    return {
        "backbone": key,
        "batch": batch,
        "engines": _ENGINES,
        "processor": _processor(),
        "cores": cores(),
        "gpus": _gpus(),
        "versions": {name: _version(name) for name in ("torch", "onnxruntime", "openvino")},
    }


def kept(key: str, batch: int) -> str | None:
    """The engine that was the fastest when this was last measured, or None. Imports no PyTorch."""
    now = conditions(key, batch)
    try:
        record = files.read_json(_path(now))
    except InputError:  # never measured, or damaged: it is measured anew
        return None
    if not isinstance(record, dict) or record.get("conditions") != now:
        return None
    return str(record.get("engine"))


def measure(backbone: Backbone, batch: int, make: Mapping[str, Callable[[], Engine]]) -> str:
    """Measure each engine on crops of noise, keep the rates and the fastest one's name.

    An engine whose features differ from the first one's by more than the tolerance is out.
    """
    facts = backbone.architecture
    count = max(1, min(batch, int(_GIGA_MACS_A_CALL / max(facts.giga_macs, 1e-3))))
    crops = graphs.sample(facts.input_size, count)
    rates: dict[str, float] = {}
    reference = None
    for name, build in make.items():
        engine = build()
        features = engine(crops)
        reference = features if reference is None else reference
        tolerance = getattr(engine, "tolerance", graphs.TOLERANCE)
        if graphs.relative_error(features, reference) <= tolerance:
            many = np.resize(crops, (getattr(engine, "preferred", count), *crops.shape[1:]))
            rates[name] = round(_rate(engine, many), 2)
    best = max(rates, key=lambda name: rates[name])
    now = conditions(backbone.key, batch)
    record = {"engine": best, "crops_per_second": rates, "conditions": now}
    files.write_json(_path(now), record | {"network": facts.name})
    return best


def _rate(engine: Engine, crops: Any) -> float:
    """Crops a second, from the fastest of the calls within the time."""
    fastest, start = float("inf"), time.perf_counter()
    while time.perf_counter() - start < SECONDS:
        begin = time.perf_counter()
        engine(crops)
        fastest = min(fastest, time.perf_counter() - begin)
    return len(crops) / fastest


def _path(now: dict[str, Any]) -> Path:
    return graphs.folder() / f"{now['backbone']}.{files.digest(now)[:16]}.json"


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
    told = sorted({line for line in lines if line.startswith(("model name", "flags"))})
    return f"{platform.machine()} {platform.processor()} {files.digest(told)[:16]}"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
