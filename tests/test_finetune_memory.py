"""Large networks on small machines: checkpointing, low-rank updates of attention, the estimate of memory."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from fieldmark import models
from fieldmark.models.network import ClassifierNetwork, seeded
from fieldmark.models.runtime import graphs
from fieldmark.training import TrainConfig
from fieldmark.training.finetune import (
    LabelledCrops,
    Stopped,
    adamw8,
    finetune,
    good,
    layers,
    low_rank,
    memory_estimate,
)
from fieldmark.training.finetune.memory_estimate import check, estimate
from fieldmark.training.finetune.step import Updater
from fieldmark.utils import memory
from fieldmark.utils.errors import InputError

MIB = 2**20
PEAK = """
import json, sys
from dataclasses import replace
from pathlib import Path
import torch
from fieldmark import models
from fieldmark.training.finetune import good, layers
from fieldmark.training.finetune.step import Updater

def status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if key in line).split()[1])

name, transfer = sys.argv[1:]
network = models.load(name, weights="random").trainable(8, 0)
network(torch.zeros(1, 224, 224, 3, dtype=torch.uint8))  # libraries
before = status("VmRSS")
recipe = replace(good(transfer), batch_size=8, accumulate=1)
update = Updater(network, recipe, 2)
layers.set_modes(network, recipe)
for step in range(2):
    update(torch.zeros(8, 224, 224, 3, dtype=torch.uint8), torch.arange(8), step)
print(json.dumps(status("VmHWM") - before))
"""


def network_of(name: str = "test_vit", classes: int = 3) -> ClassifierNetwork:
    return models.load(name, weights="random").trainable(classes, 0)


def photos(side: int, count: int = 6) -> LabelledCrops:
    numbers = np.arange(count)
    return LabelledCrops(graphs.sample(side, count), numbers, numbers % 3, tuple(map(str, numbers)))


# Activation checkpointing


@pytest.mark.parametrize("name", ["test_vit", "test_convnext3", "tf_efficientnet_lite0"])
def test_gradients_with_checkpointing_are_those_without(name: str) -> None:
    gradients = []
    for checkpointing in (False, True):
        network, recipe = network_of(name), replace(good("all"), checkpointing=checkpointing)
        layers.set_checkpointing(network, recipe)
        layers.set_modes(network, recipe)
        with seeded(0, "dropout"):
            network(torch.from_numpy(graphs.sample(160, 2))).square().sum().backward()
        gradients.append([each.grad for each in network.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_a_run_with_checkpointing_ends_in_the_same_weights_and_leaves_the_network_as_it_was() -> None:
    found = []
    for checkpointing in (False, True):
        network = network_of()
        recipe = replace(good("all", epochs=1), batch_size=4, checkpointing=checkpointing)
        finetune(network, photos(160), photos(160), recipe)
        assert not network.network.grad_checkpointing
        found.append(network.state_dict())
    for name, tensor in found[0].items():
        torch.testing.assert_close(found[1][name], tensor)


def test_an_interrupted_run_can_go_on_with_checkpointing() -> None:
    """It is not part of what the result depends on."""
    recipe = good("all")
    assert replace(recipe, checkpointing=True).key == recipe.key != replace(recipe, epochs=1).key


@pytest.mark.parametrize(
    ("name", "transfer", "why"),
    [
        ("alexnet", "all", "no blocks for activation checkpointing"),
        ("crossvit_tiny_240", "all", "no blocks for activation checkpointing"),
        ("tf_efficientnet_lite0", "scratch", "BatchNorm would count each photo twice"),
    ],
)
def test_where_checkpointing_cannot_be_it_is_refused(name: str, transfer: Any, why: str) -> None:
    with pytest.raises(InputError, match=why):
        layers.set_checkpointing(network_of(name), replace(good(transfer), checkpointing=True))


def test_networks_of_one_side_are_trained_on_that_side_alone() -> None:
    vision, convolutions = network_of("test_vit"), network_of("shufflenet_v2_x0_5")
    assert layers.accepted(vision, good("all"), 160).sides == (1.0,)
    assert layers.accepted(convolutions, good("all"), 224) == good("all")


# Low-rank updates of attention


@pytest.mark.parametrize("name", ["test_vit", "timm:vit_tiny_patch16_dinov3_qkvb", "levit_128"])
def test_low_rank_updates_reach_fused_attention(name: str) -> None:
    network = network_of(name)
    low_rank.attach(network, rank=4, seed=0)
    attentions = [each for name_, each in network.named_modules() if name_.endswith("attn.qkv")]
    attentions = [getattr(each, "linear", each) for each in attentions]  # LeViT's has a norm in it
    assert attentions
    for each in attentions:
        assert parametrize.is_parametrized(each, "weight")


class Attention(nn.Module):
    """PyTorch's own attention, whose projections are one matrix that belongs to no linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(12, 2, batch_first=True)
        self.last = nn.Linear(12, 3)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        tokens = pixels.flatten(2)[..., :12]
        scores: torch.Tensor = self.last(self.attention(tokens, tokens, tokens)[0].mean(1))
        return scores


