"""Classifiers from names alone, and the first photos that are added to them.

The network is a small CLIP that learns here, in some hundred steps, which colour goes with which name, so
that its names mean something.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import fieldmark
from fieldmark.data.taxonomy import Taxon
from fieldmark.features.cache import Features
from fieldmark.features.labelled import LabelledFeatures
from fieldmark.heads import logistic
from fieldmark.heads.base import LinearHead
from fieldmark.models import import_torchvision
from fieldmark.training import train_from_names
from fieldmark.training.names_only import sentences
from fieldmark.utils.errors import InputError

import_torchvision()
open_clip = pytest.importorskip("open_clip", reason="the extra open-clip is not installed")

Run = Callable[..., Any]
SIDE = 32
COLOURS = {"Rubra ardens": (200, 30, 30), "Viridis lenta": (30, 180, 40), "Caerulea alta": (30, 60, 210)}
CONFIG = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": SIDE, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


def shown(colour: tuple[int, int, int], random: np.random.Generator) -> np.ndarray:
    noisy = np.array(colour) + random.normal(0, 25, (SIDE, SIDE, 3)) + random.normal(0, 15, 3)
    return noisy.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of a network on the hub, which knows three names by their colour."""
    torch.manual_seed(0)
    model: Any = open_clip.CLIP(**CONFIG)
    tokens = open_clip.SimpleTokenizer(context_length=32)(
        [text for name in COLOURS for text in sentences(Taxon(name, name))[:1]]
    )
    optimiser, random = torch.optim.Adam(model.parameters(), 2e-3), np.random.default_rng(0)
    for _ in range(120):
        pixels = np.stack([shown(colour, random) for colour in COLOURS.values() for _ in range(4)])
        images = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
        scores = model.encode_image(images, normalize=True) @ model.encode_text(tokens, normalize=True).T
        loss = torch.nn.functional.cross_entropy(10 * scores, torch.arange(3).repeat_interleave(4))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    folder = tmp_path_factory.mktemp("network")
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    pixels_config = {"mean": [0.5] * 3, "std": [0.5] * 3}
    about = json.dumps({"model_cfg": CONFIG, "preprocess_cfg": pixels_config})
    (folder / "open_clip_config.json").write_text(about)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    return folder


