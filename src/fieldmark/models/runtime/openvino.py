"""OpenVINO on the CPU, where it is installed (`pip install fieldmark[openvino]`)."""

from __future__ import annotations

import functools
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fieldmark.models.runtime.base import BATCH, Streams, piece_for
from fieldmark.utils.cpu import cores
from fieldmark.utils.errors import InputError, StoreError
from fieldmark.utils.typing import ByteArray, FloatArray

if TYPE_CHECKING:
    import openvino


def installed() -> bool:
    """Whether OpenVINO can be imported."""
    return find_spec("openvino") is not None


@functools.cache
def _core() -> openvino.Core:
    """The one core of this process, which is never given back.

    Each core moves the stack that signals are handled on and puts the one it found back when it ends.
    Two that end in the order in which they came leave the stack of the first behind, which is gone by
    then, and the next signal that Python hears (Ctrl-C, a child that ends) kills the process.

    The first array that its bindings see makes them look up numpy, under a lock. Two threads whose
    first arrays come at once can wait for each other for ever, so the first is shown here, by one.
    """
    import openvino

    _ = openvino.Tensor(np.zeros(1, np.uint8)).data
    return openvino.Core()


class OpenVinoEngine:
    """A converted trunk in OpenVINO, in single precision, as many streams as there are cores.

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
        # Left to itself OpenVINO computes in bfloat16 on processors that have it, which is further
        # from the other engines than features may be.
        options = {
            "INFERENCE_PRECISION_HINT": "f32",
            "NUM_STREAMS": cores(),
            "INFERENCE_NUM_THREADS": cores(),
            "ENABLE_CPU_PINNING": False,  # a pinned thread cannot leave a core that decodes photos
        }
        try:
            self._model = _core().compile_model(str(path), "CPU", options)
        except RuntimeError as error:
            raise StoreError(f"{path} is not a graph that can be run: delete the file.") from error
        self._request = threading.local()  # a request is used by one thread
        self._streams = Streams(self._run, batch, piece=piece_for(path))

    def __call__(self, crops_NSS3: ByteArray) -> FloatArray:
        """ByteArray, uint8 (N, S, S, 3), to features, float32 (N, D)."""
        return self._streams(crops_NSS3)

    def _run(self, crops_NSS3: ByteArray) -> FloatArray:
        if not hasattr(self._request, "own"):
            self._request.own = self._model.create_infer_request()
        features: FloatArray = self._request.own.infer(crops_NSS3)[0].copy()
        return features
