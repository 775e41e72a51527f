"""Classifiers with several members: the answer is the weighted mean, wherever it is asked for."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.conftest import write_about

from fieldmark import models
from fieldmark.data.taxonomy import Taxon, Taxonomy
from fieldmark.data.transforms import Preprocess, crops
from fieldmark.evaluation import metrics
from fieldmark.heads.base import LinearHead
from fieldmark.inference import explain, export
from fieldmark.inference.classifier import Classifier, Member, Network, stacked
from fieldmark.inference.classifier.ood import OodDetector
from fieldmark.utils.errors import ClassifierError

pytestmark = pytest.mark.usefixtures("one_cache")


TAXA = Taxonomy(Taxon(str(n), f"Genus species{n}") for n in range(4))
SQUASH = Preprocess(fit="squash")
NAMES = ("shufflenet_v2_x0_5", "squeezenet1_1")


def photo(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (180, 260, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    """Two networks, one with three views besides its own: mirrored, cropped, and in smaller crops."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIELDMARK_CACHE", str(tmp_path_factory.mktemp("cache")))
        loaded = [models.load(name, weights="random") for name in NAMES]
        networks = [Network.of(each) for each in (*loaded, loaded[0].at(160))]
        for each in networks:
            assert each.engine is not None  # converted here, and then in memory
    small = replace(SQUASH, size=160)
    views = (SQUASH, replace(SQUASH, flip=True), Preprocess(), SQUASH, small)
    members = []
    for number, view in enumerate(views):
        network = networks[max(0, number - 2)]
        random = np.random.default_rng(number)
        dim = network.backbone.architecture.feature_dim
        unit = np.linalg.norm(network.engine(view.apply(photo(0))[None]))
        head = LinearHead(
            (random.normal(0, 1, (dim, 4)) / unit).astype(np.float32),
            random.normal(0, 1, 4).astype(np.float32),
        )
        members.append(Member(network, view, head, (1.0, 0.5, 2.0, 1.5, 1.2)[number], 0.3 - 0.05 * number))
    return Classifier(
        tuple(members),
        TAXA,
        temperature=0.8,
        ood=OodDetector("energy", 0.1, np.empty((0, len(members[0].head.weight)), np.float32)),
    )


