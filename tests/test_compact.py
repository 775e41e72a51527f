"""Small models: distillation, int8 rows, what a network takes to run, and the choice within a budget."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.test_finetune import CLASSES, crops, tiny
from torch.nn import functional

from fieldmark import models
from fieldmark.experiments import Budget, Options, Run, StudyConfig, StudyResult, compact, study
from fieldmark.experiments.compact_models import choose
from fieldmark.experiments.recipes import RECIPES
from fieldmark.experiments.records import CurvePoint, StudyRow
from fieldmark.experiments.study import compacting
from fieldmark.experiments.study.networks import Networks
from fieldmark.inference.classifier import Classifier
from fieldmark.training import finetune
from fieldmark.training.finetune import FineTuning, Teacher, channels, distillation, rounds
from fieldmark.utils.errors import InputError

HOW = FineTuning("all", epochs=2, batch_size=8, learning_rate=3e-3)
LARGE, SMALL = "test_efficientnet", "test_resnet"
HEAD: dict[str, Any] = {"transfer": "all", "pruned": False, "part": "test", "epochs": 1}
TUNED: dict[str, Any] = {**HEAD, "mode": "tuned", "keep": True}
RUNS = [
    Run("compact", "large", LARGE, **TUNED),
    Run("compact", "small", SMALL, **TUNED),
    Run("compact", "taught", SMALL, teacher="large", **TUNED),
    Run("compact", "taught, int8", SMALL, mode="int8", source="taught", **HEAD),
    Run("compact", "narrow", SMALL, channels=0.5, **TUNED),
]
CONFIG = StudyConfig(Options(epochs=1), engine="torch", groups="none", test=0.25)


# Distillation


def test_the_loss_is_that_of_the_labels_and_of_the_teacher() -> None:
    teacher, batch = Teacher(tiny(1), 24), crops(6, 24)
    pixels, labels = batch.batch(np.arange(6))
    logits = torch.randn(6, CLASSES, generator=torch.Generator().manual_seed(0))
    own, t = functional.cross_entropy(logits, labels), distillation.TEMPERATURE
    p = (teacher.logits(pixels) / t).softmax(1)
    apart = (p * (p.log() - (logits / t).log_softmax(1))).sum(1).mean()
    expected = (1 - distillation.WEIGHT) * own + distillation.WEIGHT * t * t * apart
    torch.testing.assert_close(teacher.loss(own, logits, pixels), expected)


def test_a_student_comes_closer_to_its_teacher_than_labels_bring_it() -> None:
    batch, val = crops(48, 24), crops(9, 24, 100)
    master, how = tiny(1), replace(HOW, epochs=8)
    finetune.finetune(master, batch, val, how)
    teacher, pixels = Teacher(master, 24), batch.batch(np.arange(48))[0]
    before = {name: tensor.clone() for name, tensor in master.state_dict().items()}
    apart = []
    for taught in (None, teacher):
        student = tiny(2)
        finetune.finetune(student, batch, val, how, teacher=taught)
        with torch.no_grad():
            q, p = (each(pixels).log_softmax(1) for each in (student.eval(), master.eval()))
        apart.append(float(functional.kl_div(q, p, reduction="batchmean", log_target=True)))
    assert apart[1] < 0.8 * apart[0]
    assert all(torch.equal(before[name], tensor) for name, tensor in master.state_dict().items())


def test_a_teacher_of_another_side_sees_resized_crops_and_a_checkpoint_of_another_is_ignored(
    tmp_path: Path,
) -> None:
    small = Teacher(tiny(1), 24)
    assert small.logits(torch.zeros(2, 48, 48, 3, dtype=torch.uint8)).shape == (2, CLASSES)
    assert small.key == Teacher(tiny(1), 24).key != Teacher(tiny(3), 24).key
    batch, val, file = crops(24, 24), crops(9, 24, 100), tmp_path / "state.safetensors"
    with pytest.raises(finetune.Stopped):
        finetune.finetune(tiny(), batch, val, HOW, checkpoint=file, teacher=small, stop=lambda: True)
    other, alone = tiny(), tiny()
    finetune.finetune(other, batch, val, HOW, checkpoint=file)
    finetune.finetune(alone, batch, val, HOW)
    assert all(torch.equal(tensor, alone.state_dict()[name]) for name, tensor in other.state_dict().items())


# Channels


def test_channels_are_removed_from_all_layers_but_the_last() -> None:
    network = models.load(SMALL, weights="random").trainable(CLASSES, 0).train()
    before = sum(each.numel() for each in network.parameters())
    found, sizes = channels.Channels(network, 0.5, 2, side := 64), [before]
    for _ in range(2):
        found.remove()
        sizes.append(sum(each.numel() for each in network.parameters()))
    assert sizes[2] < 0.5 * sizes[0] < sizes[1] < sizes[0]
    assert network.training
    scores = network(torch.zeros(2, side, side, 3, dtype=torch.uint8))
    assert scores.shape == (2, CLASSES)


def test_channels_of_small_weights_go_first_and_a_layer_keeps_a_fifth() -> None:
    network = models.load(SMALL, weights="random").trainable(CLASSES, 0)
    block = network.network.layer3[0]
    with torch.no_grad():
        for each in (block.conv1, block.bn1, block.conv2):
            each.weight.mul_(1e-3)
    before = {name: len(each) for name, each in network.named_parameters()}
    channels.Channels(network, 0.04, 1, 64).remove()
    smaller = {name for name, each in network.named_parameters() if len(each) < before[name]}
    assert smaller == {f"network.layer3.0.{name}" for name in ("conv1.weight", "bn1.weight", "bn1.bias")}
    assert 0.2 * before["network.layer3.0.conv1.weight"] <= len(block.conv1.weight)


def test_grouped_convolutions_lose_the_same_places_of_each_group() -> None:
    network = models.load("resnext50_32x4d", weights="random").trainable(CLASSES, 0)
    block = network.network.layer4[1]
    with torch.no_grad():
        for each in (block.conv1, block.bn1, block.conv2, block.bn2, block.conv3):
            each.weight.mul_(1e-3)
    channels.Channels(network, 0.02, 1, 64).remove()
    assert block.conv2.weight.shape == (32 * 8, 8, 3, 3)  # of 32 places in each of 32 groups a fifth, rounded
    assert block.conv2.groups == 32


def test_more_channels_than_may_go_are_one_sentence() -> None:
    network = models.load(SMALL, weights="random").trainable(CLASSES, 0)
    with pytest.raises(InputError, match="so many channels of this network cannot be removed"):
        channels.check(network, 0.99, 64)


def test_rows_whose_channels_cannot_be_removed_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    """Those of a ShuffleNet, which divides its channels in two at each block, and what is made from them."""
    name = "shufflenet_v2_x0_5"
    runs = [
        Run("compact", "whole", name, **TUNED),
        Run("compact", "narrow", name, channels=0.5, **TUNED),
        Run("compact", "narrow, int8", name, mode="int8", source="narrow", **HEAD),
    ]
    networks = Networks({name: models.load(name, weights="random")}, {}, [])
    with caplog.at_level("INFO", "fieldmark"):
        assert compacting.possible(runs, networks) == runs[:1]
    assert "“narrow” is left out: the channels of this network cannot be removed" in caplog.text


# Rows, and the classifier


pytestmark = pytest.mark.usefixtures("one_cache")


@pytest.fixture(scope="module")
def made(insects: Path, kept: Path, tmp_path_factory: pytest.TempPathFactory) -> StudyResult:
    """A study of four models. Not to be changed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIELDMARK_CACHE", str(kept))
        return study(insects, RUNS, CONFIG, out=tmp_path_factory.mktemp("study") / "out")


