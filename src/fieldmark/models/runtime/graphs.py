"""Converted graphs: a backbone's trunk as an ONNX file, cached under the backbone's key; and ONNX Runtime."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fieldmark.models import tracing
from fieldmark.models.runtime.base import BATCH, Engine, Streams, piece_for
from fieldmark.models.runtime.tiers import EXACT, Tier, no_half
from fieldmark.utils import io
from fieldmark.utils.cached import cached_file
from fieldmark.utils.errors import FieldmarkError, InputError, NotConvertible, StoreError, first_line
from fieldmark.utils.random import generator
from fieldmark.utils.typing import ByteArray, FloatArray

if TYPE_CHECKING:
    from fieldmark.models.architecture import Architecture
    from fieldmark.models.backbone import Backbone

TOLERANCE = 1e-3  # the largest relative difference between two engines' feature vectors


class OnnxEngine(Streams):
    """A converted trunk in ONNX Runtime: one session, run by `threads` (None: one a core) at a time.

    Raises:
        StoreError: the file is not a graph that ONNX Runtime can load.
    """

    name = "onnxruntime"

    def __init__(
        self, path: Path, batch: int = BATCH, tier: Tier = EXACT, threads: int | None = None
    ) -> None:
        if tier.name == "half":
            raise no_half(self.name, "it computes float32 and int8 only")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1  # `Streams` has the threads
        options.log_severity_level = 3  # errors
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's errors have no common root but this
            raise StoreError(f"{path} is not a graph that can be run: delete the file.") from error
        self._input = self._session.get_inputs()[0].name
        super().__init__(batch, threads, piece_for(path))

    def _run(self, crops_NSS3: ByteArray) -> FloatArray:
        features: FloatArray = self._session.run(None, {self._input: crops_NSS3})[0]
        return features


def file(name: str) -> Path:
    """Return where a converted graph, or what belongs to it, is or is to be written."""
    return cached_file("graphs", name)


def _path(key: str) -> Path:
    return file(f"{key}.opset{tracing.OPSET}.onnx")


def cached_graph(key: str) -> Path | None:
    """Return the cached graph of the backbone with this key, for `OnnxEngine` without PyTorch; None without
    one, or where the disk changed it."""
    path = _path(key)
    return path if io.is_sealed(path) else None


def graph(backbone: Backbone) -> Path:
    """Return the graph of a backbone, from the cache or converted (some seconds).

    Raises:
        NotConvertible: the network cannot be converted.
        InputError: the graph cannot be written.
    """
    path = _path(backbone.exact.key)
    if not io.is_sealed(path):
        with io.replacing(path, seal=True) as temporary:
            _convert(backbone, temporary)
            _verify(backbone, temporary)
    return path


def _convert(backbone: Backbone, to: Path) -> None:
    import torch

    if backbone.architecture.library == "onnx":
        import onnx

        from fieldmark.models import onnx_graph

        onnx.save(onnx_graph.compose(backbone.architecture, backbone.network), to)
        return
    side = backbone.architecture.input_size
    example = torch.zeros(2, side, side, 3, dtype=torch.uint8)
    try:
        tracing.trace(backbone.trunk, example, to)
    except OSError:  # the disk is full, say: no fault of the network
        raise
    except Exception as error:  # the exporter may raise anything
        raise NotConvertible(
            f"{backbone.architecture.name} cannot be converted to ONNX ({first_line(error)[:200]}): "
            "use the engine torch."
        ) from error


def _verify(backbone: Backbone, path: Path) -> None:
    """Raise NotConvertible if the graph's features are not those of the network."""
    expected, error = _expected(backbone), float("inf")
    with suppress(FieldmarkError):
        error = relative_error(OnnxEngine(path)(_tried(backbone.architecture)), expected)
    if not error <= TOLERANCE:
        raise NotConvertible(
            f"{backbone.architecture.name} gives other features when converted to ONNX (relative "
            f"difference {error:.1e}): use the engine torch."
        )


def agrees(engine: Engine, backbone: Backbone) -> bool:
    """Return whether an engine gives the network's features, to its tolerance, on a few crops.

    A graph is checked with ONNX Runtime when it is converted.
    """
    return engine.name == OnnxEngine.name or _close(engine, _expected(backbone), backbone.architecture)


def agrees_with_cached(engine: Engine, key: str, facts: Architecture) -> bool:
    """Return what `agrees` does for the backbone with this key, without it; False where nothing is cached."""
    if engine.name == OnnxEngine.name:
        return True
    expected = _cached_expected(key, facts)
    return expected is not None and _close(engine, expected, facts)


def _close(engine: Engine, expected: FloatArray, facts: Architecture) -> bool:
    error = relative_error(engine(_tried(facts)), expected)
    return error <= getattr(engine, "tolerance", TOLERANCE)


def _tried(facts: Architecture) -> ByteArray:
    return sample(facts.input_size, 3)


def _expected_path(key: str) -> Path:
    return file(f"{key}.expected.npy")


def _cached_expected(key: str, facts: Architecture) -> FloatArray | None:
    """Return PyTorch's features of the test crops from the cache, or None."""
    path = _expected_path(key)
    if not io.is_sealed(path):
        return None
    kept: FloatArray = np.load(path)
    return kept if kept.shape == (3, facts.feature_dim) else None


def _expected(backbone: Backbone) -> FloatArray:
    """Return PyTorch's features of the test crops, from the cache or computed."""
    key, facts = backbone.exact.key, backbone.architecture
    if (kept := _cached_expected(key, facts)) is not None:
        return kept
    import torch

    with torch.inference_mode():
        features: FloatArray = backbone.trunk(torch.from_numpy(_tried(facts))).numpy()
    # Without room on the disk the next process computes them again.
    with (
        suppress(InputError),
        io.replacing(_expected_path(key), seal=True) as temporary,
        temporary.open("wb") as handle,
    ):
        np.save(handle, features)
    return features


def sample(side: int, count: int) -> ByteArray:
    """Return test crops, uint8 (count, side, side, 3), the same ones every time."""
    return generator(0, "crops", side).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def relative_error(a_ND: FloatArray, b_ND: FloatArray) -> float:
    """Return the largest distance of two vectors of a crop, relative to the second's length."""
    lengths = np.maximum(np.linalg.norm(b_ND, axis=1), np.finfo(np.float32).tiny)
    return float((np.linalg.norm(a_ND - b_ND, axis=1) / lengths).max())
