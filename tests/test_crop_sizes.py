"""`--size` and `--crop`: what networks take, how they were published, and classifiers made with them."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fieldmark import models
from fieldmark.cli import options as opt
from fieldmark.data.transforms import FILL, PAPER_CROP, Preprocess
from fieldmark.experiments import Options, Run, StudyConfig, study
from fieldmark.experiments.model_ranking import RankConfig, rank
from fieldmark.features.extractor import FeatureExtractor, View
from fieldmark.inference import explain, export
from fieldmark.inference.classifier import Classifier
from fieldmark.inference.explain import Activation
from fieldmark.inference.export.validation import expected_of
from fieldmark.models.timm import load_library
from fieldmark.training import ExtendConfig, TrainConfig, extend, train
from fieldmark.training.automl import candidates
from fieldmark.utils.errors import ClassifierError, InputError

pytestmark = pytest.mark.usefixtures("one_cache")


VIT, CONV = "test_vit", "test_convnext3"  # timm's smallest, of 160 pixels
SMALL = TrainConfig(backbone=VIT, weights="random", engine="torch", size=96)


def random(name: str, size: int | None = None) -> models.Backbone:
    return models.load(name, weights="random", size=size)


def picture(height: int, width: int) -> np.ndarray:
    """Smooth colours, as in a photo."""
    coarse = np.random.default_rng([height, width]).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


# Views


def test_a_padded_photo_is_whole_in_its_proportions_in_the_middle_of_a_border() -> None:
    view = Preprocess(size=40, fit="pad")
    image = np.full((30, 60, 3), (250, 10, 40), np.uint8)
    crop = view.apply(image)
    assert (crop[10:30] == (250, 10, 40)).all()
    assert (crop[:10] == FILL).all()
    assert (crop[30:] == FILL).all()
    assert view.inside(30, 60) == (10, 0, 20, 40)
    assert view.box(30, 60) == (0, 0, 60, 30)
    assert view.apply(image[:1]).shape == (40, 40, 3)  # a line of one pixel
    uneven = picture(37, 60)
    mirrored = replace(view, flip=True).apply(uneven)
    np.testing.assert_array_equal(mirrored, view.apply(uneven)[:, ::-1])
    assert view.key() == "p2-40-pad-bicubic-exact"


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_base_patch16_siglip_224", "resnet50"])
@pytest.mark.parametrize("mode", [None, "border"])
def test_a_network_of_timm_is_given_its_published_crop(name: str, mode: str | None) -> None:
    timm = load_library()
    config = timm.get_pretrained_cfg(name).to_dict()
    facts = models.architecture(name)
    view = FeatureExtractor(View("pad" if mode else None))
    how = view.crop_for(models.Backbone(facts, torch.nn.Identity(), None))  # type: ignore[arg-type]
    theirs = timm.data.create_transform(
        facts.input_size,
        interpolation=config["interpolation"],
        crop_pct=1.0 if mode else config["crop_pct"],
        crop_mode=mode or config["crop_mode"],
        mean=tuple(each / 255 for each in FILL),
        normalize=False,
    )
    for shape in ((375, 500), (613, 420), (224, 224)):
        image = picture(*shape)
        expected = theirs(Image.fromarray(image)).permute(1, 2, 0).numpy()
        difference = np.abs(how.apply(image).astype(int) - expected)
        assert difference.mean() <= 0.02, shape
        assert difference.max() <= 2, shape


@pytest.mark.parametrize("name", models.BACKBONES)
def test_listed_networks_keep_the_papers_crop_and_its_keys(name: str) -> None:
    facts = models.BACKBONES[name]
    size = facts.input_size
    backbone = models.Backbone(facts, torch.nn.Identity(), None)  # type: ignore[arg-type]
    before = replace(PAPER_CROP, size=size, resize=round(256 * size / 224))
    assert FeatureExtractor().crop_for(backbone) == before
    assert before.key() == f"p2-{size}-squash-bicubic-exact"
    central = FeatureExtractor(View("crop")).crop_for(backbone)
    assert central == replace(before, fit="crop")


def test_a_heat_map_of_a_padded_photo_has_the_frame_of_the_photo() -> None:
    """The map has one hot row in the crop: the photo's upper edge, below the border."""
    hot = np.zeros((8, 8), np.float32)
    hot[2] = 1
    found = explain.to_photo_frame(Preprocess(size=40, fit="pad"), Activation(hot, 0, 0, True), 30, 60)
    assert found.shape == (30, 60)
    assert found[2].mean() > 0.5 > 0.1 > found[20:].mean()


