"""Explanations: the map adds up to the score, in the photo's frame, beside the photos that are kept."""

from __future__ import annotations

import io
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.conftest import write_about

from fieldmark import models
from fieldmark.data.photos import PhotoTable, build_frame
from fieldmark.data.taxonomy import Taxon, Taxonomy
from fieldmark.data.transforms import Preprocess
from fieldmark.features.cache import Features
from fieldmark.features.labelled import LabelledFeatures
from fieldmark.heads.base import LinearHead
from fieldmark.inference import explain, neighbours
from fieldmark.inference.classifier import Classifier
from fieldmark.inference.explain import gradcam
from fieldmark.models import runtime
from fieldmark.utils.errors import ImageRejected, InputError

POOLED = ("shufflenet_v2_x0_5", "squeezenet1_1", "tf_efficientnet_lite0")
TAXA = tuple(Taxon(f"t{n}", f"Genus species{n}", f"kind {n}") for n in range(4))


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache for the whole file: converting a network takes some seconds."""
    return tmp_path_factory.mktemp("graphs")


@pytest.fixture(autouse=True)
def one_cache(cache: Path, graphs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIELDMARK_CACHE", str(graphs))


def make(name: str = POOLED[0], preprocess: Preprocess | None = None) -> Classifier:
    backbone = models.load(name, weights="random")
    rng = np.random.default_rng(0)
    features = runtime.engine(backbone, "torch")(photo(1)[None, :224, :224])
    weight = rng.normal(0, 1, (features.shape[1], 4)) / np.linalg.norm(features)
    return Classifier.alone(
        backbone,
        preprocess=preprocess or Preprocess(fit="squash"),
        head=LinearHead(weight.astype(np.float32), np.array([0.5, -0.2, 0.1, 0], np.float32)),
        taxonomy=Taxonomy(TAXA),
    )


def photo(seed: int, height: int = 240, width: int = 300) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


# The map


@pytest.mark.parametrize("name", POOLED)
def test_the_map_and_the_bias_are_the_score(name: str) -> None:
    classifier = make(name)
    crop = classifier.lead.preprocess.apply(photo(2))
    with torch.inference_mode():  # an independent way to the same number
        x_1D = classifier.lead.network.backbone.trunk(torch.from_numpy(crop[None])).numpy()
    logits = classifier.lead.head.logits(x_1D)[0]
    assert np.ptp(logits) > 0.1
    for label in range(4):
        found = explain.activation(classifier.lead, crop, label)
        assert found.exact
        assert found.map_hw.shape in {(7, 7), (13, 13)}
        assert found.map_hw.std() > 0
        assert found.map_hw.mean() + found.bias == pytest.approx(logits[label], abs=1e-4)
        assert found.score == pytest.approx(logits[label], abs=1e-4)


def test_each_place_adds_what_its_own_features_score() -> None:
    """Not only the sum: the map of the network itself, taken in PyTorch, times the weights."""
    classifier = make()
    crop = classifier.lead.preprocess.apply(photo(3))
    kept: list[torch.Tensor] = []
    last = classifier.lead.network.backbone.network.conv5
    hook = last.register_forward_hook(lambda _, __, out: kept.append(out))
    with torch.inference_mode():
        classifier.lead.network.backbone.trunk(torch.from_numpy(crop[None]))
    hook.remove()
    expected = np.einsum("dhw,d->hw", kept[0][0].numpy(), classifier.lead.head.weight[:, 2])
    found = explain.activation(classifier.lead, crop, 2)
    np.testing.assert_allclose(found.map_hw, expected, atol=1e-4)


def test_grad_cam_is_the_gradient_weighted_map_of_alexnet() -> None:
    classifier = make("alexnet")
    crop = classifier.lead.preprocess.apply(photo(4))
    found = explain.activation(classifier.lead, crop, 1)
    assert not found.exact
    assert found.map_hw.shape == (13, 13)
    assert found.map_hw.min() >= 0
    assert found.map_hw.max() > 0
    # The gradient by finite differences: each channel of the map raised everywhere by a little.
    network = classifier.lead.network.backbone.network
    step = 1e-3
    with torch.inference_mode():
        pixels = classifier.lead.network.backbone.trunk.pixels(torch.from_numpy(crop[None]))
        map_1khw = network.features[:12](pixels)
        raised = map_1khw + step * torch.eye(256)[:, :, None, None]
        lowered = map_1khw - step * torch.eye(256)[:, :, None, None]
        pooled = network.avgpool(network.features[12](torch.cat([raised, lowered]))).flatten(1)
        x_ND = network.classifier[:6](pooled).double().numpy()
    score_N = x_ND @ classifier.lead.head.weight[:, 1].astype(np.float64)
    slopes = (score_N[:256] - score_N[256:]) / (2 * step)
    expected = np.einsum("k,khw->hw", slopes / 169, map_1khw[0].numpy()).clip(0)
    assert np.corrcoef(expected.ravel(), found.map_hw.ravel())[0, 1] > 0.99
    np.testing.assert_allclose(found.map_hw, expected, atol=0.05 * expected.max())


def test_grad_cam_does_not_mind_who_else_runs_the_network() -> None:
    classifier = make("alexnet")
    member = classifier.lead
    crops = [member.preprocess.apply(photo(number)) for number in range(4)]
    alone = [explain.activation(member, crop, 1) for crop in crops]

    def answered(number: int) -> explain.Activation:
        with torch.inference_mode():  # as the engine does
            member.network.backbone.trunk(torch.from_numpy(crops[number - 1][None]))
        return explain.activation(member, crops[number], 1)

    with ThreadPoolExecutor(4) as pool:
        for number, found in enumerate(pool.map(answered, range(4))):
            np.testing.assert_allclose(found.map_hw, alone[number].map_hw, atol=1e-5)


def test_grad_cam_leaves_no_hook_behind() -> None:
    classifier = make("alexnet")
    explain.activation(classifier.lead, classifier.lead.preprocess.apply(photo(4)), 1)
    assert not any(m._forward_hooks for m in classifier.lead.network.backbone.trunk.modules())


def test_a_network_without_a_feature_map_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = make()

    class Plain(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pixels = torch.nn.Identity()

        def forward(self, crops: torch.Tensor) -> torch.Tensor:
            return self.pixels(crops.float()).flatten(1)[:, :1024]

    monkeypatch.setattr(gradcam, "_mapped", lambda _: None)
    classifier.lead.network.backbone.__dict__["trunk"] = Plain()
    with pytest.raises(explain.NoFeatureMap, match="convolutional"):
        explain.activation(classifier.lead, classifier.lead.preprocess.apply(photo(0)), 0)


# In the frame of the photo


def place(row: int, column: int, side: int = 7) -> explain.Activation:
    """An activation with one hot place, and others that speak against the class."""
    map_hw = np.full((side, side), -1.0, np.float32)
    map_hw[row, column] = 3
    return explain.Activation(map_hw, 1.0, 0.0, exact=True)


def test_squashed_places_are_where_they_were_in_the_photo() -> None:
    classifier = make()
    heat = explain.to_photo_frame(classifier.lead.preprocess, place(1, 5), 140, 700)
    assert heat.shape == (140, 700)
    assert heat.dtype == np.float32
    assert heat.max() == pytest.approx(1, abs=0.05)
    assert heat.min() == 0
    rows, columns = np.mgrid[0:140, 0:700]
    assert (rows * heat).sum() / heat.sum() == pytest.approx(1.5 * 20, abs=1)
    assert (columns * heat).sum() / heat.sum() == pytest.approx(5.5 * 100, abs=5)


def test_a_central_crop_leaves_the_rest_of_the_photo_cold() -> None:
    classifier = make(preprocess=Preprocess(size=224, resize=256, fit="crop"))
    full = explain.Activation(np.ones((7, 7), np.float32), 1.0, 0.0, exact=True)
    heat = explain.to_photo_frame(classifier.lead.preprocess, full, 512, 1024)
    # Resized to 256 x 512 and cut to the central 224: in the photo 448 pixels around the centre.
    assert (heat[32:480, 288:736] == 1).all()
    assert heat.sum() == 448 * 448


@pytest.mark.parametrize("shape", [(1, 1), (3, 500), (500, 3), (225, 224)])
@pytest.mark.parametrize("fit", ["squash", "crop"])
def test_photos_of_any_shape_have_a_map(fit: Any, shape: tuple[int, int]) -> None:
    classifier = make(preprocess=Preprocess(fit=fit))
    heat = explain.heat_map(classifier, photo(5, *shape))
    assert heat.shape == shape
    assert 0 <= heat.min() <= heat.max() <= 1


def test_a_class_that_nothing_speaks_for_has_a_cold_map() -> None:
    against = explain.Activation(np.full((7, 7), -2.0, np.float32), -2.0, 0.0, exact=True)
    assert not explain.to_photo_frame(Preprocess(fit="squash"), against, 30, 40).any()


def test_the_map_of_the_first_label_is_the_default_and_a_class_has_many_names(tmp_path: Path) -> None:
    classifier = make()
    picture = photo(6)
    Image.fromarray(picture).save(tmp_path / "photo.png")
    best = classifier.predict([picture])[0].best.taxon
    expected = explain.heat_map(classifier, picture)
    number = TAXA.index(best)
    for name in (best, best.id, best.name, number):
        assert (explain.heat_map(classifier, tmp_path / "photo.png", name) == expected).all()
    other = explain.heat_map(classifier, (tmp_path / "photo.png").read_bytes(), (number + 1) % 4)
    assert (other != expected).any()
    for wrong in ("Homo sapiens", 4, -1):
        with pytest.raises(InputError, match="has no class"):
            explain.heat_map(classifier, picture, wrong)


def test_an_overlay_colours_what_is_hot_and_leaves_what_is_cold() -> None:
    image = photo(7, 20, 30)
    heat = np.zeros((20, 30), np.float32)
    heat[:, 15:] = 1
    shown = explain.overlay(image, heat)
    assert shown.dtype == np.uint8
    assert (shown[:, :15] == image[:, :15]).all()
    yellow = np.array([240, 249, 33])
    assert np.abs(shown[:, 15:].astype(int) - (0.4 * image[:, 15:] + 0.6 * yellow)).max() <= 1


# All of it


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, graphs: Path) -> Path:
    """A classifier's folder with six kept photos; beside it `photos`. Not to be changed."""
    root = tmp_path_factory.mktemp("model")
    classifier = make()
    classifier.save(root / "m")
    (root / "photos").mkdir()
    crops = []
    for number in range(6):
        Image.fromarray(photo(number)).save(root / "photos" / f"{number}.png")
        crops.append(classifier.lead.preprocess.apply(photo(number)))
    from fieldmark.utils import io
    from fieldmark.utils.io import sha256

    paths = [root / "photos" / f"{number}.png" for number in range(6)]
    frame = build_frame(
        {
            "id": [str(number) for number in range(6)],
            "path": [path.name for path in paths],
            "sha256": [sha256(path.read_bytes()) for path in paths],
            "taxon_id": [f"t{number % 4}" for number in range(6)],
        }
    )
    table = PhotoTable(frame, classifier.taxonomy, root / "photos", "folder")
    x_ND = runtime.engine(classifier.lead.network.backbone, "torch")(np.stack(crops))
    labels = np.arange(6) % 4
    train = LabelledFeatures(Features.of(x_ND), labels, tuple(str(n) for n in range(6)))
    neighbours.write(root / "m", classifier, table, train)
    written = io.read_json(root / "m" / "classifier.json")
    written["files"]["neighbours.safetensors"] = io.file_digest(root / "m" / "neighbours.safetensors")
    write_about(root / "m", written)
    return root / "m"


