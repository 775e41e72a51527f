"""Classifiers: what is saved is what is loaded, and no folder whatever runs code or crashes."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import textwrap
import tracemalloc
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.conftest import write_about

from fieldmark import models
from fieldmark.data.taxonomy import Taxon, Taxonomy
from fieldmark.data.transforms import Preprocess
from fieldmark.evaluation.calibration import Threshold
from fieldmark.heads.base import LinearHead
from fieldmark.inference.classifier import FORMAT, Classifier
from fieldmark.inference.classifier import folder as folders
from fieldmark.inference.classifier.model_card import card
from fieldmark.inference.classifier.ood import OodDetector
from fieldmark.models.runtime import cached_graph
from fieldmark.utils import io
from fieldmark.utils.errors import ClassifierError, ImageRejected, InputError
from fieldmark.utils.threads import AHEAD

NAME = "shufflenet_v2_x0_5"
TAXA = (
    Taxon("7", "Apis mellifera", "honey bee", "Insects", {"genus": "Apis"}),
    Taxon("3", "Parus major", "", "Birds", {}),
    Taxon("12", "Lynx lynx", "lynx", "Mammals", {"family": "Felidae"}),
)


def make() -> Classifier:
    backbone = models.load(NAME, weights="random")
    rng = np.random.default_rng(0)
    weight = rng.normal(0, 1e3, (1024, 3)).astype(np.float32)  # random features are small
    return Classifier.alone(
        backbone,
        preprocess=Preprocess(size=224, fit="squash"),
        head=LinearHead(weight, np.array([0.1, 0.2, -0.3], np.float32)),
        taxonomy=Taxonomy(TAXA),
        temperature=1.7,
        ood=OodDetector("class means", -3.5, np.eye(3, 1024, dtype=np.float32)),
        thresholds={"species": Threshold(0.95, 0.6, 0.8, 0.9), "genus": Threshold(0.95, 0.8, 0.1)},
        provenance={"name": "made for a test", "licence": "other", "tried": [1, 2.5, None]},
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier on disk. Not to be changed."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    make().save(folder)
    return folder


@pytest.fixture(autouse=True)
def cache(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """One cache for all tests here, so that the network is converted once; but where the weights on
    disk are to be read, none has been converted yet."""
    if "copy" in request.fixturenames:
        folder = tmp_path_factory.mktemp("fresh")
    else:
        folder = tmp_path_factory.getbasetemp() / "converted"
    monkeypatch.setenv("FIELDMARK_CACHE", str(folder))
    return folder


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    """The same, to be damaged."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


def change(folder: Path, **values: Any) -> None:
    """Write other values into `classifier.json`; Python's JSON also writes NaN and infinity."""
    write_about(folder, json.loads((folder / "classifier.json").read_text()) | values)


def change_member(folder: Path, **values: Any) -> None:
    """The same for values of the first member."""
    (first, *others) = json.loads((folder / "classifier.json").read_text())["members"]
    change(folder, members=[{**first, **values}, *others])


def photo(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (240, 300, 3), dtype=np.uint8)


def refused(folder: Path) -> str:
    """The sentence with which a folder is refused, when it is loaded or at the first use at last."""
    with pytest.raises(ClassifierError) as caught:
        Classifier.load(folder).predict([photo()])
    message = str(caught.value)
    assert "\n" not in message.strip()
    assert str(folder) in message
    assert message.endswith(".")
    return message


def test_what_is_loaded_is_what_was_saved(saved: Path) -> None:
    made, loaded = make(), Classifier.load(saved)
    for name in ("architecture", "views", "taxonomy", "temperature", "digest"):
        assert getattr(loaded, name) == getattr(made, name)
    assert loaded.thresholds == made.thresholds
    assert loaded.provenance == made.provenance
    photos = [photo(seed) for seed in range(3)]
    for one, other in zip(made.predict(photos), loaded.predict(photos), strict=True):
        assert [a.taxon for a in one.answers] == [a.taxon for a in other.answers]
        assert [a.score for a in one.answers] == pytest.approx([a.score for a in other.answers])
        assert one.sure == other.sure


def test_saving_what_was_loaded_gives_the_same_files(saved: Path, tmp_path: Path) -> None:
    Classifier.load(saved).save(tmp_path / "again")
    for path in saved.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes(), path.name


def test_it_can_be_saved_over_itself(copy: Path) -> None:
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    Classifier.load(copy).save(copy)
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == before


