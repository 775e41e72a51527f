"""PyTorch: the reference for the other engines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fieldmark.models.runtime.base import BATCH, in_batches
from fieldmark.utils.typing import ByteArray, FloatArray

if TYPE_CHECKING:
    from fieldmark.models.backbone import Backbone


class TorchEngine:
    """The trunk in inference mode, channels last, on the CPU."""

    name = "torch"

    def __init__(self, backbone: Backbone, batch: int = BATCH) -> None:
        import torch

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
        with torch.inference_mode():
            features: FloatArray = self._trunk(torch.from_numpy(crops_NSS3)).numpy()
        return features
