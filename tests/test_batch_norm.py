"""The statistics of BatchNorm in a network that was made smaller are those of what is left."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.test_finetune import crops, tiny
from torch import nn

from fieldmark.models.network import ClassifierNetwork
from fieldmark.training.finetune import batch_norm, rounds
from fieldmark.training.finetune.batch_norm import adopt_statistics, set_statistics
from fieldmark.training.finetune.config import FineTuning

HOW = FineTuning("all", epochs=1, batch_size=8, learning_rate=1e-4, frozen_statistics=True)


def norm_of(network: ClassifierNetwork) -> nn.BatchNorm2d:
    (found,) = (each for each in network.modules() if isinstance(each, nn.BatchNorm2d))
    return found


def inputs_of(network: ClassifierNetwork, pixels: np.ndarray) -> torch.Tensor:
    """What the BatchNorm of a network is given, (N, channels, H, W)."""
    seen: list[torch.Tensor] = []
    hook = norm_of(network).register_forward_hook(lambda _layer, given, _out: seen.append(given[0]))
    with torch.no_grad():
        network(torch.from_numpy(pixels))
    hook.remove()
    return seen[0]


@pytest.mark.parametrize("side", [24, 28])
def test_they_are_those_of_the_central_part_of_training_photos(side: int) -> None:
    network, train = tiny().train(), crops(32, side)
    norm_of(network).running_mean.fill_(9)
    set_statistics(network, train, 24, HOW)
    margin = (side - 24) // 2
    pixels = np.ascontiguousarray(train.pixels[:, margin : margin + 24, margin : margin + 24])
    found, given = norm_of(network), inputs_of(network, pixels)
    torch.testing.assert_close(found.running_mean, given.mean((0, 2, 3)), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.running_var, given.var((0, 2, 3)), atol=1e-2, rtol=0.05)
    assert found.momentum == 0.1
    assert not any(each.training for each in network.modules())


def test_adopted_statistics_are_those_of_the_photos_and_change_no_answer() -> None:
    network, train = tiny().train(), crops(32, 24)
    norm = norm_of(network)
    with torch.no_grad():
        norm.running_mean.fill_(9)
        norm.running_var.fill_(4)
        norm.weight.uniform_(-2, 2)
        norm.bias.uniform_(-2, 2)
        before = network.eval()(torch.from_numpy(train.pixels))
        adopt_statistics(network, train, 24, HOW)
        torch.testing.assert_close(network(torch.from_numpy(train.pixels)), before, atol=1e-4, rtol=1e-4)
        given = inputs_of(network, train.pixels)
        torch.testing.assert_close(norm.running_mean, given.mean((0, 2, 3)), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(norm.running_var, given.var((0, 2, 3), correction=0), atol=1e-3, rtol=1e-3)
        # So computing them anew, where nothing was taken away, changes hardly anything.
        set_statistics(network, train, 24, HOW)
        after = network(torch.from_numpy(train.pixels))
    assert float((after - before).norm() / before.norm()) < 0.05


@pytest.mark.parametrize(("photos", "batch_size"), [(1, 8), (9, 1)])
def test_batches_of_one_photo_change_nothing(photos: int, batch_size: int) -> None:
    network, train = tiny(), crops(photos, 24)
    norm = norm_of(network)
    norm.running_mean.fill_(9)
    before = {name: each.clone() for name, each in network.state_dict().items()}
    for change in (adopt_statistics, set_statistics):
        change(network, train, 24, replace(HOW, batch_size=batch_size))
    assert all(torch.equal(each, before[name]) for name, each in network.state_dict().items())


def test_parts_of_batches_single_photos_and_networks_without_batch_norm_are_passed_over() -> None:
    one, nine = tiny(), tiny()
    before = norm_of(one).running_mean.clone()
    set_statistics(one, crops(1, 24), 24, HOW)
    assert torch.equal(norm_of(one).running_mean, before)
    set_statistics(nine, crops(9, 24), 24, HOW)
    assert int(norm_of(nine).num_batches_tracked) == 1  # eight photos, and not the ninth alone


def test_not_more_photos_are_taken_than_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_norm, "PHOTOS", 16)
    network = tiny()
    set_statistics(network, crops(40, 24), 24, HOW)
    assert int(norm_of(network).num_batches_tracked) == 2


@pytest.mark.parametrize("frozen", [True, False])
def test_a_pruned_network_gets_the_statistics_of_what_is_left(frozen: bool, tmp_path: Path) -> None:
    network, train, val = tiny(), crops(32, 24), crops(9, 24, 100)
    norm_of(network).running_mean.fill_(9)  # of pretraining
    how = replace(HOW, frozen_statistics=frozen, learning_rate=1e-9)
    rounds.train_in_rounds(network, train, val, how, rounds.zeros(network, 0.5), tmp_path / "p.safetensors")
    found, given = norm_of(network), inputs_of(network.eval(), train.pixels)
    distance = float((found.running_mean - given.mean((0, 2, 3))).abs().max())
    assert distance < 0.01 if frozen else distance > 0.01  # else training moves them by itself
