"""Tracing networks as ONNX graphs: operators that the exporter has no rule for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fieldmark.models import tracing


@pytest.mark.parametrize(
    "layer", [nn.RMSNorm(8), nn.RMSNorm(8, eps=0.25), nn.RMSNorm((4, 8), eps=1e-3, elementwise_affine=False)]
)
def test_root_mean_square_normalisation_is_traced(layer: nn.RMSNorm, tmp_path: Path) -> None:
    import onnxruntime

    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        crops = torch.randn(2, 4, 8)
        for weight in layer.parameters():
            weight.uniform_(0.5, 2)
    tracing.trace(layer.eval(), crops, tmp_path / "layer.onnx")
    [found] = onnxruntime.InferenceSession(tmp_path / "layer.onnx").run(None, {"crops": crops.numpy()})
    np.testing.assert_allclose(found, layer(crops).detach().numpy(), rtol=1e-5, atol=1e-6)