def test_labels_are_sorted_by_confidence_and_sum_to_one(saved: Path) -> None:
    (found,) = Classifier.load(saved).predict([photo()], top=9)
    scores = [answer.score for answer in found.answers]
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) == pytest.approx(1)
    assert found.best == found.answers[0]
    assert len(Classifier.load(saved).predict([photo()], top=2)[0].answers) == 2


def test_sure_means_that_the_first_score_reaches_the_threshold(saved: Path) -> None:
    classifier = Classifier.load(saved)
    assert classifier.rank(np.array([0.3, 0.6, 0.1])).sure
    assert not classifier.rank(np.array([0.3, 0.59, 0.11])).sure


CATS = Taxonomy(
    Taxon(str(at), name, ranks=ranks)
    for at, (name, ranks) in enumerate(
        [
            ("Panthera leo", {"family": "Felidae", "genus": "Panthera"}),
            ("Panthera onca", {"family": "Felidae", "genus": "Panthera"}),
            ("Puma concolor", {"family": "Felidae", "genus": "Puma"}),
            ("Canidae", {"family": "Canidae"}),
        ]
    )
)
THRESHOLDS = {
    "species": Threshold(0.95, 0.62, 0.9),
    "genus": Threshold(0.95, 0.9, 0.05),
    "family": Threshold(0.95, 0.9, 0.01),
}


@pytest.mark.parametrize(
    ("p", "given", "reason"),
    [
        (
            [0.87, 0.1, 0.03, 0.0],
            ("species", "species", "Panthera leo", 0.87),
            "the species Panthera leo is sure enough (0.87 >= 0.62)",
        ),
        (
            [0.56, 0.41, 0.01, 0.02],
            ("rolled up", "genus", "Panthera", 0.97),
            "the species Panthera leo is not sure enough (0.56 < 0.62); the genus Panthera is "
            "(0.97); names without a genus have 0.02",
        ),
        (
            [0.4, 0.2, 0.4, 0.0],
            ("rolled up", "family", "Felidae", 1.0),
            "the species Panthera leo is not sure enough (0.40 < 0.62); the family Felidae is (1.00)",
        ),
        (
            [0.15, 0.15, 0.0, 0.7],
            ("species", "family", "Canidae", 0.7),
            "the family Canidae is sure enough (0.70 >= 0.62)",
        ),
        (
            [0.1998, 0.18, 0.0006, 0.6196],
            ("not sure", "none", "", 0.6196),
            "the family Canidae is not sure enough (0.620 < 0.620), and no wider rank is: the family "
            "Canidae has 0.62 < 0.90",
        ),
    ],
)
def test_the_narrowest_rank_that_is_sure_enough_is_the_answer(
    p: list[float], given: tuple[Any, ...], reason: str
) -> None:
    made = replace(make(), taxonomy=CATS, thresholds=THRESHOLDS)
    found = made.rank(np.array(p, np.float32), top=2)
    assert (found.source, found.rank, found.name) == given[:3]
    assert found.score == pytest.approx(given[3], abs=1e-6)
    assert found.reason == reason.replace("0.620 < 0.620", "0.6196 < 0.6200")
    assert len(found.answers) == 2  # the best labels are there whatever the answer
    assert found.best.score == pytest.approx(max(p))
    assert [one.rank for one in found.wider] == ["genus", "family"]


def test_without_thresholds_the_first_label_is_given() -> None:
    found = replace(make(), thresholds={}).rank(np.array([0.3, 0.6, 0.1], np.float32))
    assert (found.sure, found.source, found.name) == (True, "species", "Parus major")
    assert "no threshold" in found.reason


def test_where_no_score_is_high_enough_the_reason_says_so() -> None:
    never = {"species": Threshold(0.95, 1.01, 0.0)}
    found = replace(make(), thresholds=never).rank(np.array([0.0, 1.0, 0.0], np.float32))
    assert found.source == "not sure"
    assert found.reason == "the species Parus major is not sure enough (1.00; no score is high enough)"


def test_a_path_its_bytes_and_its_pixels_give_the_same_answer(saved: Path, tmp_path: Path) -> None:
    path, pixels = tmp_path / "photo.png", photo()
    Image.fromarray(pixels).save(path)
    classifier = Classifier.load(saved)
    found = classifier.predict([path, str(path), path.read_bytes(), pixels])
    found += [classifier.predict(one) for one in (path, str(path), path.read_bytes(), pixels)]
    for other in found[1:]:
        assert [a.taxon for a in other.answers] == [a.taxon for a in found[0].answers]
        np.testing.assert_allclose(
            [a.score for a in other.answers], [a.score for a in found[0].answers], rtol=1e-4
        )


