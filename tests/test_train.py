"""Training as a whole: what it says is what it did, and the measure is of photos it never saw."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fieldmark.data import readers, subset
from fieldmark.data.dataset import load_dataset
from fieldmark.data.photos import PhotoTable
from fieldmark.data.split import Split, split_photos
from fieldmark.data.subset import DataSplits
from fieldmark.evaluation import metrics
from fieldmark.evaluation.results import Evaluation
from fieldmark.heads import logistic
from fieldmark.inference.classifier import Classifier
from fieldmark.inference.classifier.folder import KIND
from fieldmark.training import TrainConfig, sentence, train
from fieldmark.training.logit_adjustment import choose
from fieldmark.training.strategies import folds
from fieldmark.training.strategies.single import beside
from fieldmark.training.summary import ClassifierSummary, photo_line
from fieldmark.utils.errors import InputError
from fieldmark.utils.publishing import claimed

pytestmark = pytest.mark.usefixtures("one_cache")


NETWORK = TrainConfig(backbone="shufflenet_v2_x0_5", weights="random", engine="torch")


@pytest.fixture(scope="module")
def held_out(insects: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of the insects that is measured once, on a test part. Not to be changed."""
    folder = tmp_path_factory.mktemp("held out")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIELDMARK_CACHE", str(model.parent / "cache"))
        train(insects, out=folder / "model", config=replace(NETWORK, holdout=True))
    return folder / "model"


