"""What every entry of BACKBONES keeps to, with random weights.

Crops of 80 pixels: the networks take any size from 75 up, and what is checked does not depend on
it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from fieldmark.models import BACKBONES, Backbone, load, timm, torchvision
from fieldmark.models.network import giga_macs
from fieldmark.utils.random import generator

SIDE, COUNT, CLASSES = 80, 2, 7


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Crops this small gain nothing from more threads, and lose much where cores are shared."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=list(BACKBONES))
def backbone(request: pytest.FixtureRequest) -> Iterator[Backbone]:
    return load(request.param, weights="random", seed=5)


@pytest.fixture(scope="module")
def crops() -> torch.Tensor:
    pixels = generator(1, "contract").integers(0, 256, (COUNT, SIDE, SIDE, 3), dtype=np.uint8)
    return torch.from_numpy(pixels)


@torch.inference_mode()
def test_trunk(backbone: Backbone, crops: torch.Tensor) -> None:
    backbone.trunk.train()  # must have no effect
    features = backbone.trunk(crops)
    assert features.shape == (COUNT, backbone.architecture.feature_dim)
    assert features.dtype == torch.float32
    assert bool(features.isfinite().all())
    assert float(features.std(dim=0).max()) > 0  # crops give different features
    assert torch.equal(features, backbone.trunk(crops))
    alone = backbone.trunk(crops[1:2])[0]
    assert float((alone - features[1]).norm() / features[1].norm()) < 1e-5


@torch.inference_mode()
def test_literal_replaces_the_stated_layer_and_no_other(backbone: Backbone, crops: torch.Tensor) -> None:
    facts = backbone.architecture
    model = backbone.literal(CLASSES, seed=3).eval()
    assert f"`{facts.last_layer_path}`" in facts.last_layer
    assert model.network.get_submodule(facts.last_layer_path) is model.last_layer

    seen: list[torch.Tensor] = []
    model.last_layer.register_forward_pre_hook(lambda layer, given: seen.append(given[0]))
    assert model(crops).shape == (COUNT, CLASSES)
    features = seen[0].mean((2, 3)) if seen[0].ndim == 4 else seen[0]
    assert torch.allclose(features, backbone.trunk(crops), rtol=1e-4, atol=1e-6)

    last = {id(parameter) for parameter in model.last_layer.parameters()}
    originals = dict(backbone.network.named_parameters())
    for name, parameter in model.network.named_parameters():
        if id(parameter) in last:
            assert name.startswith(facts.last_layer_path + ".")
            assert CLASSES in parameter.shape
        else:
            assert torch.equal(parameter, originals[name])
            assert parameter is not originals[name]


def test_account_of_random_weights(backbone: Backbone) -> None:
    account = backbone.weights_info
    assert not account.complete
    assert not account.pretrained
    assert account.filled == 0 < account.total == len(account.random)
    assert "random (seed 5)" in account.summary


def test_facts(backbone: Backbone) -> None:
    facts = backbone.architecture
    assert facts.licence
    assert facts.url.startswith("https://")
    library = torchvision if facts.library == "torchvision" else timm
    with torch.device("meta"):
        network = library.build(facts)
    assert giga_macs(network, facts.input_size) == pytest.approx(facts.giga_macs, rel=0.01)


def test_every_way_to_train_finds_its_layers(backbone: Backbone, crops: torch.Tensor) -> None:
    """All layers: the last one fastest. Adapters: an update changes them and nothing else."""
    from fieldmark.training.finetune import FineTuning, layers
    from fieldmark.training.finetune.step import Updater

    model = backbone.trainable(CLASSES, seed=3)
    every = FineTuning("all", layer_decay=0.9)
    layers.set_trainable(model, every)
    groups = layers.parameter_groups(model, every)
    rates = {id(each): group["lr_scale"] for group in groups for each in group["params"]}
    assert set(rates) == {id(each) for each in model.parameters()}
    assert {rates[id(each)] for each in model.last_layer.parameters()} == {1.0}
    assert min(rates.values()) < 0.9

    update = Updater(model, FineTuning("adapters", learning_rate=1e-2), steps=2)
    layers.set_modes(model, update.recipe)
    learns = {name for name, each in model.named_parameters() if each.requires_grad}
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    update(crops, torch.tensor([0, 1]), 0)
    after = model.state_dict()
    assert {name for name in after if not torch.equal(after[name], before[name])} <= learns
    last = [f"network.{model.last_layer_path}.{name}" for name in ("weight", "bias")]
    assert all(not torch.equal(after[name], before[name]) for name in last)
    of_trunk = sum(each.numel() for each in model.network.parameters() if each.requires_grad)
    assert of_trunk < 0.1 * sum(each.numel() for each in model.network.parameters())


def test_low_rank_updates_merge_into_the_same_network(backbone: Backbone, crops: torch.Tensor) -> None:
    from fieldmark.training.finetune import FineTuning, low_rank
    from fieldmark.training.finetune.step import Updater

    model = backbone.trainable(CLASSES, seed=3)
    form = {name: tensor.shape for name, tensor in model.state_dict().items()}
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    update = Updater(model, FineTuning("low-rank", learning_rate=1e-2), steps=2)
    for step in range(2):  # the first moves U alone from zero, which D needs to learn
        update(crops, torch.tensor([0, 1]), step)
    low_rank.merge(model)
    after = model.state_dict()
    assert {name: tensor.shape for name, tensor in after.items()} == form
    changed = {name for name in form if not torch.equal(after[name], before[name])}
    assert len(changed - {f"network.{model.last_layer_path}.{n}" for n in ("weight", "bias")}) > 3
    assert all(name.endswith("weight") or model.last_layer_path in name for name in changed)
