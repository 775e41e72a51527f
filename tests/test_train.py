"""Training as a whole: what it says is what it did, and the measure is of photos it never saw."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fieldmark.data import readers, subset
from fieldmark.data.photos import PhotoTable
from fieldmark.data.split import Split, split_photos
from fieldmark.data.subset import DataSplits
from fieldmark.evaluation import metrics
from fieldmark.evaluation.results import Evaluation
from fieldmark.inference.classifier import Classifier
from fieldmark.inference.classifier.folder import KIND
from fieldmark.training import TrainConfig, sentence, train
from fieldmark.training.logit_adjustment import choose
from fieldmark.training.strategies.single import beside
from fieldmark.training.summary import photo_line
from fieldmark.utils.errors import InputError
from fieldmark.utils.publishing import claimed

NETWORK = TrainConfig(backbone="shufflenet_v2_x0_5", weights="random", engine="torch")


def test_the_test_photos_are_none_of_those_it_learned_or_chose_by(model: Path) -> None:
    evaluation = Evaluation.load(model / "evaluation.safetensors")
    split = Split.read(model / "split.parquet")
    seen = {*split.ids("train"), *split.ids("val")}
    assert set(evaluation.photo_ids) == set(split.ids("test"))
    assert not seen & set(evaluation.photo_ids)


def test_what_is_written_agrees(model: Path) -> None:
    """The summary, the provenance, the table and the classifier tell one story."""
    about = json.loads((model / "classifier.json").read_text())["provenance"]
    summary = json.loads((model / "evaluation.json").read_text())
    table = PhotoTable.read(model / "photos.parquet")
    split = Split.read(model / "split.parquet")
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


def test_the_kept_scores_are_what_the_classifier_gives(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the photos again, through another engine: the same scores to half precision."""
    monkeypatch.setenv("FIELDMARK_CACHE", str(model.parent / "cache"))
    classifier, evaluation = (Classifier.load(model), Evaluation.load(model / "evaluation.safetensors"))
    table = PhotoTable.read(model / "photos.parquet")
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