def test_no_photos_and_bad_photos(saved: Path, tmp_path: Path) -> None:
    classifier = Classifier.load(saved)
    assert classifier.predict([]) == []
    assert classifier.scores(np.empty((0, 224, 224, 3), np.uint8)).shape == (0, 3)
    for bad in (b"", b"no photo", tmp_path / "nowhere.jpg", tmp_path):
        with pytest.raises(ImageRejected):
            classifier.predict([bad])
    (tmp_path / "text.jpg").write_bytes(b"no photo")
    with pytest.raises(ImageRejected, match=r"text\.jpg"):
        classifier.predict([photo(), tmp_path / "text.jpg"])


# Photos in any form


def forms(pixels: np.ndarray, folder: Path) -> dict[str, Any]:
    """The same picture in every form that is accepted."""
    import torch

    path = folder / "photo.png"
    Image.fromarray(pixels).save(path)
    data = path.read_bytes()
    return {
        "path": path,
        "text": str(path),
        "bytes": data,
        "bytearray": bytearray(data),
        "memoryview": memoryview(data),
        "open file": BytesIO(data),
        "Pillow": Image.fromarray(pixels),
        "Pillow, not loaded": Image.open(path),
        "array": pixels,
        "array, not contiguous": np.asfortranarray(pixels),
        "tensor, channels first": torch.from_numpy(pixels.transpose(2, 0, 1).copy()),
        "tensor, channels last": torch.from_numpy(pixels.copy()),
    }


def test_every_form_of_a_photo_gives_the_same_answer(saved: Path, tmp_path: Path) -> None:
    classifier = Classifier.load(saved)
    given = forms(photo(), tmp_path)
    expected = classifier.predict_proba(photo())
    assert expected.shape == (1, 3)
    assert expected.dtype == np.float32
    p_NC = classifier.predict_proba(given.values())
    given = forms(photo(), tmp_path)  # files are read to their end
    for name, row in zip(given, p_NC, strict=True):
        np.testing.assert_allclose(row, expected[0], rtol=1e-4, err_msg=name)
    for name, one in given.items():
        assert classifier.predict(one).best.taxon == TAXA[int(expected.argmax())], name


def test_grey_arrays_and_tensors_are_photos(saved: Path) -> None:
    import torch

    classifier, grey = Classifier.load(saved), photo()[..., 0]
    expected = classifier.predict_proba(np.repeat(grey[..., None], 3, 2))
    for one in (grey, grey[..., None], torch.from_numpy(grey.copy()), Image.fromarray(grey)):
        np.testing.assert_allclose(classifier.predict_proba(one), expected, rtol=1e-4)


MODES = ["1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I", "F", "LA", "PA", "RGBX", "RGBa"]


@pytest.mark.parametrize("mode", [*MODES, "La", "I;16"])
def test_images_of_every_mode_of_pillow_are_photos(saved: Path, mode: str) -> None:
    step = {"La": "LA", "RGBa": "RGBA"}.get(mode)
    image = Image.fromarray(photo())
    image = image.convert(step).convert(mode) if step else image.convert(mode)
    if mode == "I;16":
        image = Image.fromarray(photo()[..., 0].astype(np.uint16) * 257)
    crop = Classifier.load(saved).crop(image)[0]
    assert crop.shape == (224, 224, 3)
    assert crop.std() > 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_orientation_of_a_pillow_image_is_applied(saved: Path, orientation: int) -> None:
    exif, file = Image.Exif(), BytesIO()
    exif[0x0112] = orientation
    Image.fromarray(photo()).save(file, "PNG", exif=exif)
    classifier = Classifier.load(saved)
    of_bytes = classifier.crop(file.getvalue())[0]
    assert (classifier.crop(Image.open(file))[0] == of_bytes).all()


