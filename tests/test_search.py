"""What is tried within a budget, what is chosen, and the classifier that comes of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fieldmark import backbones, search
from fieldmark.classifier import Classifier
from fieldmark.cli.train import seconds
from fieldmark.errors import InputError
from fieldmark.experiment import PAPER_CROP, Bench, Parts, read
from fieldmark.heads.base import LinearHead
from fieldmark.split import split_photos
from fieldmark.together import train_together
from fieldmark.train import TrainConfig

NAMES = ("shufflenet_v2_x0_5", "squeezenet1_1")


class Clock:
    """Time that passes only when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def random_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pretrained weights are needed to see how the search goes."""
    load = backbones.load

    def random(name: str, **more: Any) -> backbones.Backbone:
        return load(name, **{**more, "weights": "random"})

    monkeypatch.setattr(backbones, "load", random)


def told(name: str, loss: float, macs: float, spread: float = 0.01) -> search.Option:
    losses = loss + spread * np.random.default_rng(0).normal(0, 1, 200)
    return search.Option(name, np.ones(1), losses, 0.1, macs)


def test_of_options_that_tie_the_cheapest_is_taken() -> None:
    rng = np.random.default_rng(1)
    best = told("mean", 0.2, 3.0)
    same = replace(best, name="a", giga_macs=1.0, losses_N=best.losses_N + rng.normal(0, 0.5, 200))
    worse = replace(best, name="b", giga_macs=0.1, losses_N=best.losses_N + 0.1)
    made = sorted([best, same, worse], key=lambda each: each.loss)
    chosen, why = search.winner(made, [None] * 200, 0)
    assert chosen.name == "a"
    if made[0] is not same:
        assert "ties with mean" in why
    chosen, why = search.winner([best, worse], [None] * 200, 0)
    assert chosen is best
    assert "nothing cheaper ties" in why


@pytest.mark.parametrize(("budget", "learned"), [(1000.0, 4), (400.0, 2), (1.0, 1), (None, 4)])
def test_the_budget_holds(
    insects: Path, monkeypatch: pytest.MonkeyPatch, budget: float | None, learned: int
) -> None:
    """With a clock of its own: each candidate takes 100 s, and the search ends within the budget."""
    clock = Clock()
    table = read(insects, limit=None, seed=0)
    parts = Parts.of(table, split_photos(table, val=0.2, test=0.2, seed=0, way="stratified"))
    bench = Bench(replace(PAPER_CROP), engine="torch")

    def compute(_: Bench, __: object, wanted: dict[str, Any]) -> list[str]:
        clock.now += 20
        return list(wanted)

    def made(candidate: search.Candidate, *_: object) -> search.Tried:
        clock.now += 80
        nothing = np.zeros((1, 4), np.float32)
        return search.Tried(candidate, LinearHead(nothing, nothing[0]), nothing, 1, 1, 1, 0)

    monkeypatch.setattr(Bench, "compute", compute)
    monkeypatch.setattr(search, "_learned", made)
    networks = [backbones.load(name) for name in NAMES]
    wanted = search.candidates(networks, bench, flips=True)
    assert [each.name for each in wanted] == [
        *(NAMES[0], f"{NAMES[0]} (mirrored)", NAMES[1], f"{NAMES[1]} (mirrored)"),
    ]
    found = list(search.tried(wanted, bench, parts, 0, search.Budget(budget, clock)))
    done = [each for each in found if isinstance(each, search.Tried)]
    assert len(done) == learned
    assert len(found) == 4
    assert all(each.seconds == 100 for each in done)
    if budget is not None and learned > 1:
        assert clock.now - 100 <= (1 - search.RESERVE) * budget


def test_several_networks_make_an_ensemble(insects: Path, tmp_path: Path) -> None:
    config = TrainConfig(backbone=NAMES[0], also=NAMES[1:], ensemble="mean", engine="torch")
    trained = train_together(insects, tmp_path / "m", config)
    loaded = Classifier.load(tmp_path / "m")
    assert [member.weight for member in loaded.members] == pytest.approx([0.5, 0.5])
    assert len(loaded.networks) == 2
    about = loaded.provenance
    assert {one["name"] for one in about["tried"]} == {*NAMES, "mean"}
    assert [one["taken"] for one in about["tried"] if one["name"] == "mean"] == [True]
    assert len(about["ensemble"]["members"]) == 2
    assert about["ensemble"]["cost"]["milliseconds"] > 0
    page = (tmp_path / "m" / "report.html").read_text()
    assert "What it is made of" in page
    assert "What was tried" in page
    assert "What it is made of" not in (tmp_path / "m" / "README.md").read_text()
    assert "**Cost.**" in (tmp_path / "m" / "README.md").read_text()
    first = trained.evaluation
    assert first.scores_NC.shape[1] == 4
    assert (tmp_path / "m" / "neighbours.safetensors").exists()


def test_best_says_what_was_tried_and_why(
    insects: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backbones, "available", lambda _dir=None: list(NAMES[:1]))
    config = TrainConfig(backbone=NAMES[0], quality="best", budget=600, engine="torch")
    about = train_together(insects, tmp_path / "m", config).classifier.provenance
    names = [one["name"] for one in about["tried"]]
    assert {*names} == {NAMES[0], f"{NAMES[0]} (mirrored)", "mean", "weights", "greedy"}
    assert sum(one["taken"] for one in about["tried"]) == 1
    assert about["chosen"]["how"].endswith(".")
    losses = [one["log_loss"] for one in about["tried"]]
    assert losses == sorted(losses)


def test_what_cannot_be_combined_is_one_sentence(insects: Path, tmp_path: Path) -> None:
    config = TrainConfig(backbone=NAMES[0], also=NAMES[1:], transfer="all")
    with pytest.raises(InputError, match="leave --transfer"):
        train_together(insects, tmp_path / "m", config)
    assert not (tmp_path / "m").exists()


def test_a_budget_is_a_length_of_time() -> None:
    assert [seconds(text) for text in ("90", "90s", "30m", "1.5h")] == [90, 90, 1800, 5400]
    for bad in ("", "soon", "-5m", "0", "5d", "30m "[::-1] + "x"):
        with pytest.raises(InputError, match="--budget"):
            seconds(bad)