def photos(folder: Path, each: int, names: tuple[str, ...] = tuple(COLOURS), seed: int = 1) -> Path:
    random = np.random.default_rng(seed)
    for name in names:
        (folder / name).mkdir(parents=True)
        for number in range(each):
            Image.fromarray(shown(COLOURS[name], random)).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def made(network: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made")
    (out / "species.txt").write_text("Rubra ardens, ember\n\n# a comment\nViridis lenta\nCaerulea alta\n")
    config = fieldmark.TrainConfig(backbone=f"local-dir:{network}")
    train_from_names(out / "species.txt", config, out=out / "m")
    return out / "m"


def test_the_command_says_that_nothing_is_calibrated(network: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "species.csv").write_text(
        "name,common_name,family\nRubra ardens,ember,Aa\nViridis lenta,,Bb\n"
    )
    about = ("--backbone", f"local-dir:{network}", "--out", tmp_path / "m")
    done = run("train", "--names-only", tmp_path / "species.csv", *about)
    assert done.code == 0, done.err
    assert "not calibrated" in done.out
    taxa = fieldmark.Classifier.load(tmp_path / "m").taxa
    assert [(each.common_name, each.ranks["family"]) for each in taxa] == [("ember", "Aa"), ("", "Bb")]


def test_names_alone_tell_photos_apart(made: Path, tmp_path: Path, run: Run) -> None:
    classifier = fieldmark.Classifier.load(made)
    assert [taxon.name for taxon in classifier.taxa] == list(COLOURS)
    assert classifier.taxa[0].common_name == "ember"
    assert "not calibrated" in (made / "README.md").read_text()
    assert classifier.provenance["licence"] == "mit, as its page says"
    assert classifier.provenance["names_only"] is True
    folder = photos(tmp_path / "new", 4)
    paths = sorted(folder.rglob("*.png"))
    given_N = classifier.predict_proba(paths).argmax(1)
    right_N = [list(COLOURS).index(path.parent.name) for path in paths]
    assert (given_N == right_N).mean() >= 0.9
    assert "not calibrated" in run("predict", made, paths[0]).err


def test_photos_of_two_of_the_names_make_it_measured_and_keep_the_third(
    made: Path, tmp_path: Path, run: Run
) -> None:
    few = photos(tmp_path / "few", 6, ("Rubra ardens", "Viridis lenta"))
    found = run("grow", made, few, "--out", tmp_path / "grown", "--groups", "none")
    assert found.code == 0, found.err
    assert "Top-1 error" in found.out
    grown = fieldmark.Classifier.load(tmp_path / "grown")
    assert [taxon.name for taxon in grown.taxa] == list(COLOURS)
    names = {each["head"] for each in grown.provenance["tried"]}
    assert "names alone" in names
    assert len(names) == 4
    third = photos(tmp_path / "third", 4, ("Caerulea alta",), seed=9)
    log_p_NC = np.log(grown.predict_proba(sorted(third.rglob("*.png"))))
    assert (log_p_NC.argmax(1) == 2).mean() >= 0.75
    again = run("grow", tmp_path / "grown", few, "--out", tmp_path / "more")
    assert again.code == 2
    assert "names alone again" in again.err.replace("\n", " ")


@pytest.mark.parametrize(
    ("names", "options", "says"),
    [
        (["One species"], {}, "at least two names"),
        (["Rubra ardens", "rubra  ARDENS"], {}, "named twice"),
        (["A a", "B b"], {"backbone": "tf_efficientnet_lite0"}, "no text tower"),
        (["A a", "B b"], {"epochs": 3}, "epochs has no effect without photos"),
        (["A a", "B b"], {"weights": "random"}, "pretrained weights"),
    ],
)
def test_what_cannot_be_is_refused(
    network: Path, names: list[str], options: dict[str, Any], says: str
) -> None:
    config = fieldmark.TrainConfig(**{"backbone": f"local-dir:{network}", **options})
    with pytest.raises(InputError, match=says):
        train_from_names(names, config)


def test_a_label_that_is_none_of_the_names_is_refused(made: Path, tmp_path: Path, run: Run) -> None:
    few = photos(tmp_path / "few", 2)
    (few / "Rubra ardens").rename(few / "Rubra ignota")
    found = run("grow", made, few, "--out", tmp_path / "grown")
    assert found.code == 2
    assert "Rubra ignota" in found.err
    assert not (tmp_path / "grown").exists()


def test_photos_and_names_exclude_each_other(made: Path, tmp_path: Path, run: Run) -> None:
    for words in (["train"], ["train", tmp_path, "--names-only", tmp_path]):
        found = run(*words, "--out", tmp_path / "m")
        assert found.code == 2
        assert "--names-only" in found.err


def test_sentences_have_every_name_that_is_known() -> None:
    ranks = {"kingdom": "Animalia", "family": "Felidae", "genus": "Lynx", "species": "Lynx lynx"}
    found = sentences(Taxon("1", "Lynx lynx", "Eurasian lynx", ranks=ranks))
    assert found == [
        "a photo of Lynx lynx.",
        "a photo of Animalia Felidae Lynx lynx.",
        "a photo of Eurasian lynx.",
        "a photo of Animalia Felidae Lynx lynx with common name Eurasian lynx.",
    ]


def test_a_strong_pull_is_the_head_and_a_weak_one_learns() -> None:
    random = np.random.default_rng(0)
    y_N = np.arange(60) % 3
    x_ND = (np.eye(3, 8)[y_N] + 0.3 * random.normal(size=(60, 8))).astype(np.float32)
    photos_ = LabelledFeatures(Features.of(x_ND), y_N, tuple(map(str, range(60))))
    wrong = LinearHead(np.roll(np.eye(8, 3), 1, axis=1).astype(np.float32), np.zeros(3, np.float32))
    strong, weak = logistic.fit_path(photos_, 3, [1e6, 0.001], towards=wrong)
    # The bias is drawn to the head's less strongly than the weights are.
    np.testing.assert_allclose(strong.weight, wrong.weight, atol=1e-3)
    assert (weak.logits(x_ND).argmax(1) == y_N).mean() > 0.95
    (none,) = logistic.fit_path(photos_.where(np.zeros(60, np.bool_)), 3, [0.1], towards=wrong)
    assert none is wrong
