"""What helps the training loop, part by part: recipes, augmentation, layers, state, plan."""

from __future__ import annotations

import math
import random
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from fieldmark import models
from fieldmark.data.loader import LabelledCrops
from fieldmark.heads.base import LinearHead
from fieldmark.models.network import ClassifierNetwork, seeded
from fieldmark.training.finetune import (
    FineTuning,
    augment,
    finetune,
    good,
    layers,
    low_rank,
    pace,
    plain,
    scores,
    set_last_layer,
)
from fieldmark.training.finetune.augment import BatchMixer, drawing
from fieldmark.training.finetune.checkpoint import TrainingState
from fieldmark.training.finetune.data import batches
from fieldmark.training.finetune.step import Updater, WeightAverage

CLASSES = 3


def crops(count: int, side: int, first: int = 0) -> LabelledCrops:
    rng = np.random.default_rng([first, side])
    labels = np.arange(count) % CLASSES
    pixels = 60 + 60 * labels[:, None, None, None] + rng.normal(0, 25, (count, side, side, 3))
    ids = tuple(f"p{first + number}" for number in range(count))
    return LabelledCrops(pixels.clip(0, 255).astype(np.uint8), np.arange(count), labels, ids)


def tiny(norm: bool = True, dropout: float = 0.0) -> ClassifierNetwork:
    """A network of two convolutions."""
    facts = replace(models.architecture("alexnet"), name="tiny", feature_dim=8, last_layer_path="6")
    with seeded(0, "tiny"):
        network = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2),
            nn.BatchNorm2d(8) if norm else nn.ReLU(),
            nn.Conv2d(8, 8, 3, groups=8),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(8, CLASSES),
        )
    return ClassifierNetwork(facts, network)


