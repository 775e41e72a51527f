"""Every kind of image tower of open_clip: features as the library's own, and the same from each engine.

`FIELDMARK_ALL_FAMILIES=1` takes more towers, and describes every network that open_clip lists.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
import torch

from fieldmark import models
from fieldmark.models import runtime
from fieldmark.utils.errors import InputError

models.import_torchvision()
open_clip = pytest.importorskip("open_clip", reason="the extra open-clip is not installed")

ALL = "FIELDMARK_ALL_FAMILIES" in os.environ
FEW = {"its own transformer": "ViT-S-32-alt", "a transformer of timm": "PE-Core-T-16-384"}
MORE = {
    "attention pooling (CoCa)": "coca_base",
    "a modified ResNet": "RN50",
    "a convolutional network of timm": "MobileCLIP2-S0",
}
TOWERS = {**FEW, **MORE} if ALL else FEW


@pytest.mark.parametrize("name", TOWERS.values(), ids=TOWERS)
def test_features_are_the_librarys_and_those_of_each_engine(name: str) -> None:
    backbone = models.load(f"open_clip:{name}", weights="random", seed=1)
    facts, random = backbone.architecture, np.random.default_rng(0)
    side = facts.input_size
    crops = random.integers(0, 256, (2, side, side, 3), np.uint8)
    theirs: Any = open_clip.create_model(name).eval()
    theirs.visual.load_state_dict(backbone.network.get_submodule("network.inner").state_dict())
    with torch.inference_mode():
        pixels = backbone.trunk.pixels(torch.from_numpy(crops))
        expected = theirs.encode_image(pixels, normalize=True).numpy()
        ours = backbone.trunk(torch.from_numpy(crops)).numpy()
    assert ours.shape == (2, facts.feature_dim)
    np.testing.assert_allclose(ours, expected, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-5)
    for engine in ("torch", "onnxruntime"):
        found = runtime.engine(backbone, engine)(crops)
        np.testing.assert_allclose(found, ours, atol=1e-3 * np.abs(ours).max())


def test_a_name_that_open_clip_does_not_have_is_refused_with_those_near_it() -> None:
    with pytest.raises(InputError, match=r"near it: .*ViT-B-16"):
        models.architecture("open_clip:ViT-B-15")
    with pytest.raises(InputError, match="no weights 'nothing' of ViT-B-16"):
        models.architecture("open_clip:ViT-B-16.nothing")


@pytest.mark.skipif(not ALL, reason="minutes; FIELDMARK_ALL_FAMILIES=1")
def test_every_network_is_described() -> None:
    refused = []
    for name in open_clip.list_models():
        try:
            facts = models.architecture(f"open_clip:{name}")
        except InputError as error:
            refused.append(f"{name}: {error}")
            continue
        assert facts.feature_dim == open_clip.get_model_config(name)["embed_dim"], name
        assert facts.giga_macs > 0, name
    assert not refused, "\n".join(refused)
