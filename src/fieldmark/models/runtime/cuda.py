"""Run the trunk on a GPU, NVIDIA's or Apple's, through PyTorch, in batches of one fixed size.

Not yet run on a GPU: what does not depend on the device is tested on the CPU.

On NVIDIA's, convolutions run with the channels last (for tensor cores), in the tier `half` in float16, as
one captured CUDA graph a batch; two slots alternate, so that the crops of one batch are copied while the
batch before is computed.
Photos are decoded on the CPU: NVIDIA's JPEG decoder gives other pixels than the tier `exact`.
"""

from __future__ import annotations

import copy
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fieldmark.models.runtime.base import check
from fieldmark.models.runtime.tiers import no_half
from fieldmark.utils.errors import InputError
from fieldmark.utils.typing import ByteArray, FloatArray

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from fieldmark.models.backbone import Backbone

BATCH = 256
# The largest distance of a feature vector from the processor's, relative to its length: in float32, which is
# TF32 in convolutions, and in float16, where a network with a larger distance is refused.
TOLERANCE = 5e-3


def available(device: str = "cuda") -> bool:
    """Return whether PyTorch can use a GPU."""
    import torch

    return torch.cuda.is_available() if device == "cuda" else torch.backends.mps.is_available()


class CudaEngine:
    """The trunk on a GPU.

    Args:
        backbone: what to run.
        batch: the size of the captured batch; fewer crops are padded with black ones.
        device: "cuda"; "mps" and "cpu" compute the same without graph, streams and pinned memory.

    Raises:
        InputError: PyTorch cannot use a GPU, or the tier is `half` and float16 is not accurate enough.
    """

    name = "cuda"
    tolerance = TOLERANCE

    def __init__(self, backbone: Backbone, batch: int = BATCH, device: str = "cuda") -> None:
        if device != "cpu" and not available(device):
            raise InputError(
                f"the engine {device} needs a GPU that PyTorch can use, and there is none: use the engine "
                "auto."
            )
        import torch

        self._device = torch.device(device)
        self._on_gpu = self._device.type == "cuda"
        self._batch, self._lock = batch, threading.Lock()
        self.preferred = 4 * batch  # crops of a call, so that copying and computing overlap
        trunk = copy.deepcopy(backbone.trunk)
        self._trunk = trunk.to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        side = backbone.architecture.input_size
        self._shape = (batch, side, side, 3)
        self.compute_dtype = "float32"
        if backbone.tier.name == "half" and not self._takes_half(side):
            raise no_half(self.name, "the network is beyond what float16 can hold")
        self._slots = [self._slot(), self._slot()]
        self._copying = torch.cuda.Stream() if self._on_gpu else None  # type: ignore[no-untyped-call]
        self._replay: Callable[[torch.Tensor], torch.Tensor] = self._forward
        if self._on_gpu:
            self._capture()

    def __call__(self, crops_NSS3: ByteArray) -> FloatArray:
        """Compute features, float32 (N, D), of crops, uint8 (N, S, S, 3)."""
        import torch

        check(crops_NSS3)
        if not len(crops_NSS3):
            return self(np.zeros((1, *self._shape[1:]), np.uint8))[:0]
        parts: list[FloatArray] = []
        waiting: list[_Slot] = []
        with self._lock, torch.inference_mode():
            for number, at in enumerate(range(0, len(crops_NSS3), self._batch)):
                if len(waiting) == len(self._slots):
                    parts.append(waiting.pop(0).collect())
                slot = self._slots[number % len(self._slots)]
                self._start(slot, crops_NSS3[at : at + self._batch])
                waiting.append(slot)
            parts += [slot.collect() for slot in waiting]
        return np.concatenate(parts)

    def _start(self, slot: _Slot, crops: ByteArray) -> None:
        """Start copying and computing; return before either is done."""
        slot.count = len(crops)
        host = slot.pinned.numpy()
        host[: len(crops)] = crops
        host[len(crops) :] = 0
        if not self._on_gpu:
            slot.result.copy_(self._replay(slot.pinned.to(self._device)))
            return
        import torch

        with torch.cuda.stream(self._copying):
            slot.there.copy_(slot.pinned, non_blocking=True)
            slot.copied.record()
        computing = torch.cuda.current_stream()
        computing.wait_event(slot.copied)
        slot.result.copy_(self._replay(slot.there), non_blocking=True)
        slot.done.record(computing)

    def _forward(self, crops: torch.Tensor) -> torch.Tensor:
        import torch

        kind, half = self._device.type, self.compute_dtype == "float16"
        # Autocast's own cache of weights must not outlive a capture.
        with torch.autocast(kind, dtype=torch.float16, enabled=half, cache_enabled=False):
            features = self._trunk(crops)
        result: torch.Tensor = features.float()
        return result

    def _takes_half(self, side: int) -> bool:
        """Compute in float16 from now on; return whether that is within the tolerance for this network."""
        import torch

        from fieldmark.models.runtime import graphs

        crops = torch.from_numpy(graphs.sample(side, 4)).to(self._device)
        found = {}
        with torch.inference_mode():
            for compute_dtype in ("float32", "float16"):
                self.compute_dtype = compute_dtype
                found[compute_dtype] = self._forward(crops).cpu().numpy()
        error = graphs.relative_error(found["float16"], found["float32"])
        return error <= self.tolerance  # not for NaN either

    def _slot(self) -> _Slot:
        import torch

        gpu = self._on_gpu
        pinned = torch.zeros(self._shape, dtype=torch.uint8, pin_memory=gpu)
        with torch.inference_mode():
            dim = self._forward(pinned[:1].to(self._device)).shape[1]
        return _Slot(
            pinned=pinned,
            there=torch.empty_like(pinned, device=self._device) if gpu else pinned,
            result=torch.empty((self._batch, dim), pin_memory=gpu),
            copied=torch.cuda.Event() if gpu else None,  # type: ignore[no-untyped-call]
            done=torch.cuda.Event() if gpu else None,  # type: ignore[no-untyped-call]
        )

    def _capture(self) -> None:
        """Capture the CUDA graph of one batch; a network that cannot be captured runs without."""
        import torch

        static = torch.zeros(self._shape, dtype=torch.uint8, device=self._device)
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.inference_mode(), torch.cuda.stream(aside):
            for _ in range(3):  # warm up cuDNN and the allocator
                self._forward(static)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.inference_mode(), torch.cuda.graph(graph):
                output = self._forward(static)
        except RuntimeError:
            torch.cuda.synchronize()
            return

        def replay(crops: torch.Tensor) -> torch.Tensor:
            static.copy_(crops, non_blocking=True)
            graph.replay()
            return output

        self._replay = replay


class MpsEngine(CudaEngine):
    """The trunk on the GPU of an Apple computer."""

    name = "mps"

    def __init__(self, backbone: Backbone, batch: int) -> None:
        super().__init__(backbone, batch, "mps")


@dataclass
class _Slot:
    """The buffers of one batch: crops in pinned memory and on the GPU, features in pinned memory."""

    pinned: torch.Tensor
    there: torch.Tensor
    result: torch.Tensor
    copied: Any
    done: Any
    count: int = 0

    def collect(self) -> FloatArray:
        """Wait for the features, float32 (count, D)."""
        if self.done is not None:
            self.done.synchronize()
        features: FloatArray = self.result[: self.count].numpy().copy()
        return features