def state(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


# Recipes


def test_the_rate_rises_along_a_line_and_falls_along_a_cosine() -> None:
    how = FineTuning("all", warm_up=0.25)
    rates = [how.rate(step, 8) for step in range(8)]
    assert rates[:2] == [0.5, 1.0]
    assert rates[2:] == [0.5 * (1 + math.cos(math.pi * step / 6)) for step in range(6)]
    assert [FineTuning("all").rate(step, 4) for step in (0, 2)] == [1.0, pytest.approx(0.5)]


@given(st.integers(1, 60), st.integers(1, 5), st.integers(32, 320))
def test_sides_grow_over_the_epochs_and_stay_within_the_full_side(epochs: int, count: int, full: int) -> None:
    shares = tuple((number + 1) / count for number in range(count))
    how = FineTuning("all", epochs=epochs, sides=shares)
    sides = [how.side(epoch, full) for epoch in range(epochs)]
    assert sides == sorted(sides)
    assert all(8 <= side <= full + 4 for side in sides)


def test_the_plain_recipe_is_the_default_one() -> None:
    """The rows of the paper's study are made by it."""
    assert plain("all") == FineTuning("all")
    assert FineTuning("all").sides == (1.0,)
    assert not FineTuning("all").random_crop


# Augmentation


def test_drawing_gives_the_same_numbers_and_leaves_the_callers_alone() -> None:
    random.seed(5)
    np.random.seed(5)
    expected = random.random(), np.random.rand()
    random.seed(5)
    np.random.seed(5)

    def drawn(*context: object) -> tuple[float, float]:
        with drawing(0, *context):
            return random.random(), float(np.random.rand())

    assert drawn("a", 1) == drawn("a", 1) != drawn("a", 2)
    assert (random.random(), np.random.rand()) == expected


AUGMENTED = FineTuning("all", batch_size=4, random_crop=True, rand_augment="rand-m9-n2-mstd0.5-inc1", seed=3)


def test_batches_do_not_depend_on_the_number_of_workers_or_on_where_they_start() -> None:
    """Nor on which other photos there are: a photo's crop is its own."""
    photos = crops(10, 40)

    def all_of(workers: int, first: int = 0, epoch: int = 1) -> list[tuple[torch.Tensor, ...]]:
        return list(batches(photos, AUGMENTED, epoch, 32, first=first, workers=workers))

    alone = all_of(1)
    assert [len(labels) for _, labels in alone] == [4, 4, 2]
    assert alone[0][0].shape == (4, 32, 32, 3)
    for workers, first in ((4, 0), (3, 1)):
        for one, other in zip(alone[first:], all_of(workers, first), strict=True):
            assert torch.equal(one[0], other[0])
            assert torch.equal(one[1], other[1])
    assert not torch.equal(alone[0][0], all_of(1, epoch=2)[0][0])


def test_a_photo_is_augmented_by_seed_epoch_and_id() -> None:
    pixels = crops(1, 40).pixels[0]

    def of(how: FineTuning, epoch: int, photo_id: str) -> bytes:
        return augment.photo(pixels, 32, how, epoch, photo_id).tobytes()

    first = of(AUGMENTED, 0, "a")
    assert first == of(AUGMENTED, 0, "a")
    others = {of(AUGMENTED, 1, "a"), of(AUGMENTED, 0, "b"), of(replace(AUGMENTED, seed=4), 0, "a")}
    assert len(others | {first}) == 4


@pytest.mark.parametrize(("mixup", "cutmix"), [(1.0, 0.0), (0.0, 1.0)])
def test_targets_are_mixed_as_the_photos_are(mixup: float, cutmix: float) -> None:
    """Black photos of one class with white ones of another: the share of white is in the target."""
    how = FineTuning("all", mixup=mixup, cutmix=cutmix, mixed=1.0, label_smoothing=0.3)
    dark, bright = torch.zeros(2, 16, 16, 3), torch.full((2, 16, 16, 3), 255.0)
    pixels = torch.cat([dark, bright]).to(torch.uint8)
    labels = torch.tensor([0, 0, 2, 2])
    mixed, targets = BatchMixer(how, CLASSES)(pixels, labels, 7)
    white = mixed.mean((1, 2, 3)) / 255
    assert 0 < float(white[0]) < 1
    torch.testing.assert_close(targets.sum(1), torch.ones(4))
    torch.testing.assert_close(targets[:, 2], 0.1 + 0.7 * white, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(targets[:, 1], torch.full((4,), 0.1))
    again, _ = BatchMixer(how, CLASSES)(pixels, labels, 7)
    assert torch.equal(mixed, again)
    odd, same = BatchMixer(how, CLASSES)(pixels[:3], labels[:3], 7)
    assert torch.equal(odd, pixels[:3])
    assert torch.equal(same, labels[:3])


# Layers


def test_vectors_are_not_decayed_where_all_layers_learn_alike() -> None:
    network = models.load("shufflenet_v2_x0_5", weights="random").trainable(CLASSES, 0)
    groups = layers.parameter_groups(network, FineTuning("scratch", weight_decay=0.1))
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]
    assert [{each.ndim for each in group["params"]} for group in groups] == [{2, 4}, {1}]
    assert sum(len(group["params"]) for group in groups) == len(list(network.parameters()))


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "mobilenet_v2"])
def test_earlier_layers_learn_more_slowly(name: str) -> None:
    network = models.load(name, weights="random").trainable(CLASSES, 0)
    layers.set_trainable(network, FineTuning("all"))
    groups = layers.parameter_groups(network, FineTuning("all", layer_decay=0.8, weight_decay=0.1))
    scale = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    parameters = list(network.parameters())
    assert set(scale) == {id(parameter) for parameter in parameters}
    in_order = [scale[id(parameter)] for parameter in parameters]
    assert in_order == sorted(in_order)
    assert in_order[-1] == 1.0
    steps = sorted(set(in_order), reverse=True)
    assert len(steps) > 5
    np.testing.assert_allclose(steps, 0.8 ** np.arange(len(steps)))
    assert all(decay[id(p)] == (0.1 if p.ndim > 1 else 0.0) for p in parameters)


def test_adapters_leave_what_is_frozen_untouched() -> None:
    network = tiny()
    before = state(network)
    how = replace(good("adapters", epochs=2), batch_size=4)
    finetune(network, crops(12, 32), crops(6, 28), how)
    after = network.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {
        f"network.{name}" for name in ("0.bias", "1.weight", "1.bias", "2.bias", "6.weight", "6.bias")
    }


def test_low_rank_updates_change_dense_weights_by_a_matrix_of_that_rank() -> None:
    """Depthwise convolutions, biases and normalisations stay; the tensors keep their names."""
    network = tiny()
    before = state(network)
    how = replace(good("low-rank", epochs=2), batch_size=4, rank=2)
    finetune(network, crops(12, 32), crops(6, 28), how)
    after = network.state_dict()
    assert set(after) == set(before)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"network.0.weight", "network.6.weight", "network.6.bias"}
    change = (after["network.0.weight"] - before["network.0.weight"]).flatten(1)
    values = torch.linalg.svdvals(change)
    assert float(values[1]) > 100 * float(values[2])