def test_a_list_gives_a_list_and_anything_else_a_lazy_iterator(saved: Path) -> None:
    classifier, taken = Classifier.load(saved), []

    def camera() -> Iterator[np.ndarray]:
        frame = np.empty((240, 300, 3), np.uint8)  # the same memory for every photo
        for number in range(200):
            frame[...] = photo(number % 3)
            taken.append(number)
            yield frame

    expected = classifier.predict(tuple(photo(number) for number in range(3)))
    assert isinstance(expected, list)
    found = classifier.predict(camera())
    assert iter(found) is found
    assert not taken
    first = [next(found) for _ in range(4)]
    assert len(taken) <= 2 * 32 + AHEAD
    for number, one in enumerate(first):
        assert one.best.taxon == expected[number % 3].best.taxon
        assert one.best.score == pytest.approx(expected[number % 3].best.score, rel=1e-4)
    found.close()  # type: ignore[attr-defined]
    assert len(list(classifier.predict({"a": photo()}.values()))) == 1


def test_a_file_that_is_closed_after_its_turn_is_a_photo(saved: Path, tmp_path: Path) -> None:
    Image.fromarray(photo()).save(tmp_path / "photo.png")

    def opened() -> Iterator[Any]:
        for _ in range(3):
            with (tmp_path / "photo.png").open("rb") as file:
                yield file
            with Image.open(tmp_path / "photo.png") as image:
                yield image

    assert len(list(Classifier.load(saved).predict(opened()))) == 6


def test_a_bad_photo_is_raised_after_those_before_it_or_returned_in_its_place(saved: Path) -> None:
    classifier = Classifier.load(saved)
    photos = [photo(), b"no photo", photo(1), "nowhere.jpg"]
    found = classifier.predict(photos, on_error="return")
    assert [isinstance(each, ImageRejected) for each in found] == [False, True, False, True]
    assert isinstance(classifier.predict(b"", on_error="return"), ImageRejected)
    lazy = classifier.predict(iter(photos))
    assert next(lazy).answers
    with pytest.raises(ImageRejected, match="not-an-image"):
        next(lazy)
    lazy = classifier.predict(iter([photo(), 17, photo()]))  # type: ignore[list-item]
    assert next(lazy).answers
    with pytest.raises(InputError, match="not int"):
        next(lazy)
    with pytest.raises(ImageRejected):
        classifier.embed(photos)


def test_an_error_of_the_callers_own_iterator_comes_after_the_photos_before_it(saved: Path) -> None:
    def broken() -> Iterator[np.ndarray]:
        yield photo()
        raise KeyError("mine")

    found = Classifier.load(saved).predict(broken())
    assert next(found).answers
    with pytest.raises(KeyError, match="mine"):
        next(found)


@pytest.mark.parametrize("value", [17, None, 1.5, object(), {"a": 1}, [17], [[b""]], [None]])
def test_what_is_no_photo_is_one_sentence(saved: Path, value: Any) -> None:
    for call in ("predict", "predict_proba", "embed"):
        with pytest.raises(InputError, match=r"A photo is a path, .* not \w+") as caught:
            getattr(Classifier.load(saved), call)(value)
        assert "\n" not in str(caught.value)


def test_files_and_tensors_of_another_kind_are_one_sentence(saved: Path, tmp_path: Path) -> None:
    import torch

    classifier = Classifier.load(saved)
    (tmp_path / "text").write_text("text")
    with (tmp_path / "text").open() as file, pytest.raises(InputError, match="binary mode"):
        classifier.predict(file)  # type: ignore[call-overload]
    with pytest.raises(ImageRejected, match="closed"):
        classifier.predict(file)  # type: ignore[call-overload]
    for tensor in (torch.zeros(3, 9, 9), torch.zeros((2, 3, 9, 9), dtype=torch.uint8)):
        with pytest.raises(InputError, match=r"uint8 .*not a tensor torch\."):
            classifier.predict(tensor)


@pytest.mark.parametrize("top", [0, -1, 1.5, "5", None])
def test_top_below_one_is_one_sentence(saved: Path, top: Any) -> None:
    for photos in (photo(), [photo()], iter([photo()])):
        with pytest.raises(InputError, match="at least 1"):
            Classifier.load(saved).predict(photos, top=top)
    with pytest.raises(InputError, match="raise or return"):
        Classifier.load(saved).predict(photo(), on_error="skip")  # type: ignore[call-overload]


def test_features_are_those_of_the_first_member(saved: Path) -> None:
    classifier = Classifier.load(saved)
    x_ND = classifier.embed([photo(), photo(1)])
    crops = np.stack([classifier.crop(photo(seed))[0] for seed in range(2)])
    np.testing.assert_allclose(x_ND, classifier.features(crops)[0], rtol=1e-5)
    assert classifier.embed([]).shape == (0, 1024)
    assert classifier.predict_proba([]).shape == (0, 3)
    assert classifier.classes == ("7", "3", "12")


