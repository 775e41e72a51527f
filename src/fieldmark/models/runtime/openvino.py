"""OpenVINO on the CPU, where it is installed (`pip install fieldmark[openvino]`)."""

from __future__ import annotations

import functools
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fieldmark.models.runtime.base import BATCH, Streams, piece_for
from fieldmark.models.runtime.tiers import EXACT, HALF_TOLERANCE, Tier, no_half
from fieldmark.utils.cpu import cores
from fieldmark.utils.errors import InputError, StoreError
from fieldmark.utils.typing import ByteArray, FloatArray

if TYPE_CHECKING:
    import openvino


def installed() -> bool:
    """Return whether OpenVINO is installed."""
    return find_spec("openvino") is not None


@functools.cache
def _core() -> openvino.Core:
    """Return the only core of this process, which is never released.

    Each core replaces the signal stack and restores it at its end. Two cores that end in the order of their
    creation restore a freed stack, and the next signal (Ctrl-C, SIGCHLD) kills the process. The first array
    makes the bindings import numpy under a lock, which can deadlock two threads; so it is created here.
    """
    import openvino

    _ = openvino.Tensor(np.zeros(1, np.uint8)).data
    return openvino.Core()


def half() -> str | None:
    """Return the 16-bit type that this processor computes in: `bf16` or `f16`; None: in neither."""
    has = _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return next((name for name, called in (("bf16", "BF16"), ("f16", "FP16")) if called in has), None)


class OpenVinoEngine(Streams):
    """A converted trunk in OpenVINO, in float32, or in 16 bits where the tier is `half`; one stream a core.

    Raises:
        InputError: OpenVINO is not installed, or this processor has no 16 bits.
        StoreError: the file is not a graph that OpenVINO can load.
    """

    name = "openvino"

    def __init__(self, path: Path, batch: int = BATCH, tier: Tier = EXACT) -> None:
        if not installed():
            raise InputError(
                "the engine openvino is not installed: run pip install 'fieldmark[openvino]', or "
                "use the engine onnxruntime."
            )
        hint = "f32"  # its own default is bfloat16 where the processor has it
        if tier.name == "half":
            if (found := half()) is None:
                raise no_half(self.name)
            hint, self.tolerance = found, HALF_TOLERANCE
        options = {
            "INFERENCE_PRECISION_HINT": hint,
            "NUM_STREAMS": cores(),
            "INFERENCE_NUM_THREADS": cores(),
            "ENABLE_CPU_PINNING": False,  # a pinned thread cannot leave a core that decodes photos
        }
        try:
            self._model = _core().compile_model(str(path), "CPU", options)
        except RuntimeError as error:
            raise StoreError(f"{path} is not a graph that can be run: delete the file.") from error
        self._request = threading.local()  # a request belongs to one thread
        super().__init__(batch, piece=piece_for(path))

    def _run(self, crops_NSS3: ByteArray) -> FloatArray:
        if not hasattr(self._request, "own"):
            self._request.own = self._model.create_infer_request()
        features: FloatArray = self._request.own.infer(crops_NSS3)[0].copy()
        return features
