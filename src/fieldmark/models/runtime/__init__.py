"""Engines run a backbone's trunk, in the backbone's tier of precision (see `tiers`).

In the tier `exact` all give the same features, to 1e-3 relative (`cuda` and `mps` to 5e-3). `auto` never
chooses `mps`, which was not run on an Apple computer yet.

Importing this package imports neither PyTorch nor any engine's library: `cached_graph` and
`onnx_engine_from_file` compute features from a converted graph without PyTorch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from fieldmark.models.runtime import cuda, graphs, openvino, selection
from fieldmark.models.runtime.base import BATCH, Engine, TorchEngine, torch_has_half
from fieldmark.models.runtime.graphs import OnnxEngine, cached_graph, graph, relative_error
from fieldmark.models.runtime.openvino import OpenVinoEngine, installed
from fieldmark.models.runtime.tiers import EXACT, HALF, Tier, no_half
from fieldmark.utils.choices import FloatTierName
from fieldmark.utils.cpu import cores
from fieldmark.utils.errors import InputError, StoreError
from fieldmark.utils.typing import ByteArray, FloatArray

if TYPE_CHECKING:
    from fieldmark.models.architecture import Architecture
    from fieldmark.models.backbone import Backbone

logger = logging.getLogger(__name__)

onnx_engine_from_file = OnnxEngine  # a converted graph, without PyTorch

CONVERTED: dict[str, Callable[[Path, int, Tier], Engine]] = {
    "onnxruntime": OnnxEngine,
    "openvino": OpenVinoEngine,
}
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
    "EXACT",
    "HALF",
    "ByteArray",
    "Engine",
    "FloatArray",
    "Tier",
    "cached_graph",
    "check_name",
    "chosen_before",
    "cores",
    "engine",
    "float_tier",
    "halves",
    "onnx_engine_from_file",
    "quantised_engine",
    "relative_error",
]


def engine(backbone: Backbone, name: str = "auto", batch: int = BATCH) -> Engine:
    """Return an engine that runs a backbone, in the backbone's tier.

    Args:
        backbone: what to run.
        name: a key of `ENGINES`; or "auto": the fastest on this machine, measured once for each network,
            and for int8 the one that the graph was made for.
        batch: the largest number of crops run at once.

    Raises:
        InputError: no such engine, or it is not installed or has not this tier, or the network cannot be
            converted.
    """
    check_name(name)
    tier = backbone.tier
    if tier.graph is not None:
        return quantised_engine(tier, name, batch)
    if tier.name == "half" and name == "auto" and not halves():
        raise InputError(
            "nothing here computes half (neither processor nor GPU has 16 bits): use --compute exact or int8."
        )
    return _auto(backbone, batch) if name == "auto" else ENGINES[name](backbone, batch)


def quantised_engine(tier: Tier, name: str | None = None, batch: int = BATCH) -> Engine:
    """Return an engine for a quantised graph, without the network itself: any converted one runs it.

    Raises:
        InputError: the engine runs no such graph, or is not installed.
    """
    named = name not in (None, "auto")
    name = name if named else tier.engine if tier.engine != "openvino" or installed() else "onnxruntime"
    if tier.graph is None or name not in CONVERTED:
        raise InputError(f"the engine {name} cannot compute int8: use --engine openvino or onnxruntime.")
    return CONVERTED[name](tier.graph, batch, tier)


def check_name(name: str | None) -> None:
    """Raise InputError for a name that is no engine's."""
    if name not in (None, "auto", *ENGINES):
        raise InputError(f"there is no engine {name!r}: name auto, {', '.join(ENGINES)}.")


def float_tier(name: str) -> Tier:
    """Return the tier `exact` or `half`, for commands that compare networks or compute features alone.

    Raises:
        InputError: it is another one.
    """
    if name not in get_args(FloatTierName):
        raise InputError(f"compute {name} depends on training photos: give it to `fieldmark train`.")
    return HALF if name == "half" else EXACT


def halves() -> list[str]:
    """Return the engines that have the tier `half` on this machine."""
    has = {"openvino": installed() and openvino.half() is not None, "torch": torch_has_half()}
    has["cuda"] = cuda.available()
    return [name for name, there in has.items() if there]


def _converted(make: Callable[[Path, int, Tier], Engine], backbone: Backbone, batch: int) -> Engine:
    """Return an engine for the converted graph; a cached graph that cannot be loaded is replaced."""
    try:
        return make(graph(backbone), batch, backbone.tier)
    except StoreError:
        graph(backbone).unlink()
        return make(graph(backbone), batch, backbone.tier)


def chosen_before(key: str, facts: Architecture, tier: Tier, batch: int = BATCH) -> Engine | None:
    """Return the engine that `auto` chose before for a network, from its cached graph, without PyTorch.

    Args:
        key: `Backbone.key` in float32.
        facts: the network.
        tier: `exact` or `half`.
        batch: the largest number of crops run at once.

    Returns:
        None where it was not measured here, is not installed (any more), is PyTorch, or has wrong features.
    """
    path, name = cached_graph(key), selection.cached_choice(facts, batch, tier.name)
    if path is None or name not in CONVERTED:
        return None
    with suppress(StoreError, InputError):
        found = CONVERTED[name](path, batch, tier)
        if graphs.agrees_with_cached(found, key, facts):
            return found
    return None


def _auto(backbone: Backbone, batch: int) -> Engine:
    """Return the fastest engine with correct features; PyTorch on the CPU where no other has them.

    PyTorch is not measured: in both tiers it was slower than OpenVINO for every network measured.
    """
    is_half = backbone.tier.name == "half"
    is_there = {"onnxruntime": True, "openvino": installed(), "cuda": cuda.available()}
    names = [name for name in (halves() if is_half else is_there) if is_there.get(name)]
    try:
        graph(backbone)
    except InputError as error:
        logger.info(f"{error} PyTorch runs the network instead.")
        return ENGINES["cuda" if is_there["cuda"] else "torch"](backbone, batch)
    name = selection.cached_choice(backbone.architecture, batch, backbone.tier.name)
    if name in names:  # otherwise it is not installed (any more)
        found = ENGINES[name](backbone, batch)
        if graphs.agrees(found, backbone):
            return found
    make = {each: partial(ENGINES[each], backbone, batch) for each in names}
    if (fastest := selection.measure(backbone, batch, make)) is not None:
        return fastest
    if not is_half:
        return TorchEngine(backbone, batch)
    if torch_has_half() and graphs.agrees(last := TorchEngine(backbone, batch), backbone):
        return last
    raise no_half("auto", f"the features of {backbone.architecture.name} are too far from float32")
