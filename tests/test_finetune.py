"""Training the network itself: where it equals training on kept features, and how it is resumed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fieldmark import models
from fieldmark.data.loader import LabelledCrops
from fieldmark.features.cache import Features
from fieldmark.features.labelled import LabelledFeatures
from fieldmark.heads.base import LinearHead
from fieldmark.heads.softmax import Epoch, Hyperparameters, Training, fit
from fieldmark.models import Architecture, Backbone
from fieldmark.models.network import ClassifierNetwork, Pixels, seeded
from fieldmark.training import finetune
from fieldmark.training.finetune import FineTuning
from fieldmark.training.finetune.checkpoint import TrainingState
from fieldmark.utils.choices import Transfer
from fieldmark.utils.errors import StoreError

CLASSES = 3


def crops(count: int, side: int, first: int = 0) -> LabelledCrops:
    """Crops whose class shows in their colour and their stripes."""
    rng = np.random.default_rng([first, side])
    labels = np.arange(count) % CLASSES
    stripes = np.sin(np.arange(side)[None] / (2.0 + labels[:, None])) * 60
    pixels = 90 + 30 * labels[:, None, None, None] + stripes[:, :, None, None]
    noisy = pixels + rng.normal(0, 25, (count, side, side, 3))
    ids = tuple(f"p{first + number}" for number in range(count))
    return LabelledCrops(noisy.clip(0, 255).astype(np.uint8), np.arange(count), labels, ids)


def tiny(seed: int = 0) -> ClassifierNetwork:
    """A network of a few thousand weights, with BatchNorm and dropout, that trains at once."""
    facts = Architecture(
        name="tiny",
        library="torchvision",
        feature_dim=12,
        input_size=24,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        last_layer="the last of a sequence",
        last_layer_path="6",
        giga_macs=0.0001,
        licence="none",
        url="",
    )
    with seeded(seed, "tiny"):
        network = nn.Sequential(
            nn.Conv2d(3, 12, 3, stride=2, bias=False),
            nn.BatchNorm2d(12),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(12, CLASSES),
        )
    return ClassifierNetwork(facts, network)


def state(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def changed(before: dict[str, torch.Tensor], network: nn.Module) -> set[str]:
    return {name for name, t in network.state_dict().items() if not torch.equal(t, before[name])}


def lively(name: str) -> Backbone:
    """A random network whose features are spread as a trained one's are, so that there is something
    to learn from: its BatchNorms take their statistics from some crops."""
    backbone = models.load(name, weights="random")
    norms = [m for m in backbone.network.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # the plain mean of what it sees
    backbone.network.train(bool(norms))
    with torch.inference_mode():
        backbone.network(Pixels(backbone.architecture)(torch.from_numpy(crops(9, 224).pixels)))
    backbone.network.eval()
    return backbone


def both_ways(
    backbone: Backbone, train: LabelledCrops, val: LabelledCrops
) -> tuple[list[Epoch], list[Epoch]]:
    """The curves of literal training of the last layer, and of training on kept features."""
    how = FineTuning("last", epochs=3, batch_size=8, learning_rate=3e-3, weight_decay=0.1, seed=5)
    network = backbone.literal(CLASSES, seed=5)
    layer = network.last_layer
    weight = layer.weight.detach().numpy().reshape(CLASSES, -1).T.copy()
    initial = LinearHead(weight, layer.bias.detach().numpy().copy())

    def kept(part: LabelledCrops) -> LabelledFeatures:
        with torch.inference_mode():
            features = backbone.trunk(torch.from_numpy(part.pixels)).numpy()
        return LabelledFeatures(Features.of(features), part.labels, part.ids)

    training = Training(epochs=3, batch_size=8, seed=5, standardise=False)
    cached = fit(kept(train), kept(val), CLASSES, training, Hyperparameters(3e-3, 0.1, initial=initial))
    literal, _ = finetune.finetune(network, train, val, how)
    return literal, list(cached.curve)


@pytest.mark.parametrize(("name", "count"), [("shufflenet_v2_x0_5", 36), ("densenet121", 9)])
def test_the_last_layer_literally_is_the_last_layer_on_kept_features(name: str, count: int) -> None:
    """A linear last layer without dropout before it: no augmentation, the same order and optimiser."""
    literal, cached = both_ways(lively(name), crops(count, 224), crops(6, 224, first=100))
    for one, other in zip(literal, cached, strict=True):
        assert one.train_loss == pytest.approx(other.train_loss, abs=1e-4)
        assert one.val_loss == pytest.approx(other.val_loss, abs=1e-4)
        assert one.val_error == other.val_error
    assert literal[-1].train_loss < literal[0].train_loss - 0.1  # there was something to be equal in


@pytest.mark.parametrize("name", ["squeezenet1_1", "alexnet"])
def test_the_two_differ_by_design_where_more_than_a_linear_layer_is_trained(name: str) -> None:
    """SqueezeNet has a ReLU between its convolution and the mean, AlexNet dropout before the layer."""
    literal, cached = both_ways(lively(name), crops(12, 224), crops(6, 224, first=100))
    assert abs(literal[0].train_loss - cached[0].train_loss) > 1e-4


def test_a_frozen_network_keeps_all_but_its_last_layer() -> None:
    backbone = models.load("shufflenet_v2_x0_5", weights="random")
    network = backbone.literal(CLASSES, seed=0)
    before, own = state(network), state(backbone.network)
    assert any("running_mean" in name for name in before)
    finetune.finetune(network, crops(6, 224), crops(3, 224), FineTuning("last", epochs=1))
    assert changed(before, network) == {"network.fc.weight", "network.fc.bias"}
    assert not changed(own, backbone.network)  # it was a copy that was trained


@pytest.mark.parametrize("transfer", ["all", "scratch"])
def test_training_all_layers_changes_all_layers(transfer: Transfer) -> None:
    network = tiny()
    before = state(network)
    finetune.finetune(network, crops(12, 24), crops(6, 24), FineTuning(transfer, epochs=1))
    assert changed(before, network) == set(before)


class Cut(Exception):
    """The end of a process, for a test."""


def cut_after(epochs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let training die after so many epochs, when the state is kept and nothing else is done."""
    keep = TrainingState.after_epoch

    def dying(self: TrainingState, entry: Epoch) -> None:
        keep(self, entry)
        if len(self.curve) == epochs:
            raise Cut

    monkeypatch.setattr(TrainingState, "after_epoch", dying)


