"""OpenVINO on the CPU, where it is installed (`pip install fieldmark[openvino]`)."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from fieldmark.backbones.engines.base import BATCH, Crops, Features, cores, in_batches
from fieldmark.errors import InputError, StoreError


def installed() -> bool:
    """Whether OpenVINO can be imported."""
    return find_spec("openvino") is not None


class OpenVinoEngine:
    """A converted trunk in OpenVINO, in single precision.

    Raises:
        InputError: OpenVINO is not installed.
        StoreError: the file is not a graph that OpenVINO can load.
    """

    name = "openvino"

    def __init__(self, path: Path, batch: int = BATCH) -> None:
        if not installed():
            raise InputError(
                "the engine openvino is not installed: run pip install 'fieldmark[openvino]', or "
                "take the engine onnxruntime."
            )
        import openvino

        # Left to itself OpenVINO computes in bfloat16 on processors that have it, which is further
        # from the other engines than features may be.
        options = {
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": cores(),
        }
        try:
            self._model = openvino.Core().compile_model(str(path), "CPU", options)
        except RuntimeError as error:
            raise StoreError(f"{path} is not a graph that can be run: delete the file.") from error
        self._batch = batch

    def __call__(self, crops_NSS3: Crops) -> Features:
        """Crops, uint8 (N, S, S, 3), to features, float32 (N, D)."""
        return in_batches(self._run, crops_NSS3, self._batch)

    def _run(self, crops_NSS3: Crops) -> Features:
        features: Features = self._model(crops_NSS3)[0]
        return features
