"""ONNX Runtime on the CPU, without importing PyTorch."""

from __future__ import annotations

from pathlib import Path

from fieldmark.models.runtime.base import BATCH, Streams, piece_for
from fieldmark.utils.errors import StoreError
from fieldmark.utils.typing import ByteArray, FloatArray


class OnnxEngine(Streams):
    """A converted trunk in ONNX Runtime: one session, run by several threads at a time.

    Args:
        path: the graph.
        batch: the largest number of crops run at once.
        threads: how many threads; None: one a core.

    Raises:
        StoreError: the file is not a graph that ONNX Runtime can load.
    """

    name = "onnxruntime"

    def __init__(self, path: Path, batch: int = BATCH, threads: int | None = None) -> None:
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
