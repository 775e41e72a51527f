"""The study: every row complete and traceable, nothing shown as what it is not, cut off and resumed."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import save_file

from fieldmark import cli, models
from fieldmark.evaluation.results import Evaluation
from fieldmark.experiments.recipes import RECIPES, find
from fieldmark.experiments.records import StudyRow
from fieldmark.experiments.runs import Options, Recipe, Run
from fieldmark.experiments.study import StudyConfig, StudyResult, modes, study
from fieldmark.experiments.study.context import StudyContext
from fieldmark.heads.softmax import Epoch
from fieldmark.training import finetune
from fieldmark.training.finetune import good
from fieldmark.training.finetune.checkpoint import TrainingState
from fieldmark.utils import io
from fieldmark.utils.errors import InputError

pytestmark = pytest.mark.usefixtures("one_cache")


KEYS = {
    *("table", "backbone", "weights", "transfer", "pruned", "epochs", "val_top1_error"),
    *("val_top1_error_interval", "val_top1_error_all_classes"),
    *("val_top1_error_all_classes_interval", "val_top5_error", "train_seconds"),
    *("extract_seconds", "curve"),
}
SHUFFLE, SQUEEZE = "shufflenet_v2_x0_5", "squeezenet1_1"


def recipe(epochs: int = 2) -> Recipe:
    """Every mode once, with the two smallest networks."""
    runs = (
        Run("one", "Shuffle", SHUFFLE, epochs=epochs),
        Run("one", "Squeeze", SQUEEZE, epochs=epochs),
        Run("test", "Best", best_of="one", part="test", epochs=epochs),
        Run("mean", "Mean", mode="ensemble", members="one", epochs=epochs),
        Run("literal", "Shuffle", SHUFFLE, epochs=epochs, mode="literal"),
        Run("curves", "All", SHUFFLE, "all", epochs=epochs, mode="finetune"),
        Run("curves", "Scratch", SHUFFLE, "scratch", pruned=False, epochs=epochs, mode="finetune"),
    )
    return Recipe("small", "A small study", runs)


@pytest.fixture(scope="session")
def weights_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of SqueezeNet alone: the other network's cannot be had."""
    folder = tmp_path_factory.mktemp("weights")
    state = models.load(SQUEEZE, weights="random", seed=7).network.state_dict()
    save_file(
        {name: tensor.contiguous() for name, tensor in state.items()}, folder / f"{SQUEEZE}.safetensors"
    )
    return folder


@pytest.fixture(scope="module")
def config(weights_dir: Path) -> StudyConfig:
    return StudyConfig(
        groups="none",  # drawn photos look alike
        options=Options(epochs=2),
        weights_dir=weights_dir,
        engine="torch",
        prune_below=2,
        limit=24,
    )


@pytest.fixture(scope="module")
def done(
    insects: Path, config: StudyConfig, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, StudyResult]:
    """A finished study. Not to be changed."""
    folder = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIELDMARK_CACHE", str(folder / "cache"))
        found = study(insects, recipe(), config, out=folder / "out", command="fieldmark study small")
    return folder / "out", found


