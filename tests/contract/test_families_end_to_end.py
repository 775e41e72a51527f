"""Every family of timm, from photos to answers: engines, a classifier, its files, heat maps, fine-tuning.

The networks are those of the table in docs/backbones.md, with random weights; what a family is refused is in
its second table. Some families run always, all with `FIELDMARK_ALL_FAMILIES=1`, or those that it names.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fieldmark import models
from fieldmark.inference import export
from fieldmark.inference.classifier import Classifier, Network
from fieldmark.inference.classifier.ensemble_member import running
from fieldmark.inference.explain import heat_map
from fieldmark.models import runtime, timm
from fieldmark.models.network import seeded
from fieldmark.models.runtime import graphs, openvino
from fieldmark.training import TrainConfig, train
from fieldmark.training.finetune import LabelledCrops, finetune, good, layers, low_rank
from fieldmark.training.finetune.step import Updater
from fieldmark.utils.errors import InputError

TABLE = (Path(__file__).resolve().parents[2] / "docs" / "backbones.md").read_text(encoding="utf-8")
_ROW = r"^\| `(\w+)` \| \d+ \| `([\w.]+)` \| [\d.]+ \| \d+ \| (\d+) "
ROWS = re.findall(_ROW, TABLE, re.MULTILINE)
NETWORKS = {family: name for family, name, _ in ROWS}
SIZES = {
    family: (256 if int(side) % 16 == 0 else 252) if int(side) > 512 else None for family, _, side in ROWS
}
"""Networks of large photos are tried with smaller ones: at their own side they need more than 12 GiB."""
REFUSED = set(re.findall(r"^\| `(\w+)` \| (graph|heat map) \| .* \|$", TABLE, re.MULTILINE))
USUAL = ("convnext", "starnet", "vision_transformer_relpos")
ASKED = os.environ.get("FIELDMARK_ALL_FAMILIES", ",".join(USUAL))
TRIED = [name for name in NETWORKS if ASKED == "1" or name in ASKED.split(",")]
CLASSES, PHOTOS, SIDE = ("Apis mellifera", "Bombus terrestris"), 4, 48

ANSWER = """
import json, sys
from fieldmark.inference.classifier import Classifier
for line in sys.stdin:
    folder, photo = json.loads(line)
    [answer] = Classifier.load(folder).predict([photo])
    scores = {each.taxon.id: each.score for each in answer.answers}
    print(json.dumps([scores, "torch" in sys.modules]), flush=True)
"""


def test_a_name_of_both_libraries_says_which() -> None:
    """Otherwise a classifier's folder is read as torchvision's network."""
    for name in ("timm:densenet121", "densenet121", "tf_efficientnet_lite0", "convnext_atto"):
        assert Network.of(models.load(name, weights="random")).architecture == name


@dataclass(frozen=True)
class Family:
    """A network of a family, and what is made of it."""

    name: str
    photos: Path
    folder: Path

    @cached_property
    def backbone(self) -> models.Backbone:
        return models.load(timm.PREFIX + NETWORKS[self.name], weights="random", size=SIZES[self.name])

    @cached_property
    def classifier(self) -> Path:
        """The folder of a classifier with a last layer that was trained on the photos."""
        config = TrainConfig(
            backbone=timm.PREFIX + NETWORKS[self.name],
            weights="random",
            size=SIZES[self.name],
            groups="none",
            engine="torch" if self.is_refused("graph") else "onnxruntime",
        )
        train(self.photos, config, out=self.folder / "classifier")
        return self.folder / "classifier"

    @property
    def photo(self) -> Path:
        return self.photos / CLASSES[0] / "0.jpg"

    def is_refused(self, what: str) -> bool:
        return (self.name, what) in REFUSED


@pytest.fixture(scope="module")
def photos(draw: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of four small photos."""
    folder = tmp_path_factory.mktemp("few")
    for label, name in enumerate(CLASSES):
        (folder / name).mkdir()
        for number in range(PHOTOS):
            (folder / name / f"{number}.jpg").write_bytes(draw(label, number, SIDE))
    return folder


pytestmark = pytest.mark.usefixtures("one_cache")


@pytest.fixture(scope="module", params=TRIED)
def family(
    request: pytest.FixtureRequest, photos: Path, kept: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Family]:
    folder = tmp_path_factory.mktemp(request.param)
    yield Family(request.param, photos, folder)
    graphs = [path for path in kept.iterdir() if path.is_symlink()]  # what all tests share
    for each in (folder, *(path for path in kept.iterdir() if path not in graphs)):
        shutil.rmtree(each)
    for each in (path for shared in graphs for path in shared.iterdir()):
        each.unlink()  # all networks together would fill the disk


@pytest.fixture(scope="module")
def answer_elsewhere(kept: Path) -> Iterator[Callable[[Path, Path], Any]]:
    """Ask one process, which has not imported PyTorch, for the scores of a photo."""
    with subprocess.Popen(
        [sys.executable, "-c", ANSWER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "FIELDMARK_CACHE": str(kept)},
    ) as process:

        def ask(classifier: Path, photo: Path) -> Any:
            assert process.stdin
            assert process.stdout
            print(json.dumps([str(classifier), str(photo)]), file=process.stdin, flush=True)
            return json.loads(process.stdout.readline())

        yield ask


