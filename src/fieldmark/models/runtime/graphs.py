"""Converted graphs: a backbone's trunk as an ONNX file, kept under the backbone's key.

PyTorch has two exporters. The newer one needs a further package (onnxscript) and takes ten times as
long; the older one traces, which is exact for a trunk: it is in evaluation mode and the path through
it depends on no value. So the older one is used, and its announcement that it will go is not shown.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fieldmark.models.runtime.base import Engine
from fieldmark.models.runtime.onnxruntime import OnnxEngine
from fieldmark.utils import io
from fieldmark.utils.errors import FieldmarkError, InputError
from fieldmark.utils.typing import ByteArray, FloatArray

if TYPE_CHECKING:
    from fieldmark.models.backbone import Backbone

OPSET = 17
TOLERANCE = 1e-3  # the largest relative difference between two engines' feature vectors


def folder() -> Path:
    """Where converted graphs and the choice of engines are kept."""
    return io.cache_dir() / "graphs"


def _path(key: str) -> Path:
    return folder() / f"{key}.opset{OPSET}.onnx"


def cached_graph(key: str) -> Path | None:
    """The converted graph of the backbone with this key, if it was converted before.

    With it features are computed without PyTorch: `OnnxEngine(path)`.
    """
    path = _path(key)
    return path if path.is_file() else None


def graph(backbone: Backbone) -> Path:
    """The converted graph of a backbone, from the cache or converted now (some seconds).

    Raises:
        InputError: the network has a part that cannot be converted.
    """
    if kept := cached_graph(backbone.key):
        return kept
    path = _path(backbone.key)
    with io.replacing(path) as temporary:
        _convert(backbone, temporary)
        _verify(backbone, temporary)
    return path


def _convert(backbone: Backbone, to: Path) -> None:
    import torch

    side = backbone.architecture.input_size
    example = torch.zeros(2, side, side, 3, dtype=torch.uint8)
    try:
        with warnings.catch_warnings():
            # The exporter's farewell, and the tracer's notes on conditions that hold for any crop.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                backbone.trunk,
                (example,),
                to,
                dynamo=False,
                opset_version=OPSET,
                input_names=["crops"],
                output_names=["features"],
                dynamic_axes={"crops": {0: "n"}, "features": {0: "n"}},
            )
    except Exception as error:  # the exporter raises whatever the part it stumbled over raised
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{backbone.architecture.name} cannot be converted to ONNX ({first[:200]}): "
            "take the engine torch."
        ) from error


def _verify(backbone: Backbone, path: Path) -> None:
    """Refuse a graph whose features are not those of the network."""
    expected = _expected(backbone)
    try:
        error = relative_error(OnnxEngine(path)(_tried(backbone)), expected)
    except FieldmarkError:
        error = float("inf")
    if not error <= TOLERANCE:
        raise InputError(
            f"{backbone.architecture.name} gives other features when converted to ONNX (relative "
            f"difference {error:.1e}): take the engine torch."
        )


def agrees(engine: Engine, backbone: Backbone) -> bool:
    """Whether an engine gives the network's own features, to its tolerance, on a few crops."""
    error = relative_error(engine(_tried(backbone)), _expected(backbone))
    return error <= getattr(engine, "tolerance", TOLERANCE)


def _tried(backbone: Backbone) -> ByteArray:
    return sample(backbone.architecture.input_size, 3)


def _expected(backbone: Backbone) -> FloatArray:
    """PyTorch's own features of the crops on which engines are tried: from the cache, or made now."""
    path = folder() / f"{backbone.key}.expected.npy"
    shape = (3, backbone.architecture.feature_dim)
    try:
        kept: FloatArray = np.load(path)
        if kept.shape == shape:
            return kept
    except (OSError, ValueError, EOFError):
        pass  # never made, or damaged
    import torch

    with torch.inference_mode():
        features: FloatArray = backbone.trunk(torch.from_numpy(_tried(backbone))).numpy()
    with io.replacing(path) as temporary, temporary.open("wb") as handle:
        np.save(handle, features)
    return features


def sample(side: int, count: int) -> ByteArray:
    """ByteArray to try an engine on: uint8 (count, side, side, 3), the same ones every time."""
    from fieldmark.utils.random import generator

    return generator(0, "crops", side).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def relative_error(a_ND: FloatArray, b_ND: FloatArray) -> float:
    """The largest distance between two vectors of the same crop, relative to the second's length."""
    lengths = np.maximum(np.linalg.norm(b_ND, axis=1), np.finfo(np.float32).tiny)
    return float((np.linalg.norm(a_ND - b_ND, axis=1) / lengths).max())
