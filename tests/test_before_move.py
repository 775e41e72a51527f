"""Classifiers and cached features of the version before the move of the packages are read as they are.

`tests/standards/before_move` holds the folder of a classifier of four drawn insects (`insects` in
conftest.py, without the broken file) on random ShuffleNet weights, without those weights, which follow
from their seed; its cached features; and what it predicted for one further photo of each class.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from fieldmark.data.photos import PhotoFile
from fieldmark.features.extractor import FeatureExtractor
from fieldmark.inference import neighbours
from fieldmark.inference.classifier import Classifier
from fieldmark.models import Backbone, load
from fieldmark.models.weights import trunk_names
from fieldmark.utils.io import sha256

KEPT = Path(__file__).parent / "standards" / "before_move"


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load("shufflenet_v2_x0_5", weights="random", seed=0)


@pytest.fixture
def folder(backbone: Backbone, tmp_path: Path) -> Path:
    """The classifier with its weights."""
    shutil.copytree(KEPT / "model", tmp_path / "model")
    state = backbone.network.state_dict()
    names = trunk_names(state, backbone.architecture.last_layer_path)
    weights = {name: state[name].contiguous() for name in names}
    save_file(weights, tmp_path / "model" / "backbone.safetensors")
    return tmp_path / "model"


def test_a_classifier_loads_and_predicts_the_same(folder: Path, draw: Any) -> None:
    expected = json.loads((KEPT / "expected.json").read_text())
    for label, prediction in enumerate(Classifier.load(folder).predict([draw(n, 20) for n in range(4)])):
        names, scores = expected[label][:4], expected[label][4:]
        assert prediction.best.taxon.id == names[0]
        assert prediction.best.score == pytest.approx(scores[0], rel=1e-3)


def test_its_nearest_training_photos_are_found(folder: Path) -> None:
    classifier = Classifier.load(folder)
    index = neighbours.load_index(classifier)
    assert (
        len(index.labels)
        == json.loads((folder / "classifier.json").read_text())["provenance"]["photos"]["train"]
    )


def test_cached_features_are_not_computed_again(
    backbone: Backbone, cache: Path, draw: Any, tmp_path: Path
) -> None:
    shutil.copytree(KEPT / "features", cache / "features")
    photos = []
    for label in range(4):
        for number in range(16):
            path = tmp_path / f"{label}-{number}.jpg"
            path.write_bytes(draw(label, number))
            photos.append(PhotoFile(sha256(path.read_bytes()), path))
    extractor = FeatureExtractor(engine="torch")
    assert extractor.compute(photos, {"network": backbone}).computed == {}
    assert len(extractor.cache(backbone).get([photo.sha256 for photo in photos])) == len(photos)