def test_engines_give_the_features_of_the_network(family: Family) -> None:
    crops = graphs.sample(family.backbone.architecture.input_size, 2)
    with torch.inference_mode():
        expected = family.backbone.trunk(torch.from_numpy(crops)).numpy()
    names = ["torch", "onnxruntime", *(["openvino"] if openvino.installed() else [])]
    if family.is_refused("graph"):
        names = ["torch", "auto"]
        with pytest.raises(InputError, match="use the engine torch"):
            graphs.graph(family.backbone)
    for name in names:
        found = runtime.engine(family.backbone, name)(crops)
        assert runtime.relative_error(found, expected) <= graphs.TOLERANCE, name


def test_a_classifier_answers_from_its_folder(family: Family, answer_elsewhere: Any) -> None:
    classifier = Classifier.load(family.classifier)
    expected = {each.taxon.id: each.score for each in classifier.predict([family.photo])[0].answers}
    assert sum(expected.values()) == pytest.approx(1, abs=1e-4)
    assert classifier.lead.network.backbone.key == classifier.lead.network.key  # read from the folder
    if family.is_refused("graph"):
        return  # answers with PyTorch
    scores, has_torch = answer_elsewhere(family.classifier, family.photo)
    assert scores == pytest.approx(expected, abs=1e-4)
    assert not has_torch


def test_the_exported_file_gives_the_same_probabilities(family: Family) -> None:
    classifier, path = Classifier.load(family.classifier), family.folder / "model.onnx"
    if family.is_refused("graph"):
        with pytest.raises(InputError, match="use the engine torch"):
            export.export(classifier, path)
        return
    [image] = export.pictures([family.photo])
    done = export.export(classifier, path, [image])
    import onnx

    probabilities, _ = running(onnx.load(path))(image)
    expected = classifier.scores([crop[None] for crop in classifier.crop(image)])[0]
    # Random weights of some networks give nearly the same features for all photos, and a head then learns
    # from rounding, which no two programs do in the same way.
    np.testing.assert_allclose(probabilities, expected, atol=max(1e-4, 1.01 * done.parity.max_difference))


def test_a_heat_map_is_finite(family: Family) -> None:
    classifier = Classifier.load(family.classifier)
    if family.is_refused("heat map"):
        with pytest.raises(InputError, match="heat map"):
            heat_map(classifier, family.photo)
        return
    found = heat_map(classifier, family.photo)
    assert found.shape == (SIDE, SIDE)
    assert np.isfinite(found).all()
    assert 0 <= found.min() <= found.max() <= 1


def test_low_rank_updates_are_merged_into_the_same_network(family: Family) -> None:
    backbone = family.backbone
    model = backbone.trainable(2, 0)
    recipe = replace(good("low-rank"), average=0.0, batch_size=2, accumulate=1, warm_up=0.0)
    crops = torch.from_numpy(graphs.sample(backbone.architecture.input_size, 2))
    update = Updater(model, recipe, steps=1)
    assert any(isinstance(each, low_rank.LowRank) for each in model.modules())
    assert np.isfinite(update(crops, torch.tensor([0, 1]), 0))
    model.eval()
    with torch.inference_mode():
        adapted = model(crops)
        low_rank.merge(model)
        torch.testing.assert_close(model(crops), adapted, rtol=1e-4, atol=1e-4)
        trained, linear = backbone.trained(model)
        torch.testing.assert_close(linear(trained.trunk(crops)), adapted, rtol=1e-4, atol=1e-4)
    assert trained.key != backbone.key
    assert list(trained.network.state_dict()) == list(backbone.network.state_dict())


def test_the_recipe_trains_the_last_layer_on_crops_that_the_network_takes(family: Family) -> None:
    """Also where it takes one side only: the recipe begins with smaller crops."""
    backbone = family.backbone
    model, side = backbone.trainable(2, 0), backbone.architecture.input_size
    crops = LabelledCrops(graphs.sample(side, 2), np.arange(2), np.arange(2), ("a", "b"))
    curve, _ = finetune(model, crops, crops, replace(good("last", epochs=2), batch_size=2, rand_augment=""))
    assert all(np.isfinite(epoch.val_loss) for epoch in curve)
    trained, linear = backbone.trained(model)
    assert trained.key == replace(backbone, native=None).key  # what is trained has one side, its own
    assert linear.weight.abs().sum() > 0


def test_checkpointing_gives_the_same_gradients_or_is_refused(family: Family) -> None:
    backbone = family.backbone
    crops = torch.from_numpy(graphs.sample(backbone.architecture.input_size, 1))
    found = []
    for checkpointing in (False, True):
        model, recipe = backbone.trainable(2, 0), replace(good("all"), checkpointing=checkpointing)
        try:
            layers.set_checkpointing(model, recipe)
        except InputError as error:
            assert "no blocks for activation checkpointing" in str(error)  # noqa: PT017
            return
        layers.set_modes(model, recipe)
        with seeded(0, "dropout"):
            model(crops).sum().backward()
        found.append({name: each.grad for name, each in model.named_parameters()})
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-4, atol=1e-6)
