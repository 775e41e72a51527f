"""PyTorch itself, as the network is written: the reference that the other engines must agree with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fieldmark.models.runtime.base import BATCH, in_batches
from fieldmark.utils.typing import ByteArray, FloatArray

if TYPE_CHECKING:
    from fieldmark.models.backbone import Backbone


class TorchEngine:
    """The trunk in inference mode, its tensors laid out channels last, on the CPU."""

    name = "torch"

    def __init__(self, backbone: Backbone, batch: int = BATCH) -> None:
        import torch

        # In place: the values stay, only their order in memory changes.
        self._trunk = backbone.trunk.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._batch = batch

    def __call__(self, crops_NSS3: ByteArray) -> FloatArray:
        """ByteArray, uint8 (N, S, S, 3), to features, float32 (N, D)."""
        return in_batches(self._run, crops_NSS3, self._batch)

    def _run(self, crops_NSS3: ByteArray) -> FloatArray:
        import torch

        if not crops_NSS3.flags.writeable:
            crops_NSS3 = crops_NSS3.copy()  # PyTorch warns of memory that it could not write to
        with torch.inference_mode():
            features: FloatArray = self._trunk(torch.from_numpy(crops_NSS3)).numpy()
        return features
