"""Magnitude pruning: which weights become zero, that they stay zero, and what a file of them takes."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.test_finetune import crops, tiny
from tests.test_study_python import OWN, TOP
from torch import nn

from fieldmark.experiments import Options, Run, StudyConfig, study
from fieldmark.experiments.recipes import CHANNELS, RECIPES, SPARSITIES
from fieldmark.models.network import ClassifierNetwork
from fieldmark.training import finetune
from fieldmark.training.finetune import magnitude, rounds
from fieldmark.training.finetune.config import FineTuning
from fieldmark.utils.errors import InputError

HOW = FineTuning("all", epochs=2, batch_size=8, learning_rate=3e-3, weight_decay=0.05, average=0.9)


def zeros(network: nn.Module) -> tuple[int, int]:
    weights = [each.detach() for each in network.parameters() if each.ndim > 1]
    return sum(int((each == 0).sum()) for each in weights), sum(each.numel() for each in weights)


def trained(folder: Path, *, epochs: int = 2) -> tuple[ClassifierNetwork, Any]:
    network, val = tiny(), crops(9, 24, 100)
    how = replace(HOW, epochs=epochs)
    step, file = rounds.zeros(network, 0.8), folder / "p.safetensors"
    return network, rounds.train_in_rounds(network, crops(24, 24), val, how, step, file)


def test_the_smallest_weights_of_all_layers_become_zero() -> None:
    network = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    before = torch.cat([each.detach().abs().flatten() for each in (network[0].weight, network[2].weight)])
    magnitude.prune(network, 0.5)
    after = torch.cat([each.detach().abs().flatten() for each in (network[0].weight, network[2].weight)])
    assert (after == 0).sum() == 9
    assert before[after == 0].max() < after[after > 0].min()
    assert (network[0].bias != 0).all()  # biases and normalisations are kept
    assert (network[1].weight == 1).all()


def test_each_round_leaves_the_same_share_and_the_last_is_what_was_asked_for() -> None:
    left = [rounds.kept_after(0.9, number) for number in range(rounds.ROUNDS + 1)]
    shares = [after / before for before, after in itertools.pairwise(left)]
    np.testing.assert_allclose(shares, shares[0])
    assert left[-1] == pytest.approx(0.1)


def test_zeros_stay_zero_in_training_and_the_others_are_trained(tmp_path: Path) -> None:
    network, (curve, seconds) = trained(tmp_path)
    none, every = zeros(network)
    assert none == round(0.8 * every)
    assert len(curve) == (rounds.ROUNDS + 1) * 2
    assert [each.epoch for each in curve] == list(range(1, len(curve) + 1))
    assert seconds > 0
    assert not list(tmp_path.iterdir())
    one = tiny()
    magnitude.prune(one, 0.8)
    assert not torch.equal(one.network[0].weight, network.network[0].weight)


def test_an_interrupted_round_resumes_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = trained(tmp_path / "a")
    tune, calls = rounds.finetune, []

    def stopped(*arguments: Any, **more: Any) -> Any:
        calls.append(1)
        steps = iter(range(100))
        return tune(*arguments, **more, stop=lambda: len(calls) == 3 and next(steps) == 3)

    monkeypatch.setattr(rounds, "finetune", stopped)
    with pytest.raises(finetune.Stopped):
        trained(tmp_path / "b")
    monkeypatch.setattr(rounds, "finetune", tune)
    again, _ = trained(tmp_path / "b")
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, whole.state_dict()[name]), name


def test_the_size_of_a_file_counts_values_gaps_and_fillers() -> None:
    network = nn.Linear(1000, 1, bias=False)
    assert magnitude.weight_bytes(network) == 4000  # dense
    with torch.no_grad():
        network.weight.zero_()
        network.weight[0, [0, 1, 900]] = 1.0
    # Distances of 1, 1 and 899, which takes three fillers before it.
    assert magnitude.weight_bytes(network) == 6 * 5


def test_a_row_of_a_study_is_pruned(insects: Path, tmp_path: Path) -> None:
    how: dict[str, Any] = {**OWN, "network": TOP, "mode": "tuned", "epochs": 1, "part": "test"}
    runs = [
        Run("compact", "Whole", "", "all", **how),
        Run("compact", "Zeros", "", "all", sparsity=0.9, **how),
    ]
    config = StudyConfig(Options(epochs=1), engine="torch", limit=40, groups="none", test=0.3)
    found = study(insects, runs, config, out=tmp_path).record
    whole, pruned = found.rows
    assert pruned.sparsity == 0.9
    assert len(pruned.curve) == rounds.ROUNDS + 1
    assert 0 < pruned.megabytes < 0.3 * whole.megabytes
    (difference,) = (each for each in found.differences if each.over == "all")
    assert (difference.row, difference.reference) == (pruned.id, whole.id)
    page = (tmp_path / "report.html").read_text()
    assert "Smaller networks, and fewer weights" in page
    assert not list((tmp_path / "checkpoints").glob("*"))


@pytest.mark.parametrize("how", [{"sparsity": 1.0}, {"sparsity": 0.5, "mode": "cached", "transfer": "last"}])
def test_a_sparsity_that_cannot_be_is_one_sentence(
    how: dict[str, Any], insects: Path, tmp_path: Path
) -> None:
    run = Run("compact", "Zeros", **{**OWN, "network": TOP, "mode": "tuned", "transfer": "all", **how})
    with pytest.raises(InputError, match="above 0 and below 1"):
        study(insects, [run], StudyConfig(limit=40), out=tmp_path / "s")


def test_the_recipe_starts_from_the_first_network() -> None:
    made = RECIPES["compact"](Options(backbones=("alexnet", "squeezenet1_1")))
    names = [run.backbone for run in made.runs]
    smaller = len(SPARSITIES) + len(CHANNELS)
    assert names[: 2 + smaller] == ["alexnet"] * (1 + smaller) + ["squeezenet1_1"]
    assert len({run.id for run in made.runs}) == len(made.runs)