def test_merging_low_rank_updates_is_the_plain_sum_and_changes_no_score() -> None:
    backbone = models.load("squeezenet1_1", weights="random")
    network, some = backbone.trainable(CLASSES, 0), crops(2, 64)
    at_first, weights = scores(network, some, plain("all")), state(network)
    low_rank.attach(network, rank=4, seed=0)
    np.testing.assert_array_equal(scores(network, some, plain("all")), at_first)
    added = {}
    for name, module in network.named_modules():
        if isinstance(module, low_rank.LowRank):
            nn.init.normal_(module.up, std=0.1)
            place = name.replace(".parametrizations.weight.0", ".weight")
            added[place] = (module.up @ module.down).detach().reshape(weights[place].shape)
    assert len(added) == 25  # all its convolutions; the last layer learns whole
    learned = scores(network, some, plain("all"))
    assert not np.allclose(learned, at_first)
    low_rank.merge(network)
    np.testing.assert_array_equal(scores(network, some, plain("all")), learned)
    merged = network.state_dict()
    assert set(merged) == set(weights)
    for name, before in weights.items():
        torch.testing.assert_close(merged[name], before + added.get(name, 0), atol=0, rtol=0)


def test_a_network_starts_as_good_as_the_head_on_its_features() -> None:
    backbone = models.load("shufflenet_v2_x0_5", weights="random")
    rng = np.random.default_rng(0)
    head = LinearHead(rng.normal(size=(1024, CLASSES)).astype(np.float32), np.arange(3, dtype=np.float32))
    network = backbone.trainable(CLASSES, 0)
    set_last_layer(network, head)
    some = crops(4, 64)
    with torch.inference_mode():
        features = backbone.trunk(torch.from_numpy(some.pixels)).numpy()
    expected = head.logits(features)
    np.testing.assert_allclose(scores(network, some, good("all")), expected, atol=1e-4)


# Updates


def test_a_batch_in_parts_is_the_batch_where_nothing_depends_on_the_others() -> None:
    """Without BatchNorm and dropout, and with parts of unequal size."""
    photos, curves = crops(14, 24), []
    networks = []
    for parts in (1, 3):
        network = tiny(norm=False)
        how = FineTuning("all", epochs=3, batch_size=7, learning_rate=1e-2, accumulate=parts, clip=0.1)
        curves.append(finetune(network, photos, crops(6, 24, 50), how)[0])
        networks.append(state(network))
    for one, other in zip(*curves, strict=True):
        assert one.train_loss == pytest.approx(other.train_loss, abs=1e-6)
    for name in networks[0]:
        torch.testing.assert_close(networks[0][name], networks[1][name], atol=1e-6, rtol=0)


def test_gradients_are_clipped() -> None:
    network = tiny()
    how = FineTuning("all", batch_size=6, clip=1e-3)
    update = Updater(network, how, steps=2)
    update(*crops(6, 24).batch(np.arange(6)), 0)
    norms = torch.stack([p.grad.norm() for p in network.parameters() if p.grad is not None])
    assert float(norms.norm()) == pytest.approx(1e-3, rel=1e-2)


def test_the_mean_of_the_weights_is_the_recursion_that_it_says() -> None:
    layer = nn.Linear(1, 1)
    average = WeightAverage(layer, 0.9)
    expected = float(layer.weight.detach())
    for step in range(40):
        with torch.no_grad():
            layer.weight += 1.0
        average.update(step)
        age = max(0, step - 1)
        kept = min(0.9, 1 - (1 + age) ** (-2 / 3)) if age else 0.0
        expected = kept * expected + (1 - kept) * float(layer.weight.detach())
        assert float(average.network.weight.detach()) == pytest.approx(expected, rel=1e-5)
    average.into_network()
    assert float(layer.weight.detach()) == pytest.approx(expected, rel=1e-5)
    assert WeightAverage(layer, 0.0).network is layer


def test_the_mean_of_an_infinite_limit_is_that_limit() -> None:
    layer = nn.Linear(1, 1)
    layer.register_buffer("highest", torch.tensor(float("inf")))
    average = WeightAverage(layer, 0.9)
    for step in range(3):
        average.update(step)
    assert average.network.get_buffer("highest").item() == float("inf")