@pytest.fixture(scope="module")
def saved(made: Classifier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "m"
    made.save(folder)
    return folder


def by_hand(made: Classifier, pixels: np.ndarray) -> np.ndarray:
    total = np.zeros(4)
    for member in made.members:
        x_1D = member.network.engine(member.preprocess.apply(pixels)[None])
        logits = member.head.logits(x_1D)[0].astype(np.float64) / member.temperature
        total += member.weight * np.exp(logits) / np.exp(logits).sum()
    return np.asarray(total ** (1 / 0.8) / (total ** (1 / 0.8)).sum())


def test_the_scores_are_the_weighted_mean_of_the_members(made: Classifier) -> None:
    assert len(made.networks) == 3
    assert len(made.views) == 4
    assert made.architecture == " + ".join(NAMES)
    for seed in range(3):
        found = made.scores(stacked([made.crop(photo(seed))]))[0]
        np.testing.assert_allclose(found, by_hand(made, photo(seed)), atol=1e-5)


def test_a_network_runs_once_for_all_of_its_views(made: Classifier) -> None:
    ran: list[tuple[str, int]] = []

    class Counting:
        def __init__(self, network: Network) -> None:
            self.key, self.architecture, self._of = network.key, network.architecture, network

        def engine(self, crops_NSS3: np.ndarray) -> np.ndarray:
            ran.append((self.architecture, len(crops_NSS3)))
            return self._of.engine(crops_NSS3)

    counted = replace(
        made, members=tuple(replace(each, network=Counting(each.network)) for each in made.members)
    )
    counted.predict([photo(0), photo(1)])
    # two photos in three views, in smaller crops of one, and the other network in one
    assert sorted(ran) == [(NAMES[0], 2), (NAMES[0], 6), (NAMES[1], 2)]


def test_the_views_of_a_photo_are_those_that_each_makes_by_itself(tmp_path: Path) -> None:
    from PIL import Image

    path = tmp_path / "p.jpg"
    Image.fromarray(photo(3)).resize((900, 700)).save(path)
    views = [SQUASH, replace(SQUASH, flip=True), Preprocess(tier="fast"), Preprocess(size=32)]
    for view, crop in zip(views, crops(path.read_bytes(), views), strict=True):
        np.testing.assert_array_equal(crop, view.crop(path.read_bytes()))
        assert crop.flags.c_contiguous
    straight, mirrored = SQUASH.apply(photo(1)), replace(SQUASH, flip=True).apply(photo(1))
    np.testing.assert_array_equal(straight[:, ::-1], mirrored)
    assert len({view.key() for view in views}) == 4


def test_what_is_saved_is_what_is_loaded(made: Classifier, saved: Path, tmp_path: Path) -> None:
    names = {path.name for path in saved.glob("*.safetensors")}
    heads = {"head.safetensors", *(f"head-{n}.safetensors" for n in (2, 3, 4, 5))}
    assert names == {*heads, "backbone.safetensors", "backbone-2.safetensors"}
    loaded = Classifier.load(saved)
    assert loaded.digest == made.digest
    assert loaded.members[0].network is loaded.members[1].network
    assert loaded.members[4].network.backbone.architecture.input_size == 160
    one, other = made.predict([photo(5)])[0], loaded.predict([photo(5)])[0]
    assert [a.taxon for a in one.answers] == [a.taxon for a in other.answers]
    np.testing.assert_allclose([a.score for a in one.answers], [a.score for a in other.answers], atol=1e-5)
    zipped = shutil.make_archive(str(tmp_path / "z"), "zip", saved)
    assert Classifier.load(zipped).digest == made.digest


def test_a_smaller_classifier_leaves_nothing_of_a_larger_one(
    made: Classifier, saved: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(saved, tmp_path / "m"))
    alone = replace(made, members=(replace(made.members[0], weight=1.0),))
    alone.save(folder)
    names = {path.name for path in folder.glob("*.safetensors")}
    assert names == {"head.safetensors", "backbone.safetensors"}


@pytest.mark.parametrize("gone", ["head-3.safetensors", "backbone-2.safetensors"])
def test_a_member_that_is_damaged_is_one_sentence(
    saved: Path, tmp_path: Path, gone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIELDMARK_CACHE", str(tmp_path))  # with its graph in a cache no network is read
    folder = Path(shutil.copytree(saved, tmp_path / "m"))
    (folder / gone).unlink()
    with pytest.raises(ClassifierError, match="damaged classifier"):
        Classifier.load(folder)
    shutil.copy(saved / "head.safetensors", folder / gone)
    with pytest.raises(ClassifierError):
        Classifier.load(folder).predict([photo(0)])


@pytest.mark.parametrize(
    "change",
    [
        lambda members: members.reverse(),
        lambda members: members[0].update(weight=0.5),
        lambda members: members[3].update(backbone_key=members[0]["backbone_key"]),
        lambda members: members.pop(),
        lambda members: members[4].pop("side"),
        lambda members: members[4].update(side=224),
        lambda members: members[4].update(side="160"),
        lambda members: members[0].update(side=160),
    ],
)
def test_members_that_do_not_fit_together_are_one_sentence(
    saved: Path, tmp_path: Path, change: object
) -> None:
    folder = Path(shutil.copytree(saved, tmp_path / "m"))
    about = json.loads((folder / "classifier.json").read_text())
    change(about["members"])  # type: ignore[operator]
    write_about(folder, about)
    with pytest.raises(ClassifierError, match="damaged classifier"):
        Classifier.load(folder)


def test_the_first_format_is_still_read(made: Classifier, tmp_path: Path) -> None:
    alone = replace(made, members=(replace(made.members[0], weight=1.0),))
    alone.save(tmp_path / "m")
    about = json.loads((tmp_path / "m" / "classifier.json").read_text())
    (member,) = about.pop("members")
    member["preprocess"].pop("flip")
    names = ("architecture", "backbone_key", "preprocess")
    old = {**about, **{n: member[n] for n in names}, "format": "fieldmark-classifier-1"}
    write_about(tmp_path / "m", old)
    assert Classifier.load(tmp_path / "m").digest == alone.digest


def test_of_some_labels_each_member_answers_among_them(made: Classifier) -> None:
    some = made.only(["1", "3"])
    p_C = some.scores(stacked([some.crop(photo(2))]))[0]
    assert p_C.shape == (2,)
    assert p_C.sum() == pytest.approx(1, abs=1e-5)


def test_the_energy_is_the_weighted_mean_of_the_members(made: Classifier) -> None:
    crop = made.crop(photo(4))
    energy = made.outputs(stacked([crop]))[1][0]
    expected = 0.0
    for member in made.members:
        x_1D = member.network.engine(member.preprocess.apply(photo(4))[None])
        logits = member.head.logits(x_1D)[0] / member.temperature / 0.8
        expected += member.weight * np.log(np.exp(logits).sum())
    assert energy == pytest.approx(expected, abs=1e-4)


def test_one_member_answers_as_it_would_by_its_softmax(made: Classifier) -> None:
    alone = replace(made, members=(replace(made.members[0], weight=1.0),))
    (crop,) = alone.crop(photo(1))
    x_1D = alone.lead.network.engine(crop[None])
    expected = np.exp(metrics.log_softmax(alone.lead.head.logits(x_1D) / 0.8))
    np.testing.assert_allclose(alone.scores(crop[None]), expected, atol=1e-6)


def test_the_exported_graph_has_all_members_and_their_views(made: Classifier, tmp_path: Path) -> None:
    done = export.export(made, tmp_path / "m.onnx", [photo(seed) for seed in range(4)])
    assert done.parity.max_difference < 1e-4
    import onnx

    model = onnx.load(tmp_path / "m.onnx")
    weights = sum(np.prod(tensor.dims) for tensor in model.graph.initializer)
    two = made.networks[:2]
    both = sum(sum(p.numel() for p in n.backbone.network.parameters()) for n in two)
    assert weights < 1.1 * both  # each network is there once, whatever its views and their sizes


def test_an_exported_graph_without_a_member_is_found_out(
    made: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    views = [replace(m, preprocess=replace(m.preprocess, flip=False)) for m in made.members]
    blind = replace(made, members=tuple(views))
    model = export.assemble(blind, export.trunks_of(made))
    shapes = [photo(seed) for seed in range(3)]
    found = [made.outputs(stacked([made.crop(each)])) for each in shapes]
    expected = export.Outputs(*(np.concatenate(part) for part in zip(*found, strict=True)))
    assert export.compare(model, shapes, expected).max_difference > 1e-3


def test_the_heat_map_is_the_weighted_sum_of_the_members(made: Classifier) -> None:
    pixels = photo(6)
    heat = explain.heat_map(made, pixels, 2)
    total = np.zeros(pixels.shape[:2])
    for member in made.members:
        found = explain.activation(member, member.preprocess.apply(pixels), 2)
        one = explain.to_photo_frame(member.preprocess, found, *pixels.shape[:2])
        total += member.weight / member.temperature * max(0, found.map_hw.max()) * one
    np.testing.assert_allclose(heat, total / total.max(), atol=1e-5)


def test_a_mirrored_view_is_drawn_the_right_way_round() -> None:
    left = np.zeros((7, 7), np.float32)
    left[:, 0] = 1
    found = explain.Activation(left, 1.0, 0.0, exact=True)
    drawn = explain.to_photo_frame(replace(SQUASH, flip=True), found, 70, 70)
    assert drawn[:, :10].max() < 0.1
    assert drawn[:, -5:].min() > 0.5


def test_the_card_names_the_members(saved: Path) -> None:
    text = (saved / "README.md").read_text()
    assert "**Members.**" in text
    assert "0.30 x shufflenet_v2_x0_5\n" in text
    assert "shufflenet_v2_x0_5 (mirrored)" in text
    assert "shufflenet_v2_x0_5 (160 px)" in text