# Sides


@pytest.mark.parametrize("name", [VIT, CONV, "test_vit_relpos", "test_maxvit"])
@pytest.mark.parametrize("side", [96, 224])
def test_a_network_takes_crops_of_another_side(name: str, side: int) -> None:
    own = random(name)
    other = own.at(side)
    crops = torch.randint(0, 256, (2, side, side, 3), dtype=torch.uint8)
    with torch.inference_mode():
        features = other.trunk(crops)
    assert features.shape == (2, own.architecture.feature_dim)
    assert torch.isfinite(features).all()
    assert other.key == models.key_for_side(own.key, side)
    assert other.at(own.architecture.input_size) is own
    twice = own.at(288).at(side)  # always from the original, never from what was resampled
    with torch.inference_mode():
        assert torch.equal(twice.trunk(crops), features)


def test_position_embeddings_are_resampled_in_a_copy() -> None:
    own = random(VIT)
    before = {name: tensor.clone() for name, tensor in own.network.state_dict().items()}
    other = own.at(96)
    assert own.network.pos_embed.shape[1] == 101  # 10 x 10 patches and the class token
    assert other.network.pos_embed.shape[1] == 37
    assert all(torch.equal(before[name], each) for name, each in own.network.state_dict().items())
    conv = random(CONV)
    assert conv.at(96).network is conv.network


@pytest.mark.parametrize(
    ("name", "side", "sentence"),
    [
        (VIT, 100, "the nearest sides that work are 96 and 112"),
        (CONV, 20, "test_convnext3 takes no crops of 20 pixels: the nearest side that works is 32"),
        ("gmixer_12_224", 160, "gmixer_12_224 takes crops of 224 pixels only, not of 160"),
    ],
)
def test_a_side_that_a_network_cannot_take_is_refused_with_the_nearest_that_it_can(
    name: str, side: int, sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence) as caught:
        random(name, side)
    for each in (96, 112) if name == VIT else ():
        random(name, each)
    assert str(caught.value).count(".") == 1


@pytest.mark.parametrize("side", [0, -5, 5000])
def test_a_side_of_no_crop_is_refused_at_once(side: int) -> None:
    with pytest.raises(InputError, match="from 1 to 4096 pixels"):
        random(CONV, side)


@pytest.mark.parametrize("size", [0, -3, 5000, 1.5, "224", (224, 160), True])
def test_a_size_that_is_no_side_is_refused(size: Any) -> None:
    with pytest.raises(InputError, match="one side of a square in pixels"):
        TrainConfig(size=size)


def test_an_unknown_crop_is_refused() -> None:
    with pytest.raises(InputError, match="choose squash, center or pad"):
        TrainConfig(crop="centre")  # type: ignore[arg-type]


# Classifiers


def check_folder(folder: Path, photo: bytes) -> Classifier:
    """Read a classifier back, predict by ONNX Runtime, by PyTorch and by an exported file."""
    read = Classifier.load(folder)
    backbone = read.lead.network.backbone
    crops = read.crop(photo)
    with torch.inference_mode():
        expected = backbone.trunk(torch.from_numpy(crops[0][None].copy())).numpy()
    np.testing.assert_allclose(read.features([crops[0][None]])[0], expected, atol=1e-3)
    shapes = [np.asarray(Image.open(io.BytesIO(photo))), *export.generated_pictures()]
    graph = export.assemble(read, export.trunks_of(read))
    parity = export.compare(graph, shapes, expected_of(read, shapes))
    assert parity.agreement == 1
    assert parity.max_difference < 1e-3  # heads on random features are steep: a grey level shows
    assert explain.heat_map(read, photo).shape == (64, 64)
    return read


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"crop": "pad"},
        {"backbone": CONV, "crop": "squash"},
        {"transfer": "all", "epochs": 1},
        {"transfer": "scratch", "epochs": 1, "crop": "center"},
        {"backbone": "squeezenet1_1"},
    ],
    ids=str,
)
def test_a_trained_classifier_is_read_back_exported_and_extended(
    change: dict[str, Any], insects: Path, draw: Any, tmp_path: Path
) -> None:
    trained = train(insects, replace(SMALL, **change), out=tmp_path / "model")
    fit = {"squash": "squash", "pad": "pad", "center": "crop", None: "crop"}[change.get("crop")]
    fit = "squash" if change.get("backbone") == "squeezenet1_1" else fit
    [view] = trained.classifier.views
    assert (view.size, view.fit) == (96, fit)
    read = check_folder(tmp_path / "model", draw(1, 77))
    assert read.views == trained.classifier.views
    p_NC = trained.classifier.predict_proba([draw(0, 5), draw(2, 6)])
    np.testing.assert_allclose(read.predict_proba([draw(0, 5), draw(2, 6)]), p_NC, atol=1e-4)
    entry = json.loads((tmp_path / "model/classifier.json").read_text())["members"][0]
    own = "trained_at" if "transfer" in change else "side"
    assert {name: entry[name] for name in ("side", "trained_at") if name in entry} == {own: 96}
    read.save(tmp_path / "again")
    np.testing.assert_allclose(
        Classifier.load(tmp_path / "again").predict_proba(draw(0, 5)), p_NC[:1], atol=1e-4
    )
    new = tmp_path / "new/cat"
    new.mkdir(parents=True)
    for number in range(12):
        (new / f"{number}.jpg").write_bytes(draw(5, number))
    grown = extend(tmp_path / "model", new.parent, ExtendConfig(engine="torch"), out=tmp_path / "grown")
    assert grown.classifier.views == read.views
    assert grown.classifier.lead.network.key == read.lead.network.key