# Time


def test_the_time_of_a_recipe_is_estimated_and_the_network_left_unchanged() -> None:
    network, train, val = tiny(), crops(16, 40), crops(4, 32, 50)
    before = state(network)
    for recipe in (
        replace(good("low-rank"), batch_size=4, rank=2),
        replace(good("all", epochs=6), batch_size=4),
    ):
        assert pace(network, train, val, recipe).seconds(recipe) > 0
    assert all(torch.equal(before[name], t) for name, t in network.state_dict().items())
    assert all(parameter.requires_grad for parameter in network.parameters())


# State


def test_low_rank_updates_cut_off_within_an_epoch_go_on_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = replace(good("low-rank", epochs=3), batch_size=4, rank=2)
    train, val, kept = crops(20, 40), crops(6, 32, 90), tmp_path / "state.safetensors"
    whole, cut = tiny(dropout=0.2), tiny(dropout=0.2)
    curve, _ = finetune(whole, train, val, how)
    after_update = TrainingState.after_update

    def dying(self: TrainingState, loss: float, photos: int) -> None:
        after_update(self, loss, photos)
        if len(self.curve) == 1 and self.batch == 3:
            self.save()
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TrainingState, "after_update", dying)
        with pytest.raises(KeyboardInterrupt):
            finetune(cut, train, val, how, checkpoint=kept)
    again = tiny(dropout=0.2)
    assert finetune(again, train, val, how, checkpoint=kept)[0] == curve
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


RUN = """
import os, signal, sys
from dataclasses import replace
from pathlib import Path
import torch
from safetensors.torch import save_file
sys.path.insert(0, {tests!r})
from test_finetune_parts import crops, tiny
from fieldmark.training.finetune import finetune, good
from fieldmark.training.finetune.checkpoint import TrainingState as State

state, weights, dies = sys.argv[1:]
after_update = State.after_update

def dying(self, loss, photos):
    after_update(self, loss, photos)
    if len(self.curve) == 1 and self.batch == 7:
        self.save()
    if len(self.curve) == 1 and self.batch == 9:
        os.kill(os.getpid(), signal.SIGKILL)

if dies == "dies":
    State.after_update = dying
torch.set_num_threads(1)
network = tiny(dropout=0.2)
how = replace(good("all", epochs=3), batch_size=4, frozen_statistics=False, mixup=0.2, cutmix=1.0)
finetune(network, crops(60, 40), crops(6, 32, 90), how, checkpoint=Path(state), save_every=9e9)
save_file({{name: t.contiguous() for name, t in network.state_dict().items()}}, weights)
"""


def test_a_run_killed_within_an_epoch_goes_on_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed for good in the middle of the second epoch, with augmentation, mixing, dropout and the
    mean of the weights."""
    code = RUN.format(tests=str(Path(__file__).parent))

    def files(name: str) -> list[str]:
        return [str(tmp_path / f"{name}{end}.safetensors") for end in ("", "-weights")]

    command = [sys.executable, "-c", code, *files("cut"), "dies"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == -signal.SIGKILL
    with safe_open(tmp_path / "cut.safetensors", "pt") as kept:
        about = kept.metadata()
    assert (about["curve"].count("val_loss"), about["batch"]) == (1, "7")
    for name in ("whole", "cut"):
        monkeypatch.setattr(sys, "argv", ["", *files(name), "lives"])
        exec(code, {})
    one, other = (load_file(tmp_path / f"{name}-weights.safetensors") for name in ("whole", "cut"))
    assert set(one) == set(other)
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def test_a_stem_of_strided_points_is_trained() -> None:
    """As RepVGG's and FastViT's: without the detour the process ends on processors without AVX-512."""

    class Stem(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.points, self.head = nn.Conv2d(3, 8, 1, 2, bias=False), nn.Linear(8, CLASSES)

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return self.head(self.points(pixels).mean((2, 3)))

    architecture = replace(
        models.load("squeezenet1_1", weights="random").architecture, last_layer_path="head"
    )
    network = ClassifierNetwork(architecture, Stem())
    before = network.network.points.weight.detach().clone()
    update = Updater(network, FineTuning("all", batch_size=6), steps=2)
    assert math.isfinite(update(*crops(6, 64).batch(np.arange(6)), 0))
    after = network.network.points.weight.detach()
    assert after.isfinite().all()
    assert not torch.equal(after, before)