def test_an_explanation_has_labels_map_and_photos(model: Path) -> None:
    classifier = Classifier.load(model)
    found = explain.explain(classifier, model.parent / "photos" / "3.png", k=3)
    assert (found.image == photo(3)).all()
    assert found.prediction == classifier.predict([photo(3)])[0]
    assert found.taxon == found.prediction.best.taxon
    assert (found.heat == explain.heat_map(classifier, photo(3))).all()
    [(first, pixels), *others] = found.neighbours
    assert len(others) == 2
    assert (first.photo_id, first.taxon) == ("3", TAXA[3])
    assert first.similarity == pytest.approx(1, abs=1e-3)
    assert (pixels == photo(3)).all()
    crop = classifier.lead.preprocess.apply(photo(3))
    assert explain.similar(classifier, crop, 3) == [near for near, _ in found.neighbours]


def test_the_picture_is_a_png_of_one_photo_more_with_neighbours(model: Path, tmp_path: Path) -> None:
    found = explain.run(model, model.parent / "photos" / "1.png", tmp_path / "why.png")
    image = Image.open(tmp_path / "why.png")
    assert image.format == "PNG"
    alone = explain.Explanation(found.image, found.prediction, found.taxon, None, ())
    less = Image.open(io.BytesIO(explain.picture(alone)))
    assert less.width == image.width
    assert less.height < image.height
    pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    assert pixels.std() > 20, "an empty picture"


