"""A study from Python: any form of photos and recipe, own networks and losses, a frame of results."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import nn
from torch.nn import functional

from fieldmark.data import cross_validation
from fieldmark.data.dataset import Dataset, load_dataset
from fieldmark.data.subset import LabelledPhotos
from fieldmark.evaluation.results import Evaluation
from fieldmark.experiments import Options, OwnNetwork, Recipe, Run, StudyConfig, StudyResult, study
from fieldmark.experiments.own import code_key, fit_head
from fieldmark.experiments.study import modes
from fieldmark.features.cache import Features
from fieldmark.features.labelled import LabelledFeatures
from fieldmark.heads.softmax import Hyperparameters, Training, fit
from fieldmark.utils import memory
from fieldmark.utils.errors import InputError


class Colours(nn.Module):
    """The mean colour of a photo in each of 16 tiles: features (N, 48)."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(4)
        self.scale = nn.Parameter(torch.ones(3, 1, 1))

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.pool(crops * self.scale).flatten(1)
        return features


def with_last_layer() -> nn.Module:
    """The same with a last layer of its own."""
    return nn.Sequential(Colours(), nn.Linear(48, 10))


def focal(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The focal loss with gamma 2."""
    p = logits.softmax(1).gather(1, labels[:, None]).squeeze(1)
    return ((1 - p) ** 2 * functional.cross_entropy(logits, labels, reduction="none")).mean()


OWN: dict[str, Any] = {"pruned": False, "epochs": 3}
CONFIG = StudyConfig(Options(epochs=3), engine="torch", limit=40, groups="none")
TOP = OwnNetwork(with_last_layer, last_layer="1", side=64, pretrained=True)


@pytest.fixture(scope="module")
def result(insects: Path, tmp_path_factory: pytest.TempPathFactory) -> StudyResult:
    """A study of own networks and losses, in a folder of its own. Not to be changed."""
    runs = [
        Run("own", "Features", network=Colours, **OWN),
        Run("own", "Last layer", network=TOP, **OWN),
        Run("own", "Focal", network=TOP, loss=focal, **OWN),
        Run("trained", "Literal", network=TOP, mode="literal", **OWN),
        Run("trained", "All, focal", "", "all", network=TOP, mode="tuned", loss=focal, **OWN),
        Run("folds", "Head", network=Colours, mode="head", head="softmax", part="cross", **OWN),
        Run(
            *("folds", "Focal"),
            **{**OWN, "network": Colours, "loss": focal},
            **{"mode": "head", "head": "softmax", "part": "cross"},
        ),
    ]
    folder = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIELDMARK_CACHE", str(folder / "cache"))
        return study(insects, runs, CONFIG, out=folder / "out")


def test_own_networks_and_losses_make_rows(result: StudyResult) -> None:
    rows = {(row.table, row.label): row for row in result.rows}
    assert len(rows) == 7
    assert rows["own", "Features"].backbone == "Colours"
    assert rows["own", "Features"].weights == "random"
    assert rows["own", "Features"].badge == "random weights"
    assert rows["own", "Last layer"].backbone == "with_last_layer"
    assert rows["own", "Last layer"].badge == ""
    assert "own weights of with_last_layer sha256:" in rows["own", "Last layer"].weights
    assert rows["own", "Focal"].id.endswith("-focal")
    for row in result.rows:
        assert row.val_top1_error is not None
        assert len(row.curve) >= 3
        assert row.giga_macs
        assert result.evaluation(row).scores_NC.shape == (row.photos, row.classes)
    one, other = (result.evaluation(rows["own", label]).scores_NC for label in ("Last layer", "Focal"))
    assert np.abs(one - other).max() > 1e-5


def test_the_rows_are_a_frame(result: StudyResult) -> None:
    frame = result.to_frame()
    assert frame.height == len(result.rows)
    assert frame["label"].to_list() == [row.label for row in result.rows]
    assert frame["top1_error"].to_list() == [row.val_top1_error for row in result.rows]
    assert frame.schema["log_loss_nats"] == pl.Float64
    documented = StudyResult.to_frame.__doc__ or ""
    for name in frame.columns:
        stem = name.removesuffix("_low").removesuffix("_high").removesuffix("_tie")
        assert f"`{stem}`" in documented, name
    first = frame.row(0, named=True)
    assert first["reference"] is None
    assert first["difference_all"] is None


def test_every_row_is_compared_with_the_first_of_its_table(result: StudyResult) -> None:
    firsts: dict[str, str] = {}
    for row in result.rows:
        reference = firsts.setdefault(row.table, row.id)
        found = result.record.difference(row.id, "all")
        if row.id == reference:
            assert found is None
            continue
        assert found is not None
        assert (found.table, found.reference) == (row.table, reference)
        other = next(each for each in result.rows if each.id == reference)
        pair = (result.evaluation(each).wrong_N().mean() for each in (row, other))
        assert found.value == pytest.approx(float(np.subtract(*pair)))
        assert found.interval[0] <= found.value <= found.interval[1]
        assert found.tie == (found.interval[0] <= 0 <= found.interval[1])
        assert found.photos == row.photos
    assert StudyResult.load(result.folder).record == result.record


@pytest.mark.parametrize("mode", ["literal", "tuned"])
def test_a_run_that_does_not_fit_into_the_memory_is_refused(
    insects: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: Any
) -> None:
    monkeypatch.setenv("FIELDMARK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(memory, "available", lambda: 2**10)
    run = Run("trained", "All", "", "all", network=TOP, mode=mode, **OWN)
    with pytest.raises(InputError, match=r"trained.*: Fine-tuning would take about .* is available\.$"):
        study(insects, [run], CONFIG)


def test_a_data_set_and_a_recipe_of_any_form(
    insects: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIELDMARK_CACHE", str(tmp_path / "cache"))
    dataset = load_dataset(insects, limit=40)
    run = Run("own", "Features", network=Colours, **OWN)
    recipe = Recipe("mine", "Mine", (run,))
    config = replace(CONFIG, limit=None)
    errors = set()
    for form in (recipe, [run], lambda options: recipe):
        found = study(dataset, form, config)
        assert (found.folder / "report.html").exists()
        errors.add(found.rows[0].val_top1_error)
    assert len(errors) == 1
    folder = found.folder
    again = study(dataset, recipe, config, out=tmp_path / "out")
    assert again.rows[0].val_top1_error in errors
    del found
    assert not folder.exists()
    with pytest.raises(InputError, match=r"divided already, so limit=40"):
        study(dataset, recipe, CONFIG)
    for nothing in ([], ["paper"]):
        with pytest.raises(InputError, match="A recipe is a name, a Recipe"):
            study(dataset, nothing, config)


def test_changed_code_is_another_row_and_the_same_code_the_same(
    insects: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIELDMARK_CACHE", str(tmp_path / "cache"))

    def key(**how: Any) -> str:
        run = Run("own", "Features", network=TOP, **OWN, **how)
        return study(insects, [run], CONFIG, out=tmp_path / "out").rows[0].key

    plain = key()
    assert key() == plain
    versions = [
        key(loss=lambda s_NC, y_N: 2 * functional.cross_entropy(s_NC, y_N), version=version)
        for version in ("1", "2", "2")
    ]
    assert len({plain, *versions}) == 3
    assert versions[1] == versions[2]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"loss": lambda s_NC, y_N: s_NC.sum()}, "The loss <lambda> is a lambda"),
        ({"network": lambda: nn.Flatten(1)}, "The network <lambda> is a lambda"),
        ({"network": partial(nn.Flatten, 1)}, "has no source"),
        ({"loss": focal, "mode": "head", "head": "ridge", "part": "cross"}, "a loss of its own"),
        ({"loss": focal, "mode": "tuned", "changes": {"mixup": 0.2}}, "without mixup and cutmix"),
        ({"network": OwnNetwork(with_last_layer, last_layer="0")}, "layer is Colours, not Linear"),
        ({"network": OwnNetwork(with_last_layer, last_layer="no")}, "does not give features"),
    ],
)
def test_what_cannot_be_run_is_one_sentence(
    insects: Path, tmp_path: Path, how: dict[str, Any], message: str
) -> None:
    run = Run("own", "A", **{"network": TOP, **OWN, **how})
    with pytest.raises(InputError, match=message):
        study(insects, [run], CONFIG, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_two_networks_of_one_name_are_refused(insects: Path, tmp_path: Path) -> None:
    runs = [Run("own", "A", "same", network=TOP, **OWN), Run("own", "B", "same", network=Colours, **OWN)]
    with pytest.raises(InputError, match="Two different networks are called 'same'"):
        study(insects, runs, CONFIG, out=tmp_path / "out")


def test_the_source_of_a_closure_does_not_say_all() -> None:
    gamma = 2.0

    def closed(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return gamma * functional.cross_entropy(logits, labels)

    with pytest.raises(InputError, match="give it a version"):
        code_key(closed, "", "loss")
    assert code_key(closed, "3", "loss") == "version 3"
    assert code_key(focal, "", "loss") == code_key(focal, "", "loss") != code_key(Colours, "", "x")


def test_an_own_loss_that_is_the_cross_entropy_gives_the_usual_head() -> None:
    drawn = np.random.default_rng(0)
    labels = drawn.integers(0, 3, 90)
    vectors = (drawn.normal(size=(90, 8)) + labels[:, None]).astype(np.float32)
    ids = tuple(map(str, range(90)))
    photos = LabelledFeatures(Features.of(vectors), labels.astype(np.int64), ids)
    training = Training(epochs=4, batch_size=16)
    usual = fit(photos, photos, 3, training, Hyperparameters())
    head, curve, _ = fit_head(photos, photos, 3, training, functional.cross_entropy)
    np.testing.assert_allclose(head.weight, usual.head.weight, atol=1e-4)
    for one, other in zip(curve, usual.curve, strict=True):
        assert one.val_loss == pytest.approx(other.val_loss, abs=1e-4)
        assert one.train_loss == pytest.approx(other.train_loss, abs=1e-4)


def test_the_recipe_of_networks_compares_those_that_are_named(insects: Path, tmp_path: Path) -> None:
    names = ("shufflenet_v2_x0_5", "squeezenet1_1")
    tables = ("networks", "neighbours", "few", "together")
    config = StudyConfig(Options(backbones=names), only=tables, engine="torch", limit=60, groups="none")
    found = study(insects, "foundation", config, out=tmp_path / "study").record
    assert [len(found.table(name)) for name in tables] == [2, 2, 8, 3]
    [pair] = [row for row in found.table("together") if row.label == "Best pair"]
    assert list(pair.member_weights.values()) == [0.5, 0.5]
    labels = [row.label for row in found.table("few")]
    assert labels[:3] == [f"{names[0]}, 1 a class", f"{names[1]}, 1 a class", f"{names[0]}, 2 a class"]
    assert len({row.photos for name in ("networks", "few") for row in found.table(name)}) == 1
    page = (tmp_path / "study" / "report.html").read_text()
    assert all(title in page for title in ("Nearest neighbours", "Few photos of a class"))
    assert "Error over photos of a class" in page


def at_locations(photos: Path, locations: int) -> Dataset:
    """The photos, the n-th of each class at location n modulo `locations`; the last one at none."""
    dataset = load_dataset(photos)
    number = pl.int_range(pl.len()).over("taxon_id")
    place = pl.when(number < pl.len().over("taxon_id") - 1).then(pl.format("site {}", number % locations))
    frame = dataset.table.frame.with_columns(location=place)
    return replace(dataset, table=dataset.table.with_frame(frame))


def test_new_places_are_measured_by_heads_that_saw_none_of_their_photos(
    insects: Path, tmp_path: Path
) -> None:
    name, dataset = "shufflenet_v2_x0_5", at_locations(insects, 8)
    config = StudyConfig(Options(backbones=(name,)), only=("places",), engine="torch")
    found = study(dataset, "foundation", config, out=tmp_path / "study").record.table("places")
    assert [row.label for row in found] == [f"{name}, known places", f"{name}, new places"]
    assert [row.places for row in found] == ["seen", "new"]
    scores = [Evaluation.load(tmp_path / "study" / row.scores) for row in found]
    assert set(scores[0].photo_ids) == set(scores[1].photo_ids)
    assert {place for each in scores for place in each.groups} == {f"site {at}" for at in range(8)}
    both = cross_validation.together(*parts_of(dataset))
    photos, by_place = cross_validation.placed(both, dataset.table)
    for fold in cross_validation.rounds(by_place, 0):
        places = np.array(by_place.groups)
        assert not set(places[fold.measure]) & set(places[fold.learn | fold.choose])
    assert photos.groups == (None,) * len(photos)


def parts_of(dataset: Dataset) -> tuple[LabelledPhotos, LabelledPhotos]:
    return dataset.splits.train, dataset.splits.val


def test_without_locations_places_are_not_compared(insects: Path, tmp_path: Path) -> None:
    config = StudyConfig(
        Options(backbones=("shufflenet_v2_x0_5",)), only=("networks", "places"), engine="torch"
    )
    for photos in (load_dataset(insects), at_locations(insects, 3)):
        found = study(photos, "foundation", config, out=tmp_path / f"{id(photos)}").record
        assert not found.table("places")
        assert found.table("networks")
    with pytest.raises(InputError, match="photos with locations"):
        study(insects, "foundation", replace(config, only=("places",)), out=tmp_path / "none")


def test_recipes_with_networks_of_their_own_refuse_others(insects: Path, tmp_path: Path) -> None:
    config = StudyConfig(Options(backbones=("squeezenet1_1",)))
    with pytest.raises(InputError, match="names its networks itself"):
        study(insects, "paper", config, out=tmp_path / "study")


@pytest.mark.usefixtures("one_cache")
def test_the_same_run_of_two_tables_is_done_once(
    insects: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And each has its row, also when the study goes on after the row of one was lost."""
    done: list[str] = []
    do = modes.do

    def counted(context: Any, run: Run) -> Any:
        done.append(run.label)
        return do(context, run)

    monkeypatch.setattr(modes, "do", counted)
    one, other = Run("one", "A", network=Colours, **OWN), Run("two", "B", network=Colours, **OWN)
    longer = replace(other, label="C", epochs=4)
    first = study(insects, [one, other, longer], CONFIG, out=tmp_path / "study")
    assert done == ["A", "C"]
    a, b, _ = first.record.rows
    assert (b.id, b.table, b.label) == (other.id, "two", "B")
    assert replace(b, id=a.id, table=a.table, label=a.label, key=a.key) == a
    assert np.array_equal(first.evaluation(b).scores_NC, first.evaluation(a).scores_NC)
    (tmp_path / "study" / "rows" / f"{b.id}.json").unlink()
    again = study(insects, [one, other, longer], CONFIG, out=tmp_path / "study")
    assert (done, again.record.rows) == (["A", "C"], first.record.rows)