@pytest.fixture(autouse=True)
def cache(done: tuple[Path, StudyResult], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The features are computed once for all tests here."""
    monkeypatch.setenv("FIELDMARK_CACHE", str(done[0].parent / "cache"))
    return done[0].parent / "cache"


def test_every_row_is_complete_and_in_the_recipes_order(done: tuple[Path, StudyResult]) -> None:
    out, found = done
    assert json.loads((out / "study.json").read_text()) == found.to_dict()
    assert [row["id"] for row in found["rows"]] == [run.id for run in recipe().runs]
    assert found["finished"] is True
    for row in found["rows"]:
        assert set(row.to_dict()) >= KEYS, row["id"]
        low, high = row["val_top1_error_interval"]
        assert 0 <= low <= row["val_top1_error"] <= high <= 1
        low, high = row["val_top1_error_all_classes_interval"]
        assert 0 <= low <= row["val_top1_error_all_classes"] <= high <= 1
        assert row["train_seconds"] > 0
        epochs = [epoch["epoch"] for epoch in row["curve"]]
        assert epochs == ([] if row["mode"] == "ensemble" else [1, 2])


def test_every_number_can_be_computed_again_from_the_kept_scores(done: tuple[Path, StudyResult]) -> None:
    out, found = done
    for row in found["rows"]:
        summary = Evaluation.load(out / row["scores"]).summary()
        for name in ("top1_error", "top1_error_all_classes", "top5_error"):
            assert row[f"val_{name}"] == summary[name], row["id"]
        assert row["val_top1_error_interval"] == summary["top1_error_interval"]


def test_the_ensemble_is_the_mean_of_the_probabilities(done: tuple[Path, StudyResult]) -> None:
    out, found = done
    members = [Evaluation.load(out / row["scores"]) for row in found["rows"] if row["table"] == "one"]
    (row,) = (row for row in found["rows"] if row["table"] == "mean")

    def probabilities(each: Evaluation) -> np.ndarray:
        p = np.exp(each.scores_NC.astype(np.float64))
        return p / p.sum(1, keepdims=True)

    mean = np.mean([probabilities(each) for each in members], axis=0)
    ensemble = Evaluation.load(out / row["scores"])
    np.testing.assert_allclose(probabilities(ensemble), mean, atol=1e-5)
    assert row["backbone"] == f"{SHUFFLE}+{SQUEEZE}"


def test_the_best_row_is_measured_on_other_photos(done: tuple[Path, StudyResult]) -> None:
    out, found = done
    rows = {row["table"]: row for row in found["rows"]}
    on_val = Evaluation.load(out / rows["one"]["scores"])
    on_test = Evaluation.load(out / rows["test"]["scores"])
    assert rows["test"]["part"] == "test"
    assert not set(on_val.photo_ids) & set(on_test.photo_ids)


def test_a_network_without_weights_is_never_shown_as_pretrained(done: tuple[Path, StudyResult]) -> None:
    out, found = done
    page = (out / "report.html").read_text()
    for row in found["rows"]:
        if row["backbone"] == SHUFFLE:
            assert row["weights"] == "random"
        elif row["backbone"] == SQUEEZE:
            assert "sha256:" in row["weights"]
            assert row["weights_complete"]
        if row["backbone"] == SHUFFLE and row["transfer"] != "scratch":
            assert not row["weights_complete"]
            assert row["weights_short"] == "random weights"
        if row["mode"] == "ensemble":
            assert not row["weights_complete"]
    assert "random weights" in page


def test_networks_without_weights_are_skipped_where_that_is_wanted(
    insects: Path, config: StudyConfig, tmp_path: Path
) -> None:
    from dataclasses import replace

    found = study(insects, recipe(), replace(config, skip_missing=True), out=tmp_path, command="c")
    assert {row["backbone"] for row in found["rows"]} == {SQUEEZE}
    assert [row["table"] for row in found["rows"] if row["mode"] == "ensemble"] == ["mean"]
    assert [each["backbone"] for each in found["skipped"]] == [SHUFFLE]
    assert SHUFFLE in (tmp_path / "report.html").read_text()
    alone = Recipe("alone", "Alone", tuple(r for r in recipe().runs if r.backbone != SQUEEZE))
    with pytest.raises(InputError, match="--weights-dir"):
        study(insects, alone, replace(config, skip_missing=True), out=tmp_path / "b", command="c")


def test_the_report_is_one_file(done: tuple[Path, StudyResult]) -> None:
    page = (done[0] / "report.html").read_text()
    assert "fieldmark study small" in page
    for outside in ('src="http', "src='http", '<link rel="stylesheet"', "@import"):
        assert outside not in page


def test_a_finished_study_computes_nothing_again(
    insects: Path, config: StudyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = Recipe("small", "Small", recipe().runs[:4])
    study(insects, small, config, out=tmp_path, command="c")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "rows").iterdir()}
    monkeypatch.setattr(modes, "fit", None)  # not to be called
    study(insects, small, config, out=tmp_path, command="c")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "rows").iterdir()} == before


class Cut(BaseException):
    """The end of a process, for a test."""


def test_a_study_that_was_cut_off_goes_on(
    done: tuple[Path, StudyResult],
    insects: Path,
    config: StudyConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Cut in the middle of training all layers: kept rows stay as they are, training goes on from its
    last epoch, and the numbers are those of the study that was never cut."""
    keep, epochs = TrainingState.after_epoch, []

    def dying(self: TrainingState, entry: Epoch) -> None:
        keep(self, entry)
        epochs.append(len(self.curve))
        if len(epochs) == 3:  # two of the literal row, the first of the next
            raise Cut

    with monkeypatch.context() as patch:
        patch.setattr(TrainingState, "after_epoch", dying)
        with pytest.raises(Cut):
            study(insects, recipe(), config, out=tmp_path, command="c")
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "rows").iterdir()}
    assert len(kept) == 5
    assert io.read_json(tmp_path / "study.json")["finished"] is False
    epochs.clear()
    with monkeypatch.context() as patch:
        patch.setattr(TrainingState, "after_epoch", lambda self, s: (keep(self, s), epochs.append(1))[0])
        found = study(insects, recipe(), config, out=tmp_path, command="c")
    assert len(epochs) == 1 + 2  # the second epoch of the row that was cut, and the last row
    for path, changed in kept.items():
        assert path.stat().st_mtime_ns == changed, path.name
    for row, whole in zip(found["rows"], done[1]["rows"], strict=True):
        assert row["curve"] == whole["curve"], row["id"]
        assert row["val_top1_error"] == whole["val_top1_error"]
    assert not list((tmp_path / "checkpoints").iterdir())


