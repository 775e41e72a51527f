"""Engines run a backbone's trunk. All give the same features, to 1e-3 relative.

Exceptions: `cuda` and `mps` compute in float16 (to 5e-3), and int8 is less accurate. `auto` never chooses
`mps`, which was not run on an Apple computer yet, or int8.

Importing this package imports neither PyTorch nor any engine's library: `cached_graph` and
`onnx_engine_from_file` compute features from a converted graph without PyTorch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fieldmark.models.runtime import cuda, graphs, selection
from fieldmark.models.runtime.base import BATCH, Engine, TorchEngine
from fieldmark.models.runtime.graphs import OnnxEngine, cached_graph, graph, relative_error
from fieldmark.models.runtime.openvino import OpenVinoEngine, installed
from fieldmark.utils.cpu import cores
from fieldmark.utils.errors import InputError, StoreError
from fieldmark.utils.typing import ByteArray, FloatArray

if TYPE_CHECKING:
    from fieldmark.models.backbone import Backbone

logger = logging.getLogger(__name__)

onnx_engine_from_file = OnnxEngine  # a converted graph, without PyTorch

CONVERTED: dict[str, Callable[[Path, int], Engine]] = {"onnxruntime": OnnxEngine, "openvino": OpenVinoEngine}
"""The engines that run a converted graph, without PyTorch, by their names."""

ENGINES: dict[str, Callable[[Backbone, int], Engine]] = {
    "torch": TorchEngine,
    "onnxruntime": lambda backbone, batch: _converted(OnnxEngine, backbone, batch),
    "openvino": lambda backbone, batch: _converted(OpenVinoEngine, backbone, batch),
    # A GPU needs larger batches.
    "cuda": lambda backbone, batch: cuda.CudaEngine(backbone, max(batch, cuda.BATCH)),
    "mps": cuda.MpsEngine,
}

__all__ = [
    "BATCH",
    "CONVERTED",
    "ENGINES",
    "ByteArray",
    "Engine",
    "FloatArray",
    "cached_graph",
    "check_name",
    "cores",
    "engine",
    "onnx_engine_from_file",
    "relative_error",
]


def engine(
    backbone: Backbone, name: str = "auto", batch: int = BATCH, *, calibration: ByteArray | None = None
) -> Engine:
    """Return an engine that runs a backbone.

    Args:
        backbone: what to run.
        name: a key of `ENGINES`; "auto": the fastest on this machine, measured once for each network; or
            "int8", which logs its loss of accuracy.
        batch: the largest number of crops run at once.
        calibration: for "int8", some hundred crops of typical photos.

    Raises:
        InputError: no such engine, or it is not installed, or the network cannot be converted.
    """
    if name == "auto":
        return _auto(backbone, batch)
    if name in ENGINES:
        return ENGINES[name](backbone, batch)
    if name != "int8":
        check_name(name)
    if calibration is None:
        raise InputError("the engine int8 needs crops to set its ranges by: give `calibration`.")
    from fieldmark.models.runtime import int8

    found, loss = int8.quantized(backbone, calibration, batch)
    logger.info(f"{backbone.architecture.name}, {loss.summary}")
    return found


def check_name(name: str | None) -> None:
    """Raise InputError for a name that is no engine's."""
    if name not in (None, "auto", *ENGINES):
        raise InputError(f"there is no engine {name!r}: name auto, {', '.join(ENGINES)}.")


def _converted(make: Callable[[Path, int], Engine], backbone: Backbone, batch: int) -> Engine:
    """Return an engine for the converted graph; a cached graph that cannot be loaded is replaced."""
    try:
        return make(graph(backbone), batch)
    except StoreError:
        graph(backbone).unlink()
        return make(graph(backbone), batch)


def _auto(backbone: Backbone, batch: int) -> Engine:
    """Return the fastest engine with correct features; PyTorch where there is no converted graph."""
    is_there = {"onnxruntime": True, "openvino": installed(), "cuda": cuda.available()}
    names = [name for name in is_there if is_there[name]]
    try:
        graph(backbone)
    except InputError as error:
        logger.info(f"{error} It is the only engine for this network.")
        return ENGINES["cuda" if is_there["cuda"] else "torch"](backbone, batch)
    name = selection.cached_choice(backbone.architecture, batch)
    if name in names:  # otherwise it is not installed (any more)
        found = ENGINES[name](backbone, batch)
        # A graph is checked with ONNX Runtime when it is converted; other engines are checked here.
        if name == "onnxruntime" or graphs.agrees(found, backbone):
            return found
    make = {each: partial(ENGINES[each], backbone, batch) for each in names}
    return selection.measure(backbone, batch, make) or TorchEngine(backbone, batch)