@pytest.fixture
def features_kept(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The features of the insects need not be computed again."""
    monkeypatch.setenv("FIELDMARK_CACHE", str(model.parent / "cache"))


def test_the_test_photos_are_none_of_those_it_learned_or_chose_by(held_out: Path) -> None:
    evaluation = Evaluation.load(held_out / "evaluation.safetensors")
    split = Split.read(held_out / "split.parquet")
    seen = {*split.ids("train"), *split.ids("val")}
    assert set(evaluation.photo_ids) == set(split.ids("test"))
    assert not seen & set(evaluation.photo_ids)
    told = json.loads((held_out / "evaluation.json").read_text())["measurement"]
    assert (told["way"], told["folds"], told["photos"]) == ("test part", 0, len(split.ids("test")))
    assert told["learned"] == len(split.ids("train"))


def test_by_default_every_photo_is_learned_from_and_measured_in_folds(model: Path) -> None:
    """What measures a photo never saw it; what is delivered learned from all."""
    split = Split.read(model / "split.parquet")
    assert split.way == "folds"
    assert (len(split.ids("train")), len(split.ids("val")), len(split.ids("test"))) == (64, 0, 0)
    evaluation = Evaluation.load(model / "evaluation.safetensors")
    assert sorted(evaluation.photo_ids) == sorted(split.ids("train"))
    summary = json.loads((model / "evaluation.json").read_text())
    told, about = summary["measurement"], json.loads((model / "classifier.json").read_text())["provenance"]
    assert (told["way"], told["folds"]) == ("folds", 5)
    assert (told["photos"], told["groups"], told["learned"]) == (64, 64, 64)
    assert told["unmeasured"] == told["few_groups"] == []
    assert about["test"] == sentence(ClassifierSummary.from_dict(summary))
    assert "photos, each measured without it" in about["test"]
    assert about["photos"]["train"] == 64
    assert about["chosen"]["head"] in [each["head"] for each in about["tried"]]
    least = min(about["tried"], key=lambda each: each["out_of_fold_loss"])
    assert about["chosen"]["head"] == least["head"]


@pytest.mark.usefixtures("features_kept")
def test_the_delivered_head_is_that_of_all_photos(insects: Path) -> None:
    done = train(insects, NETWORK)
    features, photos = done.outcome.train_features, done.outcome.splits.train
    assert len(photos) == 64
    heads = logistic.candidates(features, 4)
    head = done.classifier.lead.head
    np.testing.assert_array_equal(head.weight, heads[done.classifier.provenance["chosen"]["head"]].weight)
    # The kept scores are of other heads: those of the folds.
    own_NC = head.logits_of(features.features)
    assert np.abs(metrics.log_softmax(own_NC) - metrics.log_softmax(done.evaluation.scores_NC)).max() > 0.1


@pytest.mark.usefixtures("features_kept")
@pytest.mark.parametrize("test", [0.25, 0.0])
def test_a_dataset_keeps_its_own_test_part(insects: Path, test: float) -> None:
    """It is measured on; its validation photos are learned from. Without one there are folds."""
    dataset = load_dataset(insects, val=0.25, test=test)
    done = train(dataset, NETWORK)
    told = done.summary.measurement
    split = done.outcome.fitted.data.split
    assert sorted(split.ids("test")) == sorted(dataset.test.ids)
    assert sorted(split.ids("train")) == sorted([*dataset.train.ids, *dataset.val.ids])
    if test:
        assert set(done.evaluation.photo_ids) == set(dataset.test.ids)
        assert (told.way, told.photos, told.learned) == ("test part", 16, 48)
    else:
        assert (told.way, told.photos, told.learned) == ("folds", 64, 64)


@pytest.mark.usefixtures("features_kept")
def test_of_very_many_photos_a_test_part_is_held_out_and_then_learned_from(
    insects: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folds, "_MOST_WORK", 1.0)
    done, apart = train(insects, NETWORK), train(insects, replace(NETWORK, holdout=True))
    told, split = done.summary.measurement, done.outcome.fitted.data.split
    assert told.way == "test part"
    assert told.photos == len(split.ids("test")) > 0
    assert told.learned == 64
    assert split == apart.outcome.fitted.data.split
    # The measure is of the head that did not see the test part; what is delivered is another.
    np.testing.assert_array_equal(done.evaluation.scores_NC, apart.evaluation.scores_NC)
    assert done.classifier.temperature == apart.classifier.temperature
    assert np.abs(done.classifier.lead.head.weight - apart.classifier.lead.head.weight).max() > 0


@pytest.mark.parametrize(
    ("options", "in_folds"),
    [
        ({}, True),
        ({"seed": 3, "precision": 0.9, "limit": 50, "engine": "torch"}, True),
        ({"holdout": True}, False),
        ({"head": "softmax"}, False),
        ({"epochs": 5}, False),
        ({"val": 0.2}, False),
        ({"test": 0.2}, False),
        ({"split": "random"}, False),
        ({"rare": True}, False),
        ({"transfer": "all"}, False),
        ({"quality": "best"}, False),
        ({"backbone": "alexnet", "also": ("densenet121",)}, False),
    ],
)
def test_what_was_asked_for_of_a_test_part_has_one(options: dict[str, Any], in_folds: bool) -> None:
    assert TrainConfig(**options).in_folds == in_folds


@pytest.mark.parametrize("photos", [1, 2, 3])
def test_very_few_photos_a_class_are_enough_to_train(insects: Path, tmp_path: Path, photos: int) -> None:
    """With one photo a class nothing can be measured, and that is said."""
    for species in sorted(insects.iterdir()):
        (tmp_path / "photos" / species.name).mkdir(parents=True)
        for path in sorted(species.glob("0*.jpg"))[:photos]:
            (tmp_path / "photos" / species.name / path.name).write_bytes(path.read_bytes())
    done = train(tmp_path / "photos", out=tmp_path / "model", config=NETWORK)
    measured = done.summary.measurement
    assert measured.learned == 4 * photos
    assert measured.photos == (4 * photos if photos > 1 else 0)
    assert len(measured.unmeasured) == (0 if photos > 1 else 4)
    assert ("not measured" in done.classifier.provenance["test"]) == (photos == 1)
    loaded = Classifier.load(tmp_path / "model")
    assert loaded.digest == done.classifier.digest
    (found,) = loaded.predict([insects / "Apis mellifera" / "00.jpg"])
    assert found.best.taxon.name == "Apis mellifera"
    if photos == 1:
        assert not found.sure


def test_what_is_written_agrees(held_out: Path) -> None:
    """The summary, the provenance, the table and the classifier tell one story."""
    about = json.loads((held_out / "classifier.json").read_text())["provenance"]
    summary = json.loads((held_out / "evaluation.json").read_text())
    table = PhotoTable.read(held_out / "photos.parquet")
    split = Split.read(held_out / "split.parquet")
    counts = {part: len(split.ids(part)) for part in ("train", "val", "test")}
    assert {part: about["photos"][part] for part in counts} == counts
    assert about["photos"]["rejected"] == {"truncated": 1}
    assert about["split"]["digest"] == split.digest
    assert about["data_digest"] == table.digest()
    assert summary["photos"] == counts["test"]
    assert f"{100 * summary['top1_error_all_classes']:.1f} %" in about["test"]
    # The curve is the best head's as it was trained; its logits are then scaled, for a lower loss.
    best = min(each["val_loss"] for each in about["tried"])
    assert 0.5 * about["curve"][-1]["val_loss"] < best <= about["curve"][-1]["val_loss"]


@pytest.mark.usefixtures("features_kept")
def test_the_kept_scores_are_what_the_classifier_gives(held_out: Path) -> None:
    """From the photos again, through another engine: the same scores to half precision."""
    classifier, evaluation = Classifier.load(held_out), Evaluation.load(held_out / "evaluation.safetensors")
    table = PhotoTable.read(held_out / "photos.parquet")
    places = dict(table.frame.select("id", "path").iter_rows())
    crops = [
        classifier.lead.preprocess.crop(table.file_of(places[photo]).read_bytes())
        for photo in evaluation.photo_ids
    ]
    p_NC = classifier.scores(np.stack(crops))
    expected = np.exp(metrics.log_softmax(evaluation.scores_NC / np.float32(classifier.temperature)))
    np.testing.assert_allclose(p_NC, expected, atol=0.02)
    assert [taxon.id for taxon in classifier.taxa] == list(evaluation.classes)


@pytest.mark.parametrize("transfer", ["all", "low-rank", "scratch"])
def test_all_layers_can_be_trained(
    insects: Path, tmp_path: Path, transfer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    how = replace(NETWORK, transfer=transfer, epochs=1, limit=24)
    done = train(insects, out=tmp_path / "model", config=how)
    assert done.classifier.provenance["transfer"] == transfer
    assert ("of the last layer alone" in capsys.readouterr().err) == (transfer != "scratch")
    loaded = Classifier.load(tmp_path / "model")
    photo = insects / "Apis mellifera" / "00.jpg"
    (one,), (other,) = done.classifier.predict([photo]), loaded.predict([photo])
    assert one.best.taxon == other.best.taxon
    assert one.best.score == pytest.approx(other.best.score, rel=1e-3)


def test_a_network_can_be_trained_in_half_precision(insects: Path, tmp_path: Path) -> None:
    """Near single precision, not the same; where only the last layer learns, one sentence says so."""
    whole, half = (
        train(
            insects,
            out=tmp_path / str(bfloat16),
            config=replace(NETWORK, transfer="all", epochs=1, limit=24, bfloat16=bfloat16),
        ).classifier.provenance
        for bfloat16 in (False, True)
    )
    assert half["bfloat16"]
    assert not whole["bfloat16"]
    losses = [each["curve"][0]["val_loss"] for each in (whole, half)]
    assert losses[0] == pytest.approx(losses[1], rel=0.1)
    assert losses[0] != losses[1]
    with pytest.raises(InputError, match="--bfloat16 is for training the network itself"):
        train(insects, out=tmp_path / "last", config=replace(NETWORK, bfloat16=True))


class TestRare:
    """`train --rare`."""

    def logits(self, helped: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Two classes of 90 and 10 photos; those of the rare one lose by up to `helped` of the prior."""
        count_C = np.array([90, 10])
        labels_N = np.repeat([0, 1], count_C)
        gap = np.log(9.0)
        logits_NC = np.zeros((100, 2), np.float32)
        logits_NC[:90, 0] = 5 * gap  # far from all doubt
        logits_NC[90:, 0] = np.linspace(0.1, helped, 10) * gap
        return logits_NC, labels_N, count_C

    def test_it_goes_as_far_as_helps(self) -> None:
        found = choose(*self.logits(0.95))
        assert found.strength == 1.0
        assert found.rare == (1.0, 0.0)
        assert found.every == (0.1, 0.0)
        assert "from 100.0% to 0.0%" in found.said

    def test_it_goes_nowhere_where_it_costs_too_much(self) -> None:
        logits_NC, labels_N, count_C = self.logits(4.0)
        logits_NC[:90, 0] = 0.1  # the slightest adjustment turns them all
        found = choose(logits_NC, labels_N, count_C)
        assert found.strength == 0.0
        assert found.rare[0] == found.rare[1]
        assert "none was made" in found.said

    def test_no_class_is_rare(self) -> None:
        logits_NC, labels_N, count_C = self.logits(0.95)
        assert choose(logits_NC, labels_N, 10 * count_C).strength == 0.0

    def test_the_classifier_has_what_was_chosen(self, insects: Path, tmp_path: Path) -> None:
        done = train(insects, out=tmp_path / "model", config=replace(NETWORK, rare=True))
        told = done.classifier.provenance["rare"]
        assert told["said"] in (tmp_path / "model" / "README.md").read_text()
        assert told["photos"] == 58
        with pytest.raises(InputError, match="--rare looks at photos"):
            train(insects, out=tmp_path / "all", config=replace(NETWORK, rare=True, transfer="all"))
        with pytest.raises(InputError, match="leave --rare out"):
            train(insects, out=tmp_path / "best", config=TrainConfig(rare=True, quality="best"))


def test_a_network_that_training_made_worse_is_said_to_be() -> None:
    assert "worse than" in beside(0.05, 0.1)
    assert "no better than" in beside(0.05, 0.05)
    assert beside(0.1, 0.05).endswith("of the last layer alone 10.0%.")


def test_the_official_split_without_test_photos_measures_nothing(insects: Path, tmp_path: Path) -> None:
    """Photos that come in a training and a validation part: both are taken as they are."""
    photos = tmp_path / "photos"
    for part, numbers in (("train", range(10)), ("val", range(10, 16))):
        for species in sorted(insects.iterdir()):
            (photos / part / species.name).mkdir(parents=True)
            for number in numbers:
                name = f"{number:02}.jpg"
                (photos / part / species.name / name).write_bytes((species / name).read_bytes())
    done = train(photos, out=tmp_path / "model", config=replace(NETWORK, split="official", epochs=2))
    counts = done.classifier.provenance["photos"]
    assert (counts["train"], counts["val"], counts["test"]) == (40, 24, 0)
    assert done.summary["photos"] == 0
    assert "not measured" in done.classifier.provenance["test"]
    assert Classifier.load(tmp_path / "model").threshold is not None


def test_a_run_is_a_function_of_its_seed(insects: Path, tmp_path: Path) -> None:
    heads = [
        train(
            insects, out=tmp_path / name, config=replace(NETWORK, seed=seed, epochs=2)
        ).classifier.lead.head.weight
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    np.testing.assert_array_equal(heads[0], heads[1])
    assert np.abs(heads[0] - heads[2]).max() > 0


def test_only_a_new_an_empty_or_a_classifiers_folder_is_written_to(model: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for good in (tmp_path / "empty", tmp_path / "new" / "deep", model):
        with claimed(good, KIND):
            pass
    (tmp_path / "thesis.txt").write_text("years of work")
    for bad in (tmp_path, tmp_path / "thesis.txt"):
        with pytest.raises(InputError, match="--out"), claimed(bad, KIND):
            pass


def test_where_nothing_was_held_out_it_says_so_to_people() -> None:
    """The sentence is shown on pages too, where nobody can give an option."""
    said = sentence(
        SimpleNamespace(top1_error_all_classes=None, top1_error_all_classes_interval=None, photos=0)
    )
    assert "not measured" in said
    assert "--" not in said


def test_the_sentence_has_error_photos_and_interval() -> None:
    measures = SimpleNamespace(
        top1_error_all_classes=0.0647, photos=1433, top1_error_all_classes_interval=(0.0442, 0.0894)
    )
    assert sentence(measures) == "Top-1 error 6.5 % on 1,433 test photos (95 % CI 4.4-8.9 %)."


def test_the_line_of_photos_has_the_parts_by_name(insects: Path) -> None:
    table = readers.read(insects)
    splits = DataSplits.of(table, split_photos(table, val=0.25, test=0.25, seed=0))
    assert photo_line(table, splits) == (
        "65 photos found, 64 kept, 1 rejected (1 truncated); 4 classes; 32 training, "
        "16 validation, 16 test photos"
    )


def test_the_last_layer_can_be_learned_from_drawn_classes(insects: Path, tmp_path: Path) -> None:
    """Asked for by name; with more scores than are held at once, photos are drawn to measure on."""
    done = train(insects, out=tmp_path / "model", config=replace(NETWORK, head="sampled"))
    assert done.classifier.provenance["head"] == "sampled"
    assert done.classifier.provenance["chosen"]["learning_rate"] in (3e-4, 1e-2)
    assert done.summary["top1_error"] < 0.75
    with pytest.raises(InputError, match="leave --head out"):
        train(insects, out=tmp_path / "best", config=TrainConfig(quality="best", head="sampled"))


def test_of_more_scores_than_are_held_some_photos_are_drawn(
    insects: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = readers.read(insects)
    parts = DataSplits.of(table, split_photos(table, val=0.2, test=0.7, seed=0))
    assert parts.measurable() == parts
    monkeypatch.setattr(subset, "MOST_SCORES", 10 * len(parts.classes))
    monkeypatch.setattr(subset, "FEWEST", 10)
    fewer = parts.measurable()
    assert len(fewer.test) == 10
    assert "10 of the" in capsys.readouterr().err
    assert fewer.train == parts.train
    rows = [parts.test.ids.index(each) for each in fewer.test.ids]
    assert rows == sorted(rows)
    assert fewer.test.taxon_ids == tuple(parts.test.taxon_ids[row] for row in rows)