def test_other_photos_or_another_seed_are_other_rows(
    insects: Path, config: StudyConfig, tmp_path: Path
) -> None:
    from dataclasses import replace

    small = Recipe("small", "Small", recipe().runs[1:2])
    keys = set()
    for change in (config, replace(config, limit=22), replace(config, options=Options(2, seed=1))):
        keys.add(study(insects, small, change, out=tmp_path, command="c")["rows"][0]["key"])
    assert len(keys) == 3


def test_a_damaged_row_is_computed_again(insects: Path, config: StudyConfig, tmp_path: Path) -> None:
    small = Recipe("small", "Small", recipe().runs[1:2])
    study(insects, small, config, out=tmp_path, command="c")
    (path,) = (tmp_path / "rows").iterdir()
    whole = path.read_text()
    error = json.loads(whole)["val_top1_error"]
    other = whole.replace(f'"val_top1_error": {error}', '"val_top1_error": 0.125')
    assert other != whole
    for damaged in ("{", "[]", "null", "[" * 100_000, other):
        path.write_text(damaged)
        found = study(insects, small, config, out=tmp_path, command="c")
        assert found["rows"][0]["val_top1_error"] == error
        assert json.loads(path.read_text())["val_top1_error"] == error


def test_the_papers_recipe_has_the_papers_tables() -> None:
    made = RECIPES["paper"](Options())
    tables = [run.table for run in made.runs]
    assert {"table2", "table3", "figure4", "test", "ensemble", "epochs"} <= set(tables)
    assert tables.count("table3") == 5
    figure4 = {run.transfer for run in made.runs if run.table == "figure4"}
    assert figure4 == {"scratch", "all", "last"}
    assert {run.pruned for run in made.runs if run.table == "table2"} == {True, False}
    assert all(run.epochs == 10 for run in made.runs if run.table != "epochs")
    assert len({run.id for run in made.runs}) == len(made.runs)


def test_a_copied_recipe_can_be_changed(tmp_path: Path) -> None:
    text = Path(sys.modules["fieldmark.experiments.recipes"].__file__ or "").read_text()
    (tmp_path / "mine.py").write_text(text + "\nrecipe = paper\n")
    made = find(str(tmp_path / "mine.py"))(Options(epochs=3))
    assert made.runs[0].epochs == 3