@pytest.mark.parametrize(
    "image",
    [
        *(np.zeros(shape, np.uint8) for shape in ((9,), (9, 9, 4), (0, 9, 3), (2, 9, 9, 3))),
        np.zeros((9, 9, 3), np.float32),
    ],
)
def test_an_array_that_is_no_image_is_one_sentence(saved: Path, image: Any) -> None:
    with pytest.raises(InputError, match=r"uint8 \(H, W, 3\)"):
        Classifier.load(saved).predict(image)


def test_the_card_is_front_matter_and_plain_words(saved: Path) -> None:
    text = (saved / "README.md").read_text()
    assert text.startswith("---\n")
    assert "library_name" in text.split("---")[1]
    assert "3 classes" in text


def test_pytorch_is_not_imported_when_the_graph_is_there(saved: Path) -> None:
    """The first answer converts the network; every later process answers without PyTorch."""
    first = Classifier.load(saved).predict([photo()])
    assert cached_graph(Classifier.load(saved).lead.network.key) is not None
    program = f"""
        import sys
        import numpy as np
        from pathlib import Path
        from fieldmark.inference.classifier import Classifier
        classifier = Classifier.load({str(saved)!r})
        pixels = np.random.default_rng(0).integers(0, 256, (240, 300, 3), dtype=np.uint8)
        print(classifier.predict([pixels])[0].best.score)
        slow = {{"torch", "torchvision", "timm", "matplotlib", "polars", "scipy", "onnx"}}
        print(sorted(slow & set(sys.modules)))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True
    )
    score, heavy = done.stdout.splitlines()
    assert heavy == "[]"
    assert float(score) == pytest.approx(first[0].best.score, rel=1e-4)


@pytest.mark.parametrize("damage", ["cut", "weight"])
def test_a_damaged_graph_is_made_anew(saved: Path, damage: str) -> None:
    classifier = Classifier.load(saved)
    before = classifier.predict([photo()])
    graph = cached_graph(classifier.lead.network.key)
    assert graph is not None
    data = bytearray(graph.read_bytes())
    data[len(data) // 2] ^= 64  # within a weight: ONNX Runtime would load it
    graph.write_bytes(data[:1000] if damage == "cut" else data)
    assert cached_graph(classifier.lead.network.key) is None
    after = Classifier.load(saved).predict([photo()])
    assert after[0].best.score == pytest.approx(before[0].best.score, rel=1e-4)


@pytest.mark.parametrize("name", ["classifier.json", "head.safetensors", "backbone.safetensors"])
@pytest.mark.parametrize("damage", ["gone", "empty", "half", "pickle", "folder", "other"])
def test_a_damaged_file_is_one_sentence(copy: Path, name: str, damage: str) -> None:
    path, ran = copy / name, copy.parent / "ran"
    whole = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage != "gone":
        content = {
            "empty": b"",
            "half": whole[: len(whole) // 2],
            "pickle": pickle.dumps(Hostile(str(ran))),
            "other": whole[:-1] + bytes([whole[-1] ^ 1]),
        }
        path.write_bytes(content[damage])
    refused(copy)
    assert not ran.exists()


class Hostile:
    """Unpickled, it runs a command."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (os.system, (f"touch '{self.path}'",))


def test_what_is_no_folder_of_a_classifier(tmp_path: Path) -> None:
    refused(tmp_path)
    refused(tmp_path / "nowhere")
    (tmp_path / "file").write_text("hello")
    refused(tmp_path / "file")
    (tmp_path / "classifier.json").write_text(json.dumps({"format": "another-1"}))
    assert FORMAT in refused(tmp_path)
    (tmp_path / "classifier.json").write_text("[" * 100_000)
    refused(tmp_path)