def test_low_rank_updates_of_pytorch_s_attention_are_merged_into_the_same_network() -> None:
    facts = replace(models.architecture("alexnet"), name="attention", feature_dim=12, last_layer_path="last")
    network = ClassifierNetwork(facts, Attention()).eval()
    names = list(network.state_dict())
    low_rank.attach(network, rank=2, seed=0)
    parts = [each for each in network.modules() if isinstance(each, low_rank.LowRank)]
    assert len(parts) == 2  # the projections, and the one after the attention
    for part in parts:
        nn.init.normal_(part.up)
    crops = torch.from_numpy(graphs.sample(8, 2))
    adapted = network(crops)
    low_rank.merge(network)
    torch.testing.assert_close(network(crops), adapted)
    assert list(network.state_dict()) == names  # the key of the weights depends on their order


# Moments in 8 bits


def test_the_256_values_are_the_papers() -> None:
    """Dettmers et al. 2022, section 1.3: a sign, leading zeros as a power of ten, and a linear rest."""
    signed, unsigned = adamw8.CODES.values()
    for values in (signed, unsigned):
        assert len(set(values.tolist())) == 256
        assert (values.diff() > 0).all()
        assert (values[-1], 0.0 in values) == (1.0, True)
    assert signed[0] == pytest.approx(
        -0.992969
    )  # no zeros, all six other bits set: the middle of the last part
    assert unsigned[1] == pytest.approx(1e-6 * (0.1 + 0.9 / 4))  # six zeros and one bit


@pytest.mark.parametrize("name", ["exp_avg", "exp_avg_sq"])
def test_moments_are_stored_to_some_percent_block_by_block(name: str) -> None:
    torch.manual_seed(0)
    moment = torch.randn(5, 1000) * torch.logspace(-6, 2, 5)[:, None]  # blocks of other magnitudes
    moment = moment.square() if name == "exp_avg_sq" else moment
    codes, scale = adamw8.encode(moment, name)
    assert (codes.dtype, codes.shape, scale.shape) == (torch.uint8, (3, adamw8.BLOCK), (3, 1))
    found = adamw8.decode(codes, scale, name, moment.shape)
    blocks = scale.repeat_interleave(adamw8.BLOCK)[: moment.numel()].view(moment.shape)
    large = moment.abs() > 0.1 * blocks
    torch.testing.assert_close(found[large], moment[large], rtol=0.071, atol=0)
    assert ((found - moment).abs() <= 0.01 * blocks).all()
    if name == "exp_avg_sq":
        assert (found > 0).all(), "an update would be divided by zero"
    zeros = adamw8.encode(torch.zeros(5000), name)
    assert not adamw8.decode(*zeros, name, torch.Size([5000])).any()


def state_of(bits: Any) -> tuple[list[float], int, ClassifierNetwork]:
    """Train; return the losses of the epochs, the bytes of the optimiser's state, and the network."""
    network = network_of()
    recipe = replace(good("all", epochs=8), batch_size=6, optimizer_bits=bits)
    update = Updater(network, recipe, 16)
    assert isinstance(update.optimiser, adamw8.AdamW8) == (bits == 8)
    layers.set_modes(network, recipe)
    crops, labels = torch.from_numpy(graphs.sample(160, 6)), torch.arange(6) % 3
    losses = [update(crops, labels, step) for step in range(16)]
    tensors = [each for state in update.optimiser.state.values() for each in state.values() if each.ndim]
    held = sum(each.numel() * each.element_size() for each in tensors)
    assert held == estimate(network_of(), recipe, 160).optimiser
    return losses, held, network


def test_a_quarter_of_the_bytes_and_the_same_curve() -> None:
    (whole, bytes_32, _), (less, bytes_8, _) = state_of(32), state_of(8)
    assert 0.24 < bytes_8 / bytes_32 < 0.28
    assert whole[-1] < 0.9 * whole[0]
    np.testing.assert_allclose(less, whole, rtol=2e-3)