def test_a_folder_with_another_side_than_its_weights_is_refused(insects: Path, tmp_path: Path) -> None:
    train(insects, replace(SMALL, transfer="all", epochs=1), out=tmp_path / "model")
    path = tmp_path / "model/classifier.json"
    about = json.loads(path.read_text())
    about["members"][0]["trained_at"] = 112
    path.write_text(json.dumps(about))
    with pytest.raises(ClassifierError):
        Classifier.load(tmp_path / "model").predict_proba(np.zeros((40, 40, 3), np.uint8))


def test_an_ensemble_honours_size_and_crop(
    insects: Path, draw: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "fieldmark.training.automl.load_all", lambda names, *_: [random(n, 96) for n in names]
    )
    config = TrainConfig(backbone=CONV, also=(VIT,), engine="torch", size=96, crop="pad")
    train(insects, config, out=tmp_path / "model")
    read = Classifier.load(tmp_path / "model")
    assert {(each.network.side, each.preprocess.fit) for each in read.members} == {(96, "pad")}
    assert read.predict(draw(1, 3)).answers


def test_best_tries_no_other_size_or_crop_than_the_chosen_ones() -> None:
    networks = [random(CONV, 96), random(VIT, 96)]
    chosen = candidates(networks, FeatureExtractor(View("pad")), all_views=True)
    assert {(each.view.size, each.view.fit) for each in chosen} == {(96, "pad")}
    assert [each.plain for each in chosen].count(True) == 2
    assert any(each.view.flip for each in chosen)
    free = candidates([random(CONV)], FeatureExtractor(), all_views=True)
    assert {(each.view.size, each.view.fit) for each in free} == {
        (160, "crop"),
        (192, "crop"),
        (192, "squash"),
    }