@pytest.mark.parametrize(
    "values",
    [
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"temperature": 0},
        {"temperature": -1.0},
        {"temperature": 10**400},
        {"temperature": "1.0"},
        {"temperature": True},
        {"temperature": None},
        {"thresholds": {"species": {"precision": 0.9, "score": "high", "coverage": 1}}},
        {"thresholds": {"species": {"precision": 0.9, "score": float("nan"), "coverage": 1}}},
        {"thresholds": {"species": {"precision": 0.9}}},
        {"thresholds": {"species": {"precision": 0.9, "score": 0.5, "coverage": 1, "promised": 2}}},
        {"thresholds": {"species": {"precision": 0.9, "score": 0.5, "coverage": 1, "promised": "all"}}},
        {"thresholds": {"species": [1, 2, 3]}},
        {"thresholds": {"species": None}},
        {"thresholds": {"genus": {"precision": 0.9, "score": 0.5, "coverage": 1}}},
        {"thresholds": {"shape": {"precision": 0.9, "score": 0.5, "coverage": 1}}},
        {"thresholds": 0.5},
        {"known_from": "low"},
        {"known_from": float("nan")},
        {"known_from": 1.0},
        {"ood": "class means"},
        {"ood": {"kind": "class means"}},
        {"ood": {"kind": "taste", "threshold": -3.5}},
        {"ood": {"kind": "class means", "threshold": "low"}},
        {"thresholds": None},
        {"taxonomy": []},
        {"taxonomy": {"a": 1}},
        {"taxonomy": None},
        {"taxonomy": [{"id": "1", "name": "a"}] * 3},
        {"taxonomy": [{"id": str(n), "name": n} for n in range(3)]},
        {"taxonomy": [{"id": n, "name": "a"} for n in range(3)]},
        {"taxonomy": [{"id": str(n), "name": "a", "ranks": "none"} for n in range(3)]},
        {"taxonomy": [{"id": str(n), "name": "a", "evil": 1} for n in range(3)]},
        {"taxonomy": [{"id": str(n), "name": "a"} for n in range(4)]},
        {"taxonomy": [{"id": str(n), "name": "a"} for n in range(2)]},
        {"provenance": "nobody knows"},
        {"provenance": None},
        {"provenance": [1]},
        {"files": None},
        {"files": {}},
        {"files": ["head.safetensors"]},
        {"format": 1},
        {"members": None},
        {"members": []},
        {"members": {}},
        {"members": ["a"]},
        {"members": [{}]},
        {"members": [{}] * 1000},
    ],
    ids=lambda values: json.dumps(values)[:40],
)
def test_values_that_cannot_be_are_one_sentence(copy: Path, values: dict[str, Any]) -> None:
    change(copy, **values)
    refused(copy)


@pytest.mark.parametrize(
    "values",
    [
        {"architecture": "no_such_network_at_all"},
        {"architecture": "squeezenet1_1"},
        {"architecture": ["a"]},
        {"architecture": {}},
        {"architecture": None},
        {"architecture": "../../evil"},
        {"architecture": "hf-hub:somebody/evil"},
        {"architecture": "timm:hf-hub:somebody/evil"},
        {"backbone_key": "../../../evil"},
        {"backbone_key": "0" * 64},
        {"backbone_key": 7},
        {"backbone_key": None},
        {"preprocess": {}},
        {"preprocess": {"size": 100, "resize": 100}},
        {"preprocess": {"size": 10**9}},
        {"preprocess": {"size": "224"}},
        {"preprocess": None},
        {"preprocess": {"evil": 1}},
        {"temperature": 0},
        {"temperature": "1.0"},
        {"temperature": None},
        {"weight": 0.5},
        {"weight": 0},
        {"weight": -1},
        {"weight": "1"},
        {"weight": float("nan")},
        {"weight": None},
    ],
    ids=lambda values: json.dumps(values)[:40],
)
def test_a_member_that_cannot_be_is_one_sentence(copy: Path, values: dict[str, Any]) -> None:
    change_member(copy, **values)
    refused(copy)


@pytest.mark.parametrize(
    "tensors",
    [
        {"weight": np.full((1024, 3), np.nan, np.float32), "bias": np.zeros(3, np.float32)},
        {"weight": np.ones((1024, 3), np.float32), "bias": np.full(3, np.nan, np.float32)},
        {"weight": np.ones((1024, 3), np.float32), "bias": np.full(3, -np.inf, np.float32)},
        {"weight": np.ones((1024, 3), np.float32), "bias": np.full(3, np.inf, np.float32)},
        {"weight": np.ones((1023, 3), np.float32), "bias": np.zeros(3, np.float32)},
        {"weight": np.ones((1024, 4), np.float32), "bias": np.zeros(4, np.float32)},
        {"weight": np.ones((1024, 3), np.float32), "bias": np.zeros(4, np.float32)},
        {"weight": np.ones((1024, 3), np.float32), "bias": np.zeros((1, 3), np.float32)},
        {"weight": np.ones((1024, 3), np.int64), "bias": np.zeros(3, np.int64)},
        {"weight": np.ones((3, 1024), np.float32), "bias": np.zeros(3, np.float32)},
        {"weight": np.ones(1024, np.float32), "bias": np.zeros(3, np.float32)},
        {"weight": np.ones((1024, 3), np.float32)},
        {},
    ],
)
def test_a_head_that_does_not_fit_is_one_sentence(copy: Path, tensors: dict[str, Any]) -> None:
    """Even where its digest is right: whoever made the folder can have made that, too."""
    from safetensors.numpy import save

    (copy / "head.safetensors").write_bytes(save(tensors))
    about = json.loads((copy / "classifier.json").read_text())
    digest = io.sha256((copy / "head.safetensors").read_bytes())
    change(copy, files={**about["files"], "head.safetensors": digest})
    refused(copy)


