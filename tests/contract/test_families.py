"""Every family of timm: a network of it is a backbone, or is refused with the reason.

The families and their smallest networks stand in docs/backbones.md. All are compared with timm's registry;
some of each kind of last layer and of pooling compute timm's own features, and all of them with
`FIELDMARK_ALL_FAMILIES=1` (some minutes).
"""

from __future__ import annotations

import copy
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fieldmark import models
from fieldmark.models import timm
from fieldmark.models.runtime import graphs
from fieldmark.utils.errors import InputError

TABLE = (Path(__file__).resolve().parents[2] / "docs" / "backbones.md").read_text(encoding="utf-8")
_ROW = r"^\| `(\w+)` \| (\d+) \| `([\w.]+)` \| ([\d.]+) \| (\d+) \| (\d+) \| .* \|$"
ROWS = re.findall(_ROW, TABLE, re.MULTILINE)
DRAWN = (
    *("convnext", "crossvit", "deit", "dla", "efficientvim", "eva", "hiera", "levit", "naflexvit"),
    *("swin_transformer", "vision_transformer", "volo"),
)
OTHERS = ("metaformer",)
"""Families whose last layer has a hidden layer before it, which timm removes as well: ours gives that one."""
EVERY = bool(os.environ.get("FIELDMARK_ALL_FAMILIES"))
TRIED = [row for row in ROWS if row[0] not in OTHERS and (EVERY or row[0] in DRAWN)]
HEADLESS = ("vit_small_patch16_dinov3", "convnext_tiny.dinov3_lvd1689m", "vit_base_patch16_siglip_224")


def test_every_family_of_the_registry_is_in_the_table() -> None:
    library = timm.load_library()
    registered = set(library.models._registry._model_to_module.values())
    assert {row[0] for row in ROWS} == registered


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("qwen3_vit_88m_enc", "it gives a sequence of tokens, no feature vector"),
        ("vit_base_patch16_sapiens2", "it needs square colour photos"),
    ],
)
def test_a_network_that_cannot_be_used_is_refused_with_the_reason(name: str, why: str) -> None:
    with pytest.raises(InputError, match=f"{name} cannot be a backbone: {why}"):
        models.architecture(name)


@pytest.mark.parametrize("row", TRIED, ids=lambda row: row[0])
def test_the_features_are_those_of_timm(row: tuple[str, ...]) -> None:
    backbone = models.load(timm.PREFIX + row[2], weights="random")
    facts = backbone.architecture
    assert (facts.feature_dim, facts.input_size) == (int(row[4]), int(row[5]))
    crops = torch.from_numpy(graphs.sample(facts.input_size, 1))
    with torch.inference_mode():
        found = backbone.trunk(crops)
        theirs: Any = copy.deepcopy(getattr(backbone.network, timm.INSIDE, backbone.network))
        theirs.reset_classifier(0)
        expected = theirs.eval()(backbone.trunk.pixels(crops))
    assert found.shape == (1, facts.feature_dim)
    np.testing.assert_allclose(found.numpy(), expected.flatten(1).numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", HEADLESS)
def test_networks_without_classes_are_described(name: str) -> None:
    facts = models.architecture(name)
    assert facts.last_layer_path == timm.LAST
    assert facts.last_layer.startswith("None of its own")
    assert facts.giga_macs > 1


def test_weights_of_timm_fill_a_network_that_got_a_last_layer(tmp_path: Path) -> None:
    """The file has timm's own names, without the module that the network is in."""
    from safetensors.torch import save_file

    name = "deit_tiny_distilled_patch16_224"
    made = timm.load_library().create_model(name, pretrained=False)
    save_file(
        {key: value.contiguous() for key, value in made.state_dict().items()}, tmp_path / "w.safetensors"
    )
    backbone = models.load(name, weights=tmp_path / "w.safetensors")
    assert backbone.weights_info.complete
    assert set(backbone.weights_info.ignored) == {
        f"network.{head}.{each}" for head in ("head", "head_dist") for each in ("weight", "bias")
    }
    inside = backbone.network.get_submodule(timm.INSIDE)
    for key, value in inside.state_dict().items():
        assert torch.equal(value, made.state_dict()[key])


@pytest.mark.parametrize("name", ["deit_tiny_distilled_patch16_224", "dla46_c"])
def test_any_last_layer_can_be_fine_tuned(name: str) -> None:
    """Also one of several, none, and one that is a convolution."""
    backbone = models.load(name, weights="random")
    model = backbone.trainable(5, 0)
    crops = torch.from_numpy(graphs.sample(224, 2))
    assert model(crops).shape == (2, 5)
    trained, linear = backbone.trained(model)
    assert linear.weight.shape == (5, backbone.architecture.feature_dim)
    assert trained.key == backbone.key  # nothing was trained yet
    with torch.inference_mode():
        torch.testing.assert_close(linear(trained.trunk(crops)), model.eval()(crops))
