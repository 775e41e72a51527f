"""The interface of engines, what they share, and PyTorch, the reference for the others."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from fieldmark.models.runtime.tiers import HALF_TOLERANCE, no_half
from fieldmark.utils.cpu import cores
from fieldmark.utils.typing import ByteArray, FloatArray

if TYPE_CHECKING:
    from fieldmark.models.backbone import Backbone

BATCH = 32  # crops run at once
_LARGE_WEIGHTS = 128 * 2**20  # bytes
PIECE = 4  # crops that a thread runs at once: their feature maps stay in its core's cache


class Engine(Protocol):
    """Runs a backbone's trunk. It may be called from several threads at a time."""

    name: str

    def __call__(self, crops_NSS3: ByteArray) -> FloatArray:
        """Compute features, float32 (N, D), of crops, uint8 (N, S, S, 3); any N."""
        ...


def check(crops_NSS3: ByteArray) -> None:
    """Raise TypeError for an array that is not a batch of crops."""
    if crops_NSS3.dtype != np.uint8 or crops_NSS3.ndim != 4:
        raise TypeError(f"crops are uint8 (N, S, S, 3), not {crops_NSS3.dtype} {crops_NSS3.shape}")


def in_batches(run: Callable[[ByteArray], FloatArray], crops_NSS3: ByteArray, batch: int) -> FloatArray:
    """Run at most `batch` crops at a time, so that memory does not grow with N."""
    check(crops_NSS3)
    if not len(crops_NSS3):  # only a run gives the length of a vector
        return run(np.zeros((1, *crops_NSS3.shape[1:]), np.uint8))[:0]
    parts = [run(part(crops_NSS3, at, batch)) for at in range(0, len(crops_NSS3), batch)]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def piece_for(graph: Path) -> int:
    """Return how many crops a thread should run at once, by the size of the network's weights.

    Large dense layers (AlexNet's are 220 MB) are read from memory once a piece; for other networks the
    feature maps count: with 4 instead of 16 crops AlexNet loses a fifth of its rate and ShuffleNet gains one.
    """
    return 4 * PIECE if graph.stat().st_size > _LARGE_WEIGHTS else PIECE


def part(crops_NSS3: ByteArray, start: int, count: int) -> ByteArray:
    """Return some of the crops, contiguous in memory."""
    return np.ascontiguousarray(crops_NSS3[start : start + count])


class Streams:
    """Runs a network in several threads (None: one a core), each on crops of its own.

    Threads that share one crop wait for each other in every layer, longest while a decoder uses one of
    the cores. Threads with their own crops wait once a call, and their few crops (`piece`) stay in the cache:
    a sixth less time for a small network. A subclass says how some crops, at most `batch`, are run.
    """

    def __init__(self, batch: int, threads: int | None = None, piece: int = PIECE) -> None:
        self._threads = threads or cores()
        self._piece = min(piece, batch)
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="engine")  # idle: no thread

    def _run(self, crops_NSS3: ByteArray) -> FloatArray:
        raise NotImplementedError

    def __call__(self, crops_NSS3: ByteArray) -> FloatArray:
        """Compute features, float32 (N, D), of crops, uint8 (N, S, S, 3)."""
        check(crops_NSS3)
        piece = max(1, min(self._piece, -(-len(crops_NSS3) // self._threads)))
        starts = range(0, len(crops_NSS3), piece)
        if len(starts) <= 1:
            return in_batches(self._run, crops_NSS3, piece)
        return np.concatenate([*self._pool.map(lambda at: self._run(part(crops_NSS3, at, piece)), starts)])


def torch_has_half() -> bool:
    """Return whether PyTorch computes in bfloat16 on this processor."""
    import torch

    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


class TorchEngine:
    """The trunk in inference mode, channels last, on the CPU; in bfloat16 where the tier is `half`.

    Raises:
        InputError: the tier is `half`, and this processor has no bfloat16.
    """

    name = "torch"

    def __init__(self, backbone: Backbone, batch: int = BATCH) -> None:
        import torch

        self._half = backbone.tier.name == "half"
        if self._half:
            if not torch_has_half():
                raise no_half(self.name)
            self.tolerance = HALF_TOLERANCE
        # In place: only the order in memory changes.
        self._trunk = backbone.trunk.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._batch = batch

    def __call__(self, crops_NSS3: ByteArray) -> FloatArray:
        """Compute features, float32 (N, D), of crops, uint8 (N, S, S, 3)."""
        return in_batches(self._run, crops_NSS3, self._batch)

    def _run(self, crops_NSS3: ByteArray) -> FloatArray:
        import torch

        if not crops_NSS3.flags.writeable:
            crops_NSS3 = crops_NSS3.copy()  # PyTorch warns about read-only memory
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=self._half):
            features: FloatArray = self._trunk(torch.from_numpy(crops_NSS3)).float().numpy()
        return features