def test_names_of_any_script_and_signs_can_be_drawn(model: Path) -> None:
    found = explain.explain(Classifier.load(model), photo(1), k=2)
    odd = Taxon("x", "$\\frac{1$ 甲虫 " + "long " * 40)
    answers = tuple(type(a)(odd, a.score) for a in found.prediction.answers)
    prediction = type(found.prediction)(answers, False)
    changed = explain.Explanation(found.image, prediction, odd, found.heat, ())
    assert explain.picture(changed).startswith(b"\x89PNG")


def test_what_cannot_be_explained_is_one_sentence_and_writes_nothing(model: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8 no photo")
    with pytest.raises(ImageRejected, match=r"bad\.jpg"):
        explain.run(model, tmp_path / "bad.jpg", tmp_path / "why.png")
    with pytest.raises(InputError, match="has no class"):
        explain.run(model, model.parent / "photos" / "1.png", tmp_path / "why.png", "Nessie")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.jpg"]


def test_pooled_networks_are_explained_without_torch(model: Path, tmp_path: Path) -> None:
    runtime.engine(make().lead.network.backbone, "onnxruntime")  # converts it, if no test did before
    code = f"""
        import sys
        from pathlib import Path
        from fieldmark.inference import explain
        found = explain.run(Path({str(model)!r}), Path({str(model.parent / "photos" / "1.png")!r}),
                            Path({str(tmp_path / "why.png")!r}))
        print("torch" in sys.modules, found.heat is None, len(found.neighbours))
    """
    words = [sys.executable, "-c", textwrap.dedent(code)]
    run = subprocess.run(words, capture_output=True, text=True, check=False)
    assert run.stdout.strip() == "False False 5", run.stderr