def test_best_tries_each_of_several_sides_that_a_network_takes(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    found = candidates([random(CONV), random(VIT)], FeatureExtractor(), all_views=True, sides=(96, 2, 128))
    sizes = {(each.backbone.architecture.name, each.view.size) for each in found}
    assert sizes >= {(CONV, 96), (CONV, 128), (VIT, 96), (VIT, 128)}
    assert {each.view.size for each in found if each.plain} == {
        models.architecture(CONV).input_size,
        models.architecture(VIT).input_size,
    }
    assert f"{VIT} is not tried with crops of 2 pixels" in caplog.text
    config = TrainConfig(quality="best", size=96, also_sizes=[128])  # type: ignore[arg-type]
    assert TrainConfig.from_dict(config.to_dict()) == config
    config.check()
    for other in (TrainConfig(also_sizes=(128,)), TrainConfig(backbone=CONV, also=(VIT,), also_sizes=(128,))):
        with pytest.raises(InputError, match="candidates of --quality best"):
            other.check()
    with pytest.raises(InputError, match="a tuple of sides"):
        TrainConfig(quality="best", also_sizes=(0,))
    assert opt.sides("160, 224,160") == (160, 224)
    for wrong in ("", ",", "160x224", "160,a"):
        with pytest.raises(InputError, match="crops are square"):
            opt.sides(wrong)


def test_a_ranking_honours_size_and_crop(insects: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    compute = FeatureExtractor.compute

    def noted(self: FeatureExtractor, photos: Any, backbones: Any, **more: Any) -> Any:
        seen.extend(self.crop_for(each) for each in backbones.values())
        return compute(self, photos, backbones, **more)

    monkeypatch.setattr(FeatureExtractor, "compute", noted)
    rank(insects, RankConfig(networks=(VIT,), engine="torch", size=96, crop="squash"))
    assert [(each.size, each.fit) for each in seen] == [(96, "squash")]


def test_a_study_compares_sizes_and_crops_of_one_network(insects: Path, tmp_path: Path) -> None:
    runs = [
        Run("sizes", "published", CONV, pruned=False, epochs=1),
        Run("sizes", "smaller", CONV, pruned=False, epochs=1, size=96),
        Run("sizes", "padded", CONV, pruned=False, epochs=1, size=96, crop="pad"),
        Run(
            "sizes", "tuned", CONV, pruned=False, epochs=1, mode="tuned", transfer="all", size=96, crop="pad"
        ),
    ]
    config = StudyConfig(Options(epochs=1), engine="torch", groups="none")
    found = study(insects, runs, config, out=tmp_path).record.rows
    rows = {row.label: row.to_dict() for row in found}
    assert {name: (row.get("size"), row.get("crop")) for name, row in rows.items()} == {
        "published": (None, None),
        "smaller": (96, None),
        "padded": (96, "pad"),
        "tuned": (96, "pad"),
    }
    assert len({row["id"] for row in rows.values()}) == len({row["key"] for row in rows.values()}) == 4
    assert rows["smaller"]["giga_macs"] < rows["published"]["giga_macs"]
    unset = Run("sizes", "published", CONV)
    assert not {"size", "crop"} & unset.about().keys()  # so that rows of older studies keep their keys


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"size": 20}, "nearest side that works is 32"),
        ({"size": 0}, "one side of a square"),
        ({"crop": "square"}, "choose squash, center or pad"),
        ({"backbone": "", "mode": "ensemble", "members": "t", "crop": "pad"}, "is made from other rows"),
    ],
)
def test_a_study_refuses_sizes_and_crops_that_cannot_be(
    change: dict[str, Any], sentence: str, insects: Path, tmp_path: Path
) -> None:
    runs = [Run("t", "one", CONV), Run(**{"table": "u", "label": "two", "backbone": CONV} | change)]
    with pytest.raises(InputError, match=sentence):
        study(insects, runs, StudyConfig(engine="torch"), out=tmp_path)


# The command line


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            ("--size", "224x160"),
            "--size is '224x160': crops are square, so give one side in pixels, such as 224.",
        ),
        (("--size", "5000"), "size is 5000: it must be one side of a square in pixels, from 1 to 4096"),
        (("--crop", "round"), "'round' is not one of 'squash', 'center', 'pad'"),
        (("--size", "100", "--backbone", VIT, "--weights", "random"), "sides that work are 96 and 112."),
    ],
)
def test_the_command_line_refuses_in_one_sentence(
    options: tuple[str, ...], sentence: str, insects: Path, run: Any, tmp_path: Path
) -> None:
    done = run("train", insects, "--out", tmp_path / "model", *options)
    assert done.code == 2
    assert sentence in done.err
    assert not (tmp_path / "model").exists()


def test_the_command_line_trains_with_both(insects: Path, run: Any, tmp_path: Path) -> None:
    options = ("--backbone", VIT, "--weights", "random", "--size", "96", "--crop", "pad", "--engine", "torch")
    assert run("train", insects, "--out", tmp_path / "model", *options).code == 0
    member = json.loads((tmp_path / "model/classifier.json").read_text())["members"][0]
    assert (member["preprocess"]["size"], member["preprocess"]["fit"], member["side"]) == (96, "pad", 96)
    photo = next(insects.rglob("*.jpg"))
    assert run("predict", tmp_path / "model", photo).code == 0
    assert run("export", tmp_path / "model", "--onnx", tmp_path / "m.onnx", "--check", photo).code == 0


def test_extract_makes_the_features_that_train_asks_for(
    insects: Path, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIELDMARK_CACHE", str(tmp_path / "cache"))
    options = ("--backbone", VIT, "--weights", "random", "--size", "96", "--crop", "pad", "--engine", "torch")
    done = run("extract", insects, *options)
    assert "64 photos with cached features (64 computed now)" in done.out
    trained = train(insects, replace(SMALL, crop="pad"))
    assert not trained.outcome.fitted.data.extraction.computed