def test_rows_have_what_a_model_takes_and_their_networks_are_kept(made: StudyResult) -> None:
    large, small, taught, int8, narrow = made.rows
    for row in made.rows:
        assert isinstance(row.rate, float)
        assert row.rate > 0
        assert isinstance(row.memory_megabytes, float)
        assert row.memory_megabytes > 1  # this process has taken more than the one that is measured
        assert isinstance(row.file_megabytes, float)
        assert row.curve[-1].val_error is not None
    assert small.file_megabytes == pytest.approx(taught.file_megabytes, rel=0.01)
    assert float(int8.file_megabytes) < 0.6 * float(small.file_megabytes)  # type: ignore[arg-type]
    assert (int8.network, taught.network) == (taught.id, taught.id)
    files = {path.stem for path in (made.folder / "networks").iterdir()}
    assert files == {large.id, small.id, taught.id, narrow.id}
    assert float(narrow.file_megabytes) < 0.6 * float(small.file_megabytes)  # type: ignore[arg-type]
    assert len(narrow.curve) == rounds.ROUNDS + 1
    assert "photos/s" in (made.folder / "report.html").read_text()


def test_the_same_call_reuses_all_rows(made: StudyResult, insects: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (made.folder / "networks").iterdir()}
    again = study(insects, RUNS, CONFIG, out=made.folder)
    assert again.rows == made.rows
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.parametrize("label", ["small", "taught, int8", "narrow"])
def test_a_model_becomes_an_ordinary_classifier(
    made: StudyResult, label: str, tmp_path: Path, draw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fieldmark.experiments.compact_models.choose", lambda rows, _: rows[row])
    row = [each.label for each in made.rows].index(label)
    trained = compact(made.folder, tmp_path / "model")
    assert trained.summary.top1_error == pytest.approx(made.rows[row].val_top1_error)
    found = Classifier.load(tmp_path / "model")
    assert found.lead.network.tier.name == ("int8" if "int8" in label else "exact")
    assert found.predict(draw(0, 1)).answers
    assert found.provenance["compact"]["row"] == label
    scores = trained.classifier.predict_proba([draw(0, 1)])
    np.testing.assert_allclose(found.predict_proba([draw(0, 1)]), scores, atol=1e-4)


def test_the_command_makes_one_and_refuses_what_cannot_be(
    made: StudyResult, tmp_path: Path, run: Any
) -> None:
    done = run("export", made.folder, "--compact", tmp_path / "model", "--max-size", "5MB")
    assert done.code == 0, done.err
    assert (tmp_path / "model" / "report.html").is_file()
    other = tmp_path / "other"
    for options, told in (
        (["--compact", other, "--max-size", "1kB"], "the smallest file has"),
        (["--compact", other, "--max-size", "much"], "give megabytes, such as 5MB"),
        (["--compact", other, "--min-rate", "0"], "must be above 0"),
        (["--compact", other, "--compute", "int8"], "leave them out with --compact"),
        (["--onnx", other, "--max-size", "5MB"], "name a folder with --compact"),
        (["--compact", other, "--onnx", other], "Name a file with --onnx"),
        ([], "Name a file with --onnx"),
    ):
        refused = run("export", made.folder, *options)
        assert refused.code == 2
        assert told in " ".join(refused.err.split())
        assert not other.exists()


def test_a_network_that_is_gone_is_one_sentence(made: StudyResult, tmp_path: Path) -> None:
    import shutil

    copy = shutil.copytree(made.folder, tmp_path / "copy")
    for path in (copy / "networks").iterdir():
        path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match=r"missing or damaged: delete .* and run the same study again"):
        compact(copy, tmp_path / "model")


