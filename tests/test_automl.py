"""What is tried within a budget, what is chosen, and the classifier that comes of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fieldmark import models
from fieldmark.cli.train import seconds
from fieldmark.data.split import split_photos
from fieldmark.data.subset import DataSplits, read
from fieldmark.data.transforms import PAPER_CROP
from fieldmark.evaluation import metrics
from fieldmark.features.extraction import Extraction
from fieldmark.features.extractor import FeatureExtractor
from fieldmark.heads.base import LinearHead
from fieldmark.inference.classifier import Classifier
from fieldmark.training import ExtendConfig, TrainConfig, automl, extend, train
from fieldmark.training.automl import finetune_search, linear_probe_search
from fieldmark.training.automl import search as trying
from fieldmark.training.automl.selection import WEIGHTINGS, EnsembleOption, choose_option, loss_differences
from fieldmark.training.strategies import ensemble
from fieldmark.utils.errors import InputError

pytestmark = pytest.mark.usefixtures("one_cache")


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
    load = models.load

    def random(name: str, **more: Any) -> models.Backbone:
        return load(name, **{**more, "weights": "random"})

    monkeypatch.setattr(models, "load", random)


def told(name: str, loss: float, macs: float, spread: float = 0.01) -> EnsembleOption:
    losses = loss + spread * np.random.default_rng(0).normal(0, 1, 200)
    return EnsembleOption(name, np.ones(1), losses, losses > loss, macs)


def test_of_options_that_tie_the_cheapest_is_taken() -> None:
    rng = np.random.default_rng(1)
    best = told("mean", 0.2, 3.0)
    apart = rng.normal(0, 0.5, 200)
    apart += 0.001 - apart.mean()  # a little worse, and not for sure
    same = replace(best, name="a", giga_macs=1.0, losses_N=best.losses_N + apart)
    worse = replace(best, name="b", giga_macs=0.1, losses_N=best.losses_N + 0.1)
    made = sorted([best, same, worse], key=lambda each: each.loss)
    chosen, why = choose_option(made, loss_differences(made, [None] * 200, 0))
    assert chosen.name == "a"
    assert "ties with mean" in why
    chosen, why = choose_option([best, worse], loss_differences([best, worse], [None] * 200, 0))
    assert chosen is best
    assert "no cheaper option ties" in why


@pytest.mark.parametrize(("budget", "learned"), [(1000.0, 7), (800.0, 6), (400.0, 3), (1.0, 1), (None, 7)])
def test_the_budget_holds(
    insects: Path, monkeypatch: pytest.MonkeyPatch, budget: float | None, learned: int
) -> None:
    """With a clock of its own: each candidate takes 100 s, and the search ends within the budget."""
    clock = Clock()
    table = read(insects, limit=None, seed=0)
    parts = DataSplits.of(table, split_photos(table, val=0.2, test=0.2, seed=0, way="stratified"))
    extractor = FeatureExtractor(replace(PAPER_CROP), engine="torch")

    def compute(_: FeatureExtractor, __: object, ___: dict[str, Any]) -> Extraction:
        clock.now += 20
        return Extraction()

    def made(candidate: automl.Candidate, *_: object) -> tuple[automl.TrialResult, float]:
        clock.now += 80
        nothing = np.zeros((1, 4), np.float32)
        head = LinearHead(nothing, nothing[0])
        return automl.TrialResult(candidate, "", head, nothing, 1, 1, 1), 80.0

    monkeypatch.setattr(FeatureExtractor, "compute", compute)
    monkeypatch.setattr(trying, "fit_candidate", made)
    networks = [models.load(name) for name in NAMES]
    wanted = automl.candidates(networks, extractor, all_views=True)
    first = NAMES[0]
    assert [each.name for each in wanted] == [
        *(first, f"{first} (288 px)", f"{first} (288 px, central crop)", NAMES[1]),
        *(f"{first} (288 px, mirrored)", f"{first} (288 px, central crop, mirrored)"),
        f"{NAMES[1]} (288 px)",
    ]
    doing = automl.Search(parts, 0, automl.Budget(budget, clock))
    doing.try_all(wanted, "softmax")
    assert len(doing.results) == learned
    assert len(doing.results) + len(doing.skipped) == 7
    assert all(each.seconds == 100 for each in doing.results)
    if budget is not None and learned > 1:
        assert clock.now - 100 <= (1 - automl.RESERVE) * budget


def test_several_networks_make_an_ensemble(insects: Path, tmp_path: Path) -> None:
    config = TrainConfig(backbone=NAMES[0], also=NAMES[1:], ensemble="mean", engine="torch", holdout=True)
    trained = train(insects, out=tmp_path / "m", config=config)
    loaded = Classifier.load(tmp_path / "m")
    assert [member.weight for member in loaded.members] == pytest.approx([0.5, 0.5])
    assert len(loaded.networks) == 2
    about = loaded.provenance
    assert about["weights"] == "random"
    for name in NAMES:  # of each network, under which licence
        assert models.architecture(name).licence in about["licence"]
    assert not about["weights_complete"]
    assert {one["name"] for one in about["tried"]} == {*NAMES, "mean ensemble"}
    assert [one["taken"] for one in about["tried"] if one["name"] == "mean ensemble"] == [True]
    assert len(about["ensemble"]["members"]) == 2
    beside = about["beside"]
    assert beside["name"] == NAMES[0]
    assert beside["interval"][0] <= beside["value"] <= beside["interval"][1]
    assert beside["said"] in (tmp_path / "m" / "README.md").read_text()
    assert about["ensemble"]["cost"]["milliseconds"] > 0
    page = (tmp_path / "m" / "report.html").read_text()
    assert "Ensemble members" in page
    assert "Options tried" in page
    assert "Ensemble members" not in (tmp_path / "m" / "README.md").read_text()
    assert "**Cost.**" in (tmp_path / "m" / "README.md").read_text()
    first = trained.evaluation
    assert first.scores_NC.shape[1] == 4
    assert (tmp_path / "m" / "neighbours.safetensors").exists()


def test_members_with_chosen_weights_learn_from_the_test_photos_too_once_these_were_measured(
    insects: Path,
) -> None:
    config = TrainConfig(backbone=NAMES[0], also=NAMES[1:], ensemble="weights", engine="torch")
    trained, apart = train(insects, config=config), train(insects, config=replace(config, holdout=True))
    parts = trained.outcome.splits
    assert trained.summary.measurement.learned == len(parts.files)
    assert apart.summary.measurement.learned == len(parts.train) + len(parts.val)
    assert apart.summary.top1_error == trained.summary.top1_error
    for one, other in zip(apart.classifier.members, trained.classifier.members, strict=True):
        assert not np.array_equal(one.head.weight, other.head.weight)


def test_networks_with_equal_weights_are_measured_in_folds(
    insects: Path, new_kind: Path, tmp_path: Path
) -> None:
    """Each photo by the mean of the probabilities that each network alone would give it in its fold."""
    config = TrainConfig(backbone=NAMES[0], also=NAMES[1:], ensemble="mean", engine="torch")
    trained = train(insects, out=tmp_path / "m", config=config)
    told = trained.summary.measurement
    assert (told.way, told.photos, told.learned) == ("folds", 64, 64)
    alone = [train(insects, config=TrainConfig(backbone=name, engine="torch")) for name in NAMES]
    for member, one in zip(trained.classifier.members, alone, strict=True):
        np.testing.assert_array_equal(member.head.weight, one.classifier.lead.head.weight)
    expected_NC = np.mean(
        [
            np.exp(metrics.log_softmax(one.evaluation.scores_NC / np.float32(one.classifier.temperature)))
            for one in alone
        ],
        axis=0,
    )
    # Of one photo the temperature changes no order; between photos of different folds it does.
    np.testing.assert_array_equal(trained.evaluation.scores_NC.argsort(axis=1), expected_NC.argsort(axis=1))
    about = trained.classifier.provenance
    assert set(about["chosen"]) == {f"head of {name}" for name in NAMES}
    assert [each["name"] for each in about["ensemble"]["members"]] == list(NAMES)
    assert about["beside"]["name"] == NAMES[0]
    assert "Ensemble members" in (tmp_path / "m" / "report.html").read_text()
    grown = extend(tmp_path / "m", new_kind, ExtendConfig(engine="torch"), out=tmp_path / "grown")
    assert [each.weight for each in grown.classifier.members] == [0.5, 0.5]
    assert len(grown.classifier.taxa) == 5
    assert grown.classifier.provenance["grown"]["old_photos"]["photos"] == 64


def test_networks_with_equal_weights_are_extended_beside_an_official_test_part(
    insects: Path, new_kind: Path, tmp_path: Path
) -> None:
    """The old classifier answers the test photos by all of its networks."""
    for path in insects.glob("*/[01]*.jpg"):
        part = "test" if int(path.stem) >= 12 else "train"
        place = tmp_path / "parts" / part / path.parent.name / path.name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(path.read_bytes())
    config = TrainConfig(backbone=NAMES[0], also=NAMES[1:], ensemble="mean", engine="torch")
    trained = train(tmp_path / "parts", out=tmp_path / "m", config=config)
    told = trained.summary.measurement
    assert (told.way, told.photos, told.learned) == ("test part", 16, 48)
    grown = extend(tmp_path / "m", new_kind, ExtendConfig(engine="torch"), out=tmp_path / "grown")
    about = grown.classifier.provenance["grown"]["old_photos"]
    assert (about["photos"], about["error_before"]) == (16, trained.summary.top1_error)


@pytest.fixture
def new_kind(tmp_path: Path, draw: Any) -> Path:
    """Photos of a class that the insects do not have."""
    for number in range(12):
        path = tmp_path / "new" / "Vespa crabro" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(draw(5, number))
    return tmp_path / "new"


def test_best_says_what_was_tried_and_why(
    insects: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(models, "available", lambda _dir=None: list(NAMES[:1]))
    monkeypatch.setattr(trying, "_FRONT", 1)
    monkeypatch.setattr(trying, "TAIL", ("balanced-sampling",))
    monkeypatch.setattr(finetune_search, "NOTES", {"adapters": finetune_search.NOTES["adapters"]})
    monkeypatch.setattr(finetune_search, "EPOCHS", 1)
    monkeypatch.setattr(finetune_search, "FEWEST", 1)
    every = automl.candidates
    monkeypatch.setattr(automl, "candidates", lambda *a, **more: every(*a, **more)[:2])
    config = TrainConfig(backbone=NAMES[0], quality="best", budget=6000, engine="torch")
    trained = train(insects, out=tmp_path / "m", config=config)
    about = trained.classifier.provenance
    rows = {one["name"]: one for one in about["tried"]}
    assert {NAMES[0], f"{NAMES[0]}, ridge", f"{NAMES[0]} (288 px), ridge"} <= rows.keys()
    assert {f"{way} ensemble" for way in WEIGHTINGS} <= rows.keys()
    assert any(name.endswith("classes evened by 0.5") for name in rows)
    assert sum(one["taken"] for one in about["tried"]) == 1
    assert about["chosen"]["how"].endswith(".")
    assert {f"{NAMES[0]}, nearest class mean", f"{NAMES[0]}, class-balanced sampling"} <= rows.keys()
    tuned = {one["name"]: one for one in about["tuned"]}
    trained_name = f"{NAMES[0]}, biases and normalisations trained"
    (first,) = (one["name"] for one in about["tried"] if one["taken"])
    assert tuned.keys() == {first, trained_name, f"{first} with {trained_name}"}
    (count,) = {one["photos"] for one in tuned.values()}
    assert 5 <= count <= 20
    assert count < rows[NAMES[0]]["photos"] == 58
    assert sum(one["taken"] for one in about["tuned"]) == 1
    assert all(one["why"] for one in (*about["tried"], *about["tuned"]))
    losses = [one["log_loss"] for one in about["tried"]]
    assert losses == sorted(losses)
    assert rows[NAMES[0]]["apart"] is None
    for name, one in rows.items():
        assert one["interval"][0] <= one["error"] <= one["interval"][1]
        if name != NAMES[0]:
            assert one["apart"] == pytest.approx(one["error"] - rows[NAMES[0]]["error"])
    # The heads on one view share its run of the network.
    assert rows[f"{NAMES[0]}, ridge"]["giga_macs"] == rows[NAMES[0]]["giga_macs"]
    for text in (tmp_path / "m" / "report.html", tmp_path / "m" / "README.md"):
        assert "288 px), ridge" in text.read_text()
        assert f"with {trained_name}" in text.read_text()
    assert "<- chosen" in capsys.readouterr().err
    loaded = Classifier.load(tmp_path / "m")
    photo = insects / "Apis mellifera" / "00.jpg"
    (one,), (other,) = trained.classifier.predict([photo]), loaded.predict([photo])
    assert one.best.taxon == other.best.taxon
    assert one.best.score == pytest.approx(other.best.score, rel=1e-3)

    # Run again, it goes on from the features and heads that are kept.
    def never(*_: object) -> None:
        raise AssertionError("a head is learned that is kept")

    monkeypatch.setattr(linear_probe_search, "_write", never)
    monkeypatch.setattr(finetune_search.finetune, "finetune", never)
    again = train(insects, out=tmp_path / "n", config=config)
    assert again.classifier.digest == trained.classifier.digest
    assert [one["name"] for one in again.classifier.provenance["tried"]] == list(rows)


def test_kept_heads_that_are_damaged_are_learned_anew(tmp_path: Path) -> None:
    head, logits = (LinearHead(np.eye(3, 4, dtype=np.float32), np.ones(4, np.float32)), np.ones((5, 4)))
    path = tmp_path / "h.safetensors"
    linear_probe_search._write(path, head, logits.astype(np.float32), 3.5)
    kept = linear_probe_search._read(path, (5, 4))
    assert kept is not None
    np.testing.assert_array_equal(kept[0].weight, head.weight)
    assert linear_probe_search._read(path, (6, 4)) is None
    assert linear_probe_search._read(tmp_path / "none", (5, 4)) is None
    path.write_bytes(path.read_bytes()[:50])
    assert linear_probe_search._read(path, (5, 4)) is None


def test_answers_are_evened_as_the_head_is() -> None:
    """What is measured is what the head that is kept gives."""
    random = np.random.default_rng(0)
    x_ND, y_N = random.normal(0, 1, (60, 3)).astype(np.float32), random.integers(0, 4, 60)
    head = LinearHead(random.normal(0, 1, (3, 4)).astype(np.float32), np.zeros(4, np.float32))
    candidate: Any = None
    plain = automl.TrialResult.of(candidate, "", head, head.logits(x_ND), y_N)
    count_C = np.array([40, 10, 5, 5])
    for strength, done in zip(
        (0.5, 1.0), linear_probe_search.logit_adjusted(plain, y_N, count_C), strict=True
    ):
        np.testing.assert_allclose(done.logits_NC, done.head.logits(x_ND), atol=1e-5)
        lift = (done.logits_NC - plain.logits_NC) / plain.temperature
        np.testing.assert_allclose(lift, -strength * np.log(count_C / 60)[None].repeat(60, 0), 1e-4)


SEVERAL: dict[str, Any] = {"backbone": NAMES[0], "also": NAMES[1:]}
BEST: dict[str, Any] = {"quality": "best"}


@pytest.mark.parametrize(
    ("wishes", "said"),
    [
        ({**SEVERAL, "transfer": "all"}, "leave --transfer"),
        ({**BEST, "weights": "random"}, "leave --transfer and --weights out"),
        ({**SEVERAL, "rare": True}, "leave --rare out"),
        ({**BEST, "head": "sampled"}, "leave --head out"),
        ({**SEVERAL, "epochs": 3}, "leave --epochs out"),
        ({**BEST, "epochs": 3}, "leave --epochs out"),
        ({**BEST, "ensemble": "mean"}, "leave --ensemble out"),
        ({**SEVERAL, "budget": 60.0}, "leave --budget out"),
        ({**SEVERAL, "stream": True}, "leave --stream out"),
        ({**SEVERAL, "bfloat16": True}, "leave --bfloat16 out"),
        ({"budget": 60.0}, "leave --budget out"),
        ({"ensemble": "mean"}, "name --backbone more than once"),
        ({"stream": True}, "leave --stream out"),
        ({"bfloat16": True}, "name --transfer all"),
        ({"rare": True, "transfer": "all"}, "leave --transfer out"),
        ({"transfer": "scratch", "weights": "my.pth"}, "leave --weights out"),
    ],
)
def test_what_cannot_be_combined_is_one_sentence(
    insects: Path, tmp_path: Path, wishes: dict[str, Any], said: str
) -> None:
    """Nothing that was asked for is passed over in silence."""
    config = TrainConfig(**wishes)
    with pytest.raises(InputError, match=said):
        train(insects, config, out=tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_best_tries_the_networks_that_were_named_and_else_all_at_hand(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(models, "available", lambda _dir=None: list(NAMES))
    named = TrainConfig(backbone=NAMES[1], quality="best")
    assert ensemble._names(named) == (NAMES[1],)
    assert ensemble._names(replace(named, also=NAMES[:1])) == (NAMES[1], NAMES[0])
    assert ensemble._names(TrainConfig(quality="best")) == (models.DEFAULT, *NAMES)


def test_a_budget_is_a_length_of_time() -> None:
    assert [seconds(text) for text in ("90", "90s", "30m", "1.5h")] == [90, 90, 1800, 5400]
    for bad in ("", "soon", "-5m", "0", "5d", "30m "[::-1] + "x"):
        with pytest.raises(InputError, match="--budget"):
            seconds(bad)