def test_a_class_that_was_never_learned_is_no_damage(tmp_path: Path) -> None:
    made = make()
    bias = np.array([0.0, -np.inf, 0.0], np.float32)
    head = LinearHead(made.lead.head.weight, bias)
    made = replace(made, members=(replace(made.lead, head=head),))
    made.save(tmp_path / "model")
    (found,) = Classifier.load(tmp_path / "model").predict([photo()])
    assert found.answers[-1].score == 0
    assert found.answers[-1].taxon == TAXA[1]


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats()
    | st.text(max_size=8)
    | st.just("0" * 64),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = [
    *("format", "members", "temperature", "thresholds", "known_from"),
    *("taxonomy", "files", "provenance"),
]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(field=st.sampled_from(FIELDS), inner=st.booleans(), value=JSON, data=st.data())
def test_any_json_in_any_field_is_taken_or_refused(
    saved: Path,
    tmp_path_factory: pytest.TempPathFactory,
    field: str,
    inner: bool,
    value: Any,
    data: st.DataObject,
) -> None:
    """A value in place of a field, or of a field's own field: nothing but ClassifierError comes out."""
    folder = tmp_path_factory.mktemp("fuzz")
    for name in ("head.safetensors", "backbone.safetensors"):
        (folder / name).symlink_to(saved / name)
    about = json.loads((saved / "classifier.json").read_text())
    place, key = about, field
    while inner and isinstance(place[key], dict | list) and place[key]:
        place = place[key]
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
    place[key] = value
    write_about(folder, about)
    try:
        classifier = Classifier.load(folder)
    except ClassifierError:
        return
    scores = classifier.log_probabilities([np.ones((1, 1024), np.float32)])
    found = classifier.rank(np.exp(scores)[0])
    assert all(isinstance(answer.taxon.label, str) for answer in found.answers)
    assert isinstance(found.sure, bool)
    assert card(classifier)


def test_the_card_says_the_licence_as_the_hub_wants_it(saved: Path) -> None:
    """The hub knows a list of names, of which "other" takes a `license_name` beside it."""
    text = (saved / "README.md").read_text()
    front = text.split("---")[1]
    assert 'license: "other"' in front
    assert re.search(r'license_name: "[a-z0-9_-]+"', front)
    assert "**Licence of the weights.** other." in text


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="file"):
        make().save(tmp_path / "file")
    with pytest.raises(InputError, match="file"):
        make().save(tmp_path / "file" / "below")


def test_a_classifier_without_weights_says_so() -> None:
    made = make()
    network = replace(made.lead.network, source=None)
    with pytest.raises(ClassifierError, match="no weights"):
        _ = network.backbone


def zipped(folder: Path, path: Path, below: str = "") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for each in sorted(folder.iterdir()):
            archive.write(each, below + each.name)
    return path