@pytest.mark.parametrize("transfer", ["all", "low-rank", "last"])
@pytest.mark.parametrize("epochs", [1, 3])
def test_a_run_that_was_cut_off_goes_on_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, transfer: Transfer, epochs: int
) -> None:
    how = FineTuning(transfer, epochs=4, batch_size=5, learning_rate=1e-2, weight_decay=0.1)
    train, val, kept = crops(13, 24), crops(6, 24, first=50), tmp_path / "state.safetensors"
    whole = tiny()
    curve, _ = finetune.finetune(whole, train, val, how)
    with monkeypatch.context() as patch:
        cut_after(epochs, patch)
        with pytest.raises(Cut):
            finetune.finetune(tiny(), train, val, how, checkpoint=kept)
    again = tiny()
    resumed, _ = finetune.finetune(again, train, val, how, checkpoint=kept)
    assert resumed == curve
    assert not changed(state(whole), again)


def test_a_resumed_network_of_four_dimensions_is_the_same_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The layout of tensors in memory must not show in the numbers of a real network either."""
    backbone = models.load("shufflenet_v2_x0_5", weights="random")
    how = FineTuning("all", epochs=2, batch_size=3)
    train, val, kept = crops(6, 64), crops(3, 64, first=50), tmp_path / "state.safetensors"
    whole = backbone.literal(CLASSES, 0)
    curve, _ = finetune.finetune(whole, train, val, how)
    with monkeypatch.context() as patch:
        cut_after(1, patch)
        with pytest.raises(Cut):
            finetune.finetune(backbone.literal(CLASSES, 0), train, val, how, checkpoint=kept)
    again = backbone.literal(CLASSES, 0)
    assert finetune.finetune(again, train, val, how, checkpoint=kept)[0] == curve
    assert not changed(state(whole), again)


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    how, kept = FineTuning("all", epochs=2), tmp_path / "state.safetensors"
    train, val = crops(6, 24), crops(3, 24)
    curve, seconds = finetune.finetune(tiny(), train, val, how, checkpoint=kept)
    again = tiny()
    assert finetune.finetune(again, train, val, how, checkpoint=kept) == (curve, seconds)


@pytest.mark.parametrize("other", ["recipe", "photos", "labels", "classes"])
def test_the_state_of_another_run_is_not_taken_up(tmp_path: Path, other: str) -> None:
    how, kept = FineTuning("all", epochs=1), tmp_path / "state.safetensors"
    train, val = crops(6, 24), crops(3, 24)
    network = tiny()
    if other == "classes":
        network.network[6] = nn.Linear(12, CLASSES + 2)
    finetune.finetune(network, train, val, how, checkpoint=kept)
    if other == "recipe":
        how = replace(how, learning_rate=1e-2)
    if other == "photos":
        train = replace(train, ids=tuple(f"q{number}" for number in range(6)))
    if other == "labels":
        train = replace(train, labels=train.labels[::-1].copy())
    alone, _ = finetune.finetune(tiny(), train, val, how)
    beside, _ = finetune.finetune(tiny(), train, val, how, checkpoint=kept)
    assert beside == alone


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "foreign"])
def test_a_damaged_state_says_what_to_do(tmp_path: Path, damage: str) -> None:
    from safetensors.torch import save_file

    how, kept = FineTuning("all", epochs=1), tmp_path / "state.safetensors"
    finetune.finetune(tiny(), crops(6, 24), crops(3, 24), how, checkpoint=kept)
    whole = kept.read_bytes()
    kept.write_bytes({"cut": whole[: len(whole) // 2], "text": b"not a state"}.get(damage, b""))
    if damage == "foreign":
        save_file({"a": torch.zeros(2)}, kept)
    with pytest.raises(StoreError, match="delete it"):
        finetune.finetune(tiny(), crops(6, 24), crops(3, 24), how, checkpoint=kept)


def test_the_seed_decides_and_the_callers_random_numbers_stay_theirs() -> None:
    train, val, how = crops(12, 24), crops(6, 24), FineTuning("all", epochs=1, batch_size=4)
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first, _ = finetune.finetune(tiny(), train, val, how)
    assert torch.equal(torch.rand(3), expected)
    same, _ = finetune.finetune(tiny(), train, val, how)
    other, _ = finetune.finetune(tiny(), train, val, replace(how, seed=1))
    assert first == same != other


def test_without_a_photo_to_measure_on_it_trains_all_the_same(tmp_path: Path) -> None:
    """No validation photo is of a class that is learned: its curve has no number then."""
    network, none = tiny(), replace(crops(6, 24), rows=np.arange(0), labels=np.arange(0), ids=())
    before = state(network)
    how = FineTuning("all", epochs=2, batch_size=6)
    assert finetune.pace(network, crops(12, 24), none, how).seconds(how) > 0
    curve, _ = finetune.finetune(network, crops(12, 24), none, how, checkpoint=tmp_path / "state")
    assert changed(before, network)
    assert [each.to_dict()["val_loss"] for each in curve] == [None, None]
    again, _ = finetune.finetune(network, crops(12, 24), none, how, checkpoint=tmp_path / "state")
    assert [each.to_dict() for each in again] == [each.to_dict() for each in curve]


def test_photos_are_learned_at_the_size_they_are_measured_at() -> None:
    with pytest.raises(ValueError, match="training crops have 28 pixels, validation crops 24"):
        finetune.finetune(tiny(), crops(12, 28), crops(6, 24), FineTuning("all"))


def test_half_precision_is_near_single_precision() -> None:
    train, val, how = crops(12, 24), crops(6, 24), FineTuning("all", epochs=2, batch_size=4)
    single, _ = finetune.finetune(tiny(), train, val, how)
    half, _ = finetune.finetune(tiny(), train, val, replace(how, precision="bfloat16"))
    assert half[-1].val_loss == pytest.approx(single[-1].val_loss, abs=0.05)
    assert half != single


def test_scores_cover_every_photo_in_order() -> None:
    """More photos than a block and no multiple of it: nothing is dropped, nothing padded."""
    network, part, how = tiny(), crops(130, 24), FineTuning("all")
    scores = finetune.scores(network, part, how)
    assert scores.shape == (130, CLASSES)
    alone = finetune.scores(network, replace(part, rows=np.array([129]), ids=("p129",)), how)
    np.testing.assert_allclose(scores[129:], alone, atol=1e-5)
    loss, error = finetune.measure(scores, part.labels)
    log_p = scores - np.log(np.exp(scores).sum(1, keepdims=True))
    assert loss == pytest.approx(-log_p[np.arange(130), part.labels].mean(), abs=1e-5)
    assert error == pytest.approx((scores.argmax(1) != part.labels).mean())