# The choice


def row(label: str, error: float | None, size: float, rate: float) -> StudyRow:
    curve = (CurvePoint(1, None, None, error),)
    return StudyRow(label=label, curve=curve, file_megabytes=size, rate=rate, memory_megabytes=2 * size)


ROWS = (
    *(row("a", 0.1, 20.0, 30.0), row("b", 0.2, 5.0, 60.0), row("c", 0.2, 4.0, 50.0)),
    *(row("d", 0.4, 1.0, 90.0), row("e", None, 0.5, 99.0), StudyRow(label="f")),
)


@pytest.mark.parametrize(
    ("budget", "label"),
    [
        (Budget(), "a"),
        (Budget(megabytes=20.0), "a"),
        (Budget(megabytes=19.9), "c"),  # b has the same error, and a larger file
        (Budget(megabytes=19.9, rate=55.0), "b"),
        (Budget(memory_megabytes=2.0), "d"),
    ],
)
def test_the_lowest_validation_error_within_the_budget_is_chosen(
    budget: Budget, label: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "fieldmark"):
        assert choose(ROWS, budget).label == label
    best = choose(ROWS, Budget()).label
    assert (f"Without the budget: {best}" in caplog.text) == (label != best)


def test_a_budget_that_nothing_keeps_says_what_there_is() -> None:
    with pytest.raises(InputError, match=r"smallest file has 1.0 MB \(d\).*90 photos a second \(d\)"):
        choose(ROWS, Budget(megabytes=0.6))
    with pytest.raises(InputError, match="run fieldmark study compact"):
        choose(ROWS[-2:], Budget())


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"teacher": "nobody"}, "needs the network of an earlier row 'nobody'"),
        ({"teacher": "large", "sparsity": 0.5}, "leave one of them out"),
        ({"channels": 0.5, "sparsity": 0.5}, "leave one of them out"),
        ({"source": "large"}, "needs a source, and no other mode has one"),
        ({"mode": "int8", "keep": False}, "needs a source"),
        ({"mode": "cached", "transfer": "last", "part": "val"}, "its mode must be 'tuned'"),
    ],
)
def test_a_row_that_cannot_be_is_one_sentence(
    how: dict[str, Any], told: str, insects: Path, tmp_path: Path
) -> None:
    bad = Run("compact", "bad", SMALL, **{**TUNED, **how})
    with pytest.raises(InputError, match=told):
        study(insects, [RUNS[0], bad], CONFIG, out=tmp_path / "s")


def test_the_recipe_has_teachers_and_int8_after_what_they_need() -> None:
    runs = RECIPES["compact"](Options(backbones=("alexnet", "squeezenet1_1"))).runs
    labels = [run.label for run in runs]
    assert len({run.id for run in runs}) == len(runs)
    for number, run in enumerate(runs):
        for label in filter(None, (run.teacher, run.source)):
            assert label in labels[:number]