@pytest.mark.parametrize("below", ["", "model/"])
def test_a_zip_of_the_folder_is_the_same_classifier(saved: Path, tmp_path: Path, below: str) -> None:
    loaded = Classifier.load(zipped(saved, tmp_path / "model.zip", below))
    assert loaded.digest == Classifier.load(saved).digest
    (one,), (other,) = loaded.predict([photo()]), Classifier.load(saved).predict([photo()])
    assert one.best.taxon == other.best.taxon
    assert one.best.score == pytest.approx(other.best.score, rel=1e-4)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("../classifier.json", "leads out"),
        ("/classifier.json", "leads out"),
        ("a/../../head.safetensors", "leads out"),
        ("C:\\classifier.json", "leads out"),
        ("model/classifier.json", "twice"),
    ],
)
def test_a_zip_that_leads_out_of_itself_is_one_sentence(
    saved: Path, tmp_path: Path, name: str, why: str
) -> None:
    path = zipped(saved, tmp_path / "model.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, "{}")
    assert why in refused(path)
    assert [each.name for each in tmp_path.iterdir()] == ["model.zip"]


def test_links_in_a_zip_are_refused(saved: Path, tmp_path: Path) -> None:
    link = zipfile.ZipInfo("neighbours.safetensors")
    link.external_attr = 0o120777 << 16
    path = zipped(saved, tmp_path / "model.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    assert "link" in refused(path)


def test_damaged_and_foreign_zips_are_one_sentence(saved: Path, tmp_path: Path) -> None:
    whole = zipped(saved, tmp_path / "whole.zip").read_bytes()
    path = tmp_path / "model.zip"
    for damage in (b"", whole[:1000], whole[:-30], whole[:5000] + b"?" * 999 + whole[5999:]):
        path.write_bytes(damage)
        refused(path)
    path.unlink()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Hostile(str(tmp_path / "ran"))))
    assert "a pickle (archive/data.pkl), which can run code" in refused(path)
    assert not (tmp_path / "ran").exists()


def test_what_is_too_large_is_not_read(
    saved: Path, copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (copy / "classifier.json").open("r+b") as handle:
        handle.truncate(1 << 29)  # takes no room on the disk
    assert "too large" in refused(copy)
    monkeypatch.setitem(folders.LIMITS, "head.safetensors", 100)
    assert "too large" in refused(zipped(saved, tmp_path / "model.zip"))


def test_a_large_head_is_refused_by_its_beginning(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head = {"weight": {"dtype": "F32", "shape": [1 << 29, 4], "data_offsets": [0, 1 << 33]}}
    text = json.dumps(head).encode()
    with (copy / "head.safetensors").open("wb") as handle:
        handle.write(len(text).to_bytes(8, "little") + text)
        handle.truncate(8 + len(text) + (1 << 33))  # takes no room on the disk
    monkeypatch.setitem(folders.LIMITS, "head.safetensors", 1 << 34)
    tracemalloc.start()
    try:
        assert "too large" in refused(copy)
        assert tracemalloc.get_traced_memory()[1] < 1 << 28
    finally:
        tracemalloc.stop()


def test_a_zip_that_unpacks_to_many_times_its_size_is_refused(saved: Path, tmp_path: Path) -> None:
    path = zipped(saved, tmp_path / "model.zip")
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("neighbours.safetensors", bytes(1 << 28))
    assert path.stat().st_size < 1 << 26
    assert "100 times its size" in refused(path)


@pytest.mark.parametrize(
    "name", ["name", "test", "beside", "rare", "chosen", "tried", "passed_over", "ensemble"]
)
@pytest.mark.parametrize("value", [3, "text", [1], {"said": 3}, [["a"]]])
def test_a_provenance_of_wrong_types_is_one_sentence(copy: Path, name: str, value: Any) -> None:
    about = json.loads((copy / "classifier.json").read_text())
    change(copy, provenance={**about["provenance"], name: value})
    try:
        loaded = Classifier.load(copy)
    except ClassifierError:
        return
    assert card(loaded)


def test_a_pipe_in_place_of_a_file_is_not_waited_for(copy: Path) -> None:
    (copy / "head.safetensors").unlink()
    os.mkfifo(copy / "head.safetensors")
    assert "not a file" in refused(copy)


def test_the_hub_is_asked_for_the_known_files_alone(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def download(name: str, **how: Any) -> str:
        asked.append((name, how))
        return str(saved)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    for name in ("hf://someone/birds@v2", Path("hf://someone/birds@v2")):
        assert Classifier.load(name).digest == Classifier.load(saved).digest
    assert [name for name, _ in asked] == ["someone/birds"] * 2
    assert asked[0][1]["revision"] == "v2"
    assert not [each for each in asked[0][1]["allow_patterns"] if "*" in each or "py" in each]


def test_a_hub_that_cannot_be_reached_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(name: str, **how: Any) -> str:
        raise LocalEntryNotFoundError("Cannot find an appropriate snapshot.\nSee the manual.")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(ClassifierError, match="hf://someone/birds could not be fetched") as caught:
        Classifier.load("hf://someone/birds")
    assert "\n" not in str(caught.value)