def test_a_run_in_8_bits_resumes_to_the_same_weights(tmp_path: Path) -> None:
    recipe = replace(good("all", epochs=2), batch_size=2, optimizer_bits=8)
    whole, cut, state = network_of(), network_of(), tmp_path / "state.safetensors"
    finetune(whole, photos(160), photos(160), recipe)
    asked = iter([False, False, True])
    with pytest.raises(Stopped):
        finetune(cut, photos(160), photos(160), recipe, checkpoint=state, stop=lambda: next(asked))
    cut = network_of()
    finetune(cut, photos(160), photos(160), recipe, checkpoint=state)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(cut.state_dict()[name], tensor), name


def test_other_bits_are_another_run_and_the_usual_ones_no_new_key() -> None:
    assert "optimizer_bits" not in good("all").key
    assert replace(good("all"), optimizer_bits=8).key["optimizer_bits"] == 8
    with pytest.raises(InputError, match="optimizer_bits is 16: choose 8 or 32"):
        TrainConfig(optimizer_bits=16)  # type: ignore[arg-type]


# The estimate


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
@pytest.mark.parametrize(
    ("name", "transfer"),
    [("tf_efficientnet_lite0", "all"), ("vit_tiny_patch16_224", "all"), ("timm:resnet18", "low-rank")],
)
def test_the_estimate_is_within_a_factor_of_two_of_the_peak(name: str, transfer: Any) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PEAK, name, transfer], capture_output=True, text=True, check=True
    )
    peak = json.loads(done.stdout)
    found = estimate(network_of(name, 8), replace(good(transfer), batch_size=8, accumulate=1), 224)
    assert peak / 2 < found.more < 2 * peak


def test_checkpointing_and_more_parts_take_less() -> None:
    network = network_of("vit_tiny_patch16_224")
    before = {name: each.clone() for name, each in network.state_dict().items()}
    whole, less = (estimate(network, replace(good("all"), checkpointing=on), 224) for on in (False, True))
    assert less.activations < whole.activations / 2
    assert less.fixed == whole.fixed
    parts = replace(whole, recipe=replace(whole.recipe, accumulate=8))
    assert 3 * parts.activations < whole.activations
    assert all(torch.equal(each, before[name]) for name, each in network.state_dict().items())


def test_what_does_not_fit_is_refused_with_what_would(monkeypatch: pytest.MonkeyPatch) -> None:
    network = network_of("vit_tiny_patch16_224")
    whole = estimate(network, good("all"), 224)
    monkeypatch.setattr(memory, "available", lambda: whole.more)
    assert check(network, good("all"), 224).more == whole.more
    monkeypatch.setattr(memory, "available", lambda: whole.more - 1)
    with pytest.raises(InputError) as refused:
        check(network, good("all"), 224)
    told = str(refused.value)
    for option in (
        *("--accumulate 4", "--checkpointing", "--optimizer-bits 8", "--transfer low-rank"),
        "--transfer last",
    ):
        assert option in told
    assert told.count(". ") == 0
    monkeypatch.setattr(memory, "available", lambda: MIB)
    with pytest.raises(InputError, match="available: add --transfer last"):
        check(network, good("all"), 224)
    monkeypatch.setattr(memory, "available", lambda: None)
    assert check(network, good("all"), 224).more == whole.more


def test_the_command_refuses_with_one_sentence(
    run: Any, insects: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "available", lambda: 20 * MIB)
    words = ("train", insects, "--out", tmp_path / "m", "--backbone", "test_vit", "--weights", "random")
    done = run(*words, "--transfer", "all")
    assert done.code == 2
    assert "Fine-tuning would take about" in done.err.strip().splitlines()[-1]
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("option", [("--checkpointing",), ("--accumulate", "8"), ("--optimizer-bits", "8")])
def test_options_without_fine_tuning_are_refused(
    run: Any, insects: Path, tmp_path: Path, option: Any
) -> None:
    done = run("train", insects, "--out", tmp_path / "m", *option)
    assert done.code == 2
    assert f"{option[0]} is for training the network itself" in done.err


def test_the_limit_of_a_container_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"memory.max": "1000", "memory.current": "700", "memory.stat": "anon 1\ninactive_file 50\n"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    assert memory.available() == 350
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.available() != 350
    monkeypatch.setattr(memory, "_PROC", tmp_path / "none")
    assert memory.available() is None


def test_tensors_that_share_memory_are_counted_once() -> None:
    with memory_estimate._Peak() as peak:
        one = torch.zeros(1000)
        two = one.view(10, 100)
        del one
        two.add_(1)
        three = two + 1
        del two
    assert (peak.most, peak.now) == (8000, 4000)
    del three
    assert peak.now == 0
