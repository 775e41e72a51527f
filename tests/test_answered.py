"""What the thresholds of a training do on the photos that nothing was set on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.conftest import PROBES

from fieldmark.data.taxonomy import Taxon, Taxonomy
from fieldmark.evaluation.calibration import Threshold, answers
from fieldmark.inference.classifier import Classifier
from fieldmark.training.summary import answered

TAXA = Taxonomy(
    Taxon(str(at), name, ranks={"genus": name.split()[0]}) for at, name in enumerate(["Aa a", "Aa b", "Bb a"])
)


def test_answers_are_counted_rank_by_rank() -> None:
    p_NC = [[0.9, 0.05, 0.05], [0.8, 0.1, 0.1], [0.5, 0.45, 0.05], [0.4, 0.2, 0.4], [0.1, 0.1, 0.8]]
    labels = np.array([0, 1, 1, 0, -1])
    scores = np.log(np.array(p_NC, np.float32))
    thresholds = {"species": Threshold(0.9, 0.7, 1), "genus": Threshold(0.9, 0.9, 1)}
    found = answered(answers(np.exp(scores), labels, TAXA.levels, thresholds), 5)
    assert {name: share.to_dict() for name, share in found.items()} == {
        "all": {"photos": 4, "coverage": 0.8, "precision": pytest.approx(2 / 4)},
        "species": {"photos": 3, "coverage": 0.6, "precision": pytest.approx(1 / 3)},
        "genus": {"photos": 1, "coverage": 0.2, "precision": 1.0},
    }


def test_a_training_leaves_its_thresholds_and_what_they_do(model: Path) -> None:
    about = json.loads((model / "classifier.json").read_text())
    measured = json.loads((model / "evaluation.json").read_text())
    assert about["thresholds"]["species"]["precision"] == 0.95
    answered = measured["answered"]
    assert answered["all"]["photos"] == sum(answered[rank]["photos"] for rank in about["thresholds"])
    assert answered["all"]["coverage"] == answered["all"]["photos"] / measured["photos"]
    promised = about["thresholds"]["species"]["promised"]
    assert 0.5 < promised <= 0.95
    assert measured["coverage_curve"][-1]["coverage"] == 1


def test_other_photos_are_measured_with_every_class_left_out_in_turn(model: Path) -> None:
    found = json.loads((model / "evaluation.json").read_text())["unknown"]
    assert found["classes_left_out"] == 4
    assert found["unknown"] == 64  # all photos: each was left out once
    assert 0 < found["known"] <= 64
    assert found["far"] == PROBES
    assert set(found["kinds"]) == {"class means", "nearest photos"}
    for each in found["kinds"].values():
        assert all(0 <= each[name] <= 1 for name in ("auroc", "flagged", "far_auroc", "far_flagged"))
    # Invented stripes of another hue and width are unlike all others, even to random weights.
    assert found["kinds"]["nearest photos"]["auroc"] > 0.8
    about = json.loads((model / "classifier.json").read_text())
    assert about["known_from"] == about["ood"]["threshold"]
    assert about["ood"]["kind"] == found["score"]


def test_a_photo_unlike_the_known_ones_is_flagged_and_gets_no_answer(
    classifier: Classifier, insects: Path
) -> None:
    photos = sorted((insects / "Danaus plexippus").glob("*.jpg"))
    assert classifier.ood is not None
    flags = [found.unknown for found in classifier.predict(photos)]
    assert flags.count(True) <= 4
    strict = replace(classifier, ood=replace(classifier.ood, threshold=1e6))
    (found,) = strict.predict(photos[:1])
    assert found.unknown
    assert (found.source, found.rank, found.name, found.sure) == ("unknown", "none", "", False)
    assert found.reason.endswith("unlike those of the 4 names that this classifier knows")
    (same,) = replace(classifier, ood=None).predict(photos[:1])
    assert same.unknown is None
    assert same.best == found.best