def test_table_3_of_the_paper_from_the_command_line(
    insects: Path, weights_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["study", "paper", insects, "--out", tmp_path / "out", "--only", "table3"]
    arguments += ["--limit", 20, "--epochs", 2, "--engine", "torch", "--weights-dir", weights_dir]
    monkeypatch.setattr(sys, "argv", ["fieldmark", *(str(each) for each in arguments)])
    cli.main()
    found = io.read_json(tmp_path / "out" / "study.json")
    assert [row["label"] for row in found["rows"]] == [
        *("AlexNet", "DenseNet", "SqueezeNet", "ShuffleNet", "ResNeXt")
    ]
    for row in found["rows"]:
        assert set(row) >= KEYS
        assert (row["weights"] == "random") == (row["backbone"] != SQUEEZE)
        assert row["extract_seconds"] > 0
    assert "study paper" in found["command"]
    assert "--only table3" in found["command"]


def test_networks_are_tuned_beside_the_last_layer_that_they_go_on_from(
    insects: Path, config: StudyConfig, tmp_path: Path
) -> None:
    """Each by the good recipe, from the last layer that was learned first, on photos no choice saw."""
    made = _small(RECIPES["tuned"](Options(epochs=1)), ["tuned"])
    found = study(insects, made, config, out=tmp_path, command="c")
    ways = [row["transfer"] for row in found["rows"]]
    assert ways == ["last", "all", "low-rank", "adapters"]
    first, *tuned = found["rows"]
    photos = {tuple(Evaluation.load(tmp_path / row["scores"]).photo_ids) for row in found["rows"]}
    assert len(photos) == 1
    assert first["photos"] == found["data"]["split"]["test"]
    over_all = [each for each in found.differences if each.over == "all"]
    assert [(each.row, each.reference) for each in over_all] == [(row["id"], first["id"]) for row in tuned]
    assert "Fine-tuning compared with the last layer alone" in (tmp_path / "report.html").read_text()
    for row in tuned:
        assert len(row["curve"]) == 1
        assert row["train_seconds"] > 0
        assert Evaluation.load(tmp_path / row["scores"]).scores_NC.shape[1] == row["classes"]


def test_one_thing_of_the_recipe_of_fine_tuning_is_changed_at_a_time(
    insects: Path, config: StudyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row of a change is that of the recipe with it; the other rows are that of the whole recipe."""
    photos = "Photos as they are: no crops, no RandAugment"
    labels = ("All of it", "Without the last layer learned first", "Without weight decay", photos)
    made = _small(RECIPES["tuned"](Options(epochs=1)), ["parts"])
    runs = tuple(run for run in made.runs if run.label in labels)
    again = replace(runs[0], label="Again", changes={"accumulate": 2})
    sides = set()
    tune = finetune.finetune

    def seen(network: Any, train: Any, val: Any, how: Any, **more: Any) -> Any:
        sides.add((how.random_crop, train.side, val.side))
        return tune(network, train, val, how, **more)

    monkeypatch.setattr(finetune, "finetune", seen)
    found = study(insects, replace(made, runs=(*runs, again)), config, out=tmp_path, command="c")
    assert sides == {(True, 256, 224), (False, 224, 224)}  # learned at the size it is measured at
    whole, headless, undecayed, _, same = (
        Evaluation.load(tmp_path / row["scores"]).scores_NC for row in found["rows"]
    )
    np.testing.assert_array_equal(whole, same)  # as it is in the recipe anyway
    assert np.abs(whole - headless).mean() > 10 * np.abs(whole - undecayed).mean() > 0
    assert found["rows"][1]["id"].endswith("tuned-1ep-head_first=False-test")
    assert "The parts of the fine-tuning recipe" in (tmp_path / "report.html").read_text()


def test_the_parts_of_the_recipe_are_what_it_has() -> None:
    """No row changes a thing into what it was."""
    for run in RECIPES["tuned"](Options()).runs:
        how = good("all")
        assert not run.changes or replace(how, **run.changes) != how, run.label


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"mode": "tuned", "changes": {"learning_speed": 1}}, "learning_speed: choose from .*clip"),
        ({"changes": {"clip": 1.0}}, "its mode must be 'tuned', not 'cached'"),
        ({"part": "cross"}, "its part must be 'val' or 'test'"),
        ({"mode": "head", "head": "softmax"}, "its part must be 'cross' or 'test'"),
        ({"mode": "early", "part": "test"}, "its part must be 'cross'"),
        (
            {"mode": "ensemble", "backbone": "", "members": "table3", "part": "cross"},
            "its part must be 'val'",
        ),
    ],
)
def test_what_a_row_cannot_be_is_one_sentence(
    how: dict[str, Any], said: str, insects: Path, config: StudyConfig, tmp_path: Path
) -> None:
    wrong = Run("wrong", "A", **{"backbone": SQUEEZE, **how})
    made = Recipe("mine", "Mine", (Run("table3", "B", SQUEEZE), wrong))
    with pytest.raises(InputError, match=said):
        study(insects, made, config, out=tmp_path / "out", command="c")
    assert not (tmp_path / "out").exists()


def _small(recipe: Recipe, tables: list[str]) -> Recipe:
    """Some tables of a recipe, with a network that has weights here."""
    runs = (replace(run, backbone=SQUEEZE) for run in recipe.runs if run.table in tables)
    return replace(recipe, runs=tuple(runs))


def test_the_reference_is_the_recipes_first_row_whichever_was_done_first() -> None:
    """Rows come as soon as their features are there; the tables do not depend on that."""
    runs = [Run("networks", label, label) for label in ("a", "b", "c")]
    nothing: Any = None
    context = StudyContext(runs, nothing, nothing, nothing, nothing, Path(), nothing)
    for run in (runs[2], runs[0], runs[1]):
        context.rows[run.id] = StudyRow(table=run.table, label=run.label)
        known = [row.label for row in context.table("networks")]
        assert known == sorted(known)
    assert known == ["a", "b", "c"]


def test_a_threshold_that_leaves_nothing_is_left_out_and_said(
    insects: Path, config: StudyConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    how: dict[str, Any] = {"mode": "tail", "head": "plain", "part": "cross", "epochs": 2}
    rows = [Run("prune", f"below {n}", SQUEEZE, prune_below=n, **how) for n in (2, 1000)]
    made = Recipe("mine", "Mine", (Run("prune", "all", SQUEEZE, pruned=False, **how), *rows))
    found = study(insects, made, config, out=tmp_path / "out", command="c")
    assert [row["label"] for row in found["rows"]] == ["all", "below 2"]
    assert "“below 1000” is left out: pruning would leave 0 of 4 classes" in capsys.readouterr().err
    with pytest.raises(InputError, match="less than two classes: lower --prune-below"):
        study(insects, replace(made, runs=(rows[1],)), config, out=tmp_path / "none", command="c")


def test_rows_that_cannot_be_measured_are_said_and_stop_nothing(
    draw: Any, config: StudyConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Kinds with one photo each: none of those to measure on is of a kind that is learned."""
    for label in range(12):
        folder = tmp_path / "photos" / f"kind {label}"
        folder.mkdir(parents=True)
        (folder / "a.jpg").write_bytes(draw(label % 4, label))
    how: dict[str, Any] = {"pruned": False, "epochs": 2}
    tail = Run("tail", "Tail", SQUEEZE, mode="tail", head="plain", part="test", **how)
    rows = (tail, Run("table3", "Plain", SQUEEZE, **how))
    few = replace(config, limit=None, prune_below=1)
    made = Recipe("mine", "Mine", rows)
    found = study(tmp_path / "photos", made, few, out=tmp_path / "out", command="c")
    assert [row["val_top1_error"] for row in found["rows"]] == [None, None]
    assert capsys.readouterr().err.count("not measured: no photo is of a class that is learned") == 2
    assert (tmp_path / "out" / "report.html").exists()
    best = Run("test", "Best", best_of="table3", part="test", **how)
    with pytest.raises(InputError, match=r"no row of table3 is the best"):
        study(tmp_path / "photos", replace(made, runs=(*rows, best)), few, out=tmp_path / "o", command="c")
