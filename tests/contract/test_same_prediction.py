"""One classifier, one photo, one answer: whoever asks, and wherever the classifier lies.

The command line, Python, the server and the exported file each read photos by themselves, so what is
compared begins with a file's bytes and ends with what the user is told.
"""

from __future__ import annotations

import json
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image, ImageOps

from fieldmark.evaluation.calibration import Threshold
from fieldmark.inference import export
from fieldmark.inference.classifier import Classifier, Prediction, stacked
from fieldmark.inference.classifier.ood import OodDetector, unit
from fieldmark.serving.config import ServeConfig

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "onnx_only.py"
CLOSE = 1e-4
SPECIES, GENUS = 0.85, 0.63  # from these probabilities on an answer is given


@dataclass(frozen=True)
class Said:
    """What a way to ask says of one photo."""

    scores: dict[str, float]  # by taxon id, likeliest first
    source: str
    rank: str
    name: str
    score: float
    unknown: bool | None


# The photos


def blend(insects: Path, first: str, second: str, share: float) -> Image.Image:
    """A photo between two classes: no answer, or a wide one, is what it should get."""
    one, two = (Image.open(insects / name / "03.jpg") for name in (first, second))
    return Image.blend(one, two, share)


@pytest.fixture(scope="module")
def drawn(insects: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A photo of each class, some between classes, and files that readers differ about: turned by
    EXIF, grey, with a palette, as WebP, large, and very wide."""
    folder = tmp_path_factory.mktemp("drawn")
    apis, bombus, cicindela, danaus = (path.name for path in sorted(insects.iterdir()))
    for number, name in enumerate((apis, bombus, cicindela, danaus)):
        shutil.copy(insects / name / f"{number:02}.jpg", folder / f"a{number}.jpg")
    pairs = ((apis, bombus), (bombus, cicindela), (cicindela, danaus), (danaus, apis))
    for number, pair in enumerate(pairs):
        for share in (0.35, 0.65):
            blend(insects, *pair, share).save(folder / f"b{number}-{share}.jpg", quality=92)

    turned = Image.Exif()
    turned[0x0112] = 6  # a quarter turn
    picture = blend(insects, apis, danaus, 0.2)
    picture.resize((300, 200)).save(folder / "turned.jpg", exif=turned, quality=92)
    picture.convert("L").save(folder / "grey.jpg")
    picture.convert("P", palette=Image.Palette.ADAPTIVE).save(folder / "palette.png")
    picture.save(folder / "web.webp", lossless=True)
    blend(insects, bombus, danaus, 0.2).resize((1400, 1100)).save(folder / "large.jpg")
    blend(insects, cicindela, apis, 0.2).resize((500, 90)).save(folder / "wide.png")
    return sorted(folder.iterdir())


# The classifier, and what it is turned into


@pytest.fixture(scope="module")
def graphs(model: Path) -> Path:
    """The cache beside the trained classifier: its network is converted there already."""
    return model.parent / "cache"


@pytest.fixture(autouse=True)
def one_cache(cache: Path, graphs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIELDMARK_CACHE", str(graphs))


def with_a_mirror(one: Classifier) -> Classifier:
    """An ensemble: the photo as it is, and mirrored, each with scores of its own."""
    lead = one.lead
    mirrored = replace(
        lead,
        preprocess=replace(lead.preprocess, flip=True),
        head=replace(lead.head, bias=lead.head.bias + np.float32([1, 0, -1, 2])),
        temperature=1.5,
        weight=0.4,
    )
    return replace(one, members=(replace(lead, weight=0.6), mirrored))


@pytest.fixture(scope="module", params=["one member", "two members"])
def folder(
    request: pytest.FixtureRequest,
    model: Path,
    graphs: Path,
    drawn: list[Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The trained classifier, less sure of itself: on easy drawings all ways would say 1.0, and
    two numbers that are both rounded to 1 are the same whatever was done to the photo."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIELDMARK_CACHE", str(graphs))
        trained = Classifier.load(model)
        if request.param == "two members":
            trained = with_a_mirror(trained)
        thresholds = {"species": Threshold(0.95, SPECIES, 0.5), "genus": Threshold(0.95, GENUS, 0.5)}
        crops = stacked([trained.crop(path.read_bytes()) for path in drawn])
        vectors = np.random.default_rng(0).random((5, len(trained.lead.head.weight)), np.float32)
        vectors = unit(vectors).astype(np.float16).astype(np.float32)
        detector = OodDetector("class means", 0.0, vectors)
        hot = [
            replace(trained, temperature=heat * trained.temperature, thresholds=thresholds, ood=detector)
            for heat in np.geomspace(0.1, 100, 16).tolist()
        ]
        softer = min(hot, key=lambda each: abs(float(each.scores(crops).max(axis=1).mean()) - 0.75))
        scores = np.sort(softer.outputs(crops)[1])
        middle = scores[1 : len(scores) // 3]
        gap = int(np.diff(middle).argmax())  # far from any of them
        threshold = float(middle[gap : gap + 2].mean())
        soft = replace(softer, ood=replace(detector, threshold=threshold))
        made = tmp_path_factory.mktemp("soft") / "classifier"
        soft.save(made)
    return made


@pytest.fixture(scope="module")
def exported(folder: Path, graphs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIELDMARK_CACHE", str(graphs))
        export.export(Classifier.load(folder), path)
    return path


# The ways to ask


def said(prediction: Prediction) -> Said:
    return Said(
        {answer.taxon.id: answer.score for answer in prediction.answers},
        prediction.source,
        prediction.rank,
        prediction.name,
        prediction.score,
        prediction.unknown,
    )


def python_says(classifier: Classifier, photos: Sequence[Any]) -> list[Said]:
    return [said(each) for each in classifier.predict(photos)]


def picture_of(path: Path) -> np.ndarray:
    """A photo as a Python user would read it, without fieldmark."""
    with Image.open(path) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def command_line_says(model: Path, photos: Sequence[Path]) -> list[Said]:
    done = subprocess.run(
        [sys.executable, "-m", "fieldmark", "predict", model, *photos, "--format", "jsonl"],
        capture_output=True,
        check=False,
        timeout=300,
        env={**os.environ, "PYTHONUTF8": "1"},
    )
    assert done.returncode == 0, done.stderr.decode()
    entries = [json.loads(line) for line in done.stdout.decode().splitlines()]
    assert [Path(entry["file_name"]).name for entry in entries] == [path.name for path in photos]
    for entry in entries:
        assert entry["sure"] == (entry["source"] == "species")
    return [said_in(entry, entry["labels"]) for entry in entries]


def server_says(running: Any, classifier: Classifier, photos: Sequence[Path]) -> list[Said]:
    uploads = [("photo", (path.name, path.read_bytes())) for path in photos]
    with (
        running(classifier, ServeConfig(decoders=1)) as server,
        httpx.Client(base_url=server.url, timeout=120) as web,
    ):
        reply = web.post("/v1/predict", params={"top": 5}, files=uploads)
    assert reply.status_code == 200, reply.text
    entries = reply.json()["photos"]
    assert [entry["name"] for entry in entries] == [path.name for path in photos]
    return [said_in(entry["answer"], entry["labels"]) for entry in entries]


def said_in(answer: dict[str, Any], labels: list[dict[str, Any]]) -> Said:
    scores = {label["taxon_id"]: label["score"] for label in labels}
    told = (answer[key] for key in ("source", "rank", "name", "score", "unknown"))
    return Said(scores, *told)


def file_says(path: Path, photo: Path, monkeypatch: pytest.MonkeyPatch) -> Said:
    """What the example for users of the file finds, and what the thresholds in the file make of it."""
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), str(path), str(photo)])
    found = runpy.run_path(str(EXAMPLE))
    about = found["model"].get_modelmeta().custom_metadata_map
    thresholds = json.loads(about["thresholds"])
    taxa, scores, unknown = found["taxa"], found["scores"], found["unknown"]
    by_taxon = {taxa[at]["id"]: float(scores[at]) for at in np.argsort(-scores)}
    best = taxa[int(scores.argmax())]
    top = float(scores.max())
    if unknown:
        return Said(by_taxon, "unknown", "none", "", top, unknown)
    if top >= thresholds["species"]["score"]:
        rank = next(rank for rank, name in best["ranks"].items() if name == best["name"])
        return Said(by_taxon, "species", rank, best["name"], top, unknown)
    genera: dict[str, float] = {}
    for taxon, score in zip(taxa, scores, strict=True):
        genus = taxon["ranks"]["genus"]
        genera[genus] = genera.get(genus, 0.0) + float(score)
    genus = max(genera, key=lambda name: genera[name])
    if genera[genus] >= thresholds["genus"]["score"]:
        return Said(by_taxon, "rolled up", "genus", genus, genera[genus], unknown)
    return Said(by_taxon, "not sure", "none", "", top, unknown)


def assert_same(found: Iterable[Said], expected: Iterable[Said]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert next(iter(one.scores)) == next(iter(other.scores))
        assert one.scores == pytest.approx(other.scores, abs=CLOSE)
        assert (one.source, one.rank, one.name) == (other.source, other.rank, other.name)
        assert one.score == pytest.approx(other.score, abs=CLOSE)
        assert one.unknown == other.unknown


def assert_all_ways_agree(
    folder: Path, exported: Path, running: Any, photos: Sequence[Path], monkeypatch: pytest.MonkeyPatch
) -> list[Said]:
    classifier = Classifier.load(folder)
    expected = python_says(classifier, photos)
    assert_same(python_says(classifier, [path.read_bytes() for path in photos]), expected)
    assert_same(python_says(classifier, [picture_of(path) for path in photos]), expected)
    alone = [python_says(classifier, [str(path)])[0] for path in photos]
    assert_same(alone, expected)  # whatever else is asked about at the same time
    assert_same(command_line_says(folder, photos), expected)
    assert_same(server_says(running, classifier, photos), expected)
    files = [file_says(exported, path, monkeypatch) for path in photos]
    assert_same(files, expected)
    return expected


# The contract


def test_drawn_photos_get_one_answer(
    folder: Path, exported: Path, running: Any, drawn: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = assert_all_ways_agree(folder, exported, running, drawn, monkeypatch)
    # Photos that all get the same answer would show nothing.
    assert len({next(iter(each.scores)) for each in answers}) == 4
    assert {each.source for each in answers} == {"species", "rolled up", "not sure", "unknown"}
    assert {each.unknown for each in answers} == {True, False}
    assert all(len(each.scores) == 4 for each in answers)


def test_real_photos_get_one_answer(
    folder: Path, exported: Path, running: Any, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = sorted((shared / "data" / "wild74" / "test2019").iterdir())
    photos = [path for path in every if path.suffix == ".jpg"][:4]
    photos += [path for path in every if path.suffix == ".png"][:2]
    answers = assert_all_ways_agree(folder, exported, running, photos, monkeypatch)
    assert len({round(max(each.scores.values()), 3) for each in answers}) > 1


def test_a_zip_says_what_its_folder_says(folder: Path, drawn: list[Path], tmp_path: Path) -> None:
    archive = Path(shutil.make_archive(str(tmp_path / "classifier"), "zip", folder))
    from_zip, from_folder = Classifier.load(archive), Classifier.load(folder)
    assert from_zip.digest == from_folder.digest
    assert python_says(from_zip, drawn) == python_says(from_folder, drawn)


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_nothing_but_the_classifier_itself_is_needed(
    form: str, folder: Path, drawn: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = python_says(Classifier.load(folder), drawn)
    first, moved = tmp_path / "first", tmp_path / "another place" / "größer"
    shutil.copytree(folder, first)
    moved.parent.mkdir()
    if form == "zip":
        moved = Path(shutil.make_archive(str(moved), "zip", first))
        shutil.rmtree(first)
    else:
        first.rename(moved)
    empty = tmp_path / "empty cache"
    empty.mkdir()
    monkeypatch.setenv("FIELDMARK_CACHE", str(empty))
    assert_same(python_says(Classifier.load(moved), drawn), expected)
    assert_same(command_line_says(moved, drawn), expected)


def test_a_different_photo_or_classifier_is_told_apart(folder: Path, drawn: list[Path]) -> None:
    """The comparison above fails where it should: another photo, another temperature."""
    classifier = Classifier.load(folder)
    expected = python_says(classifier, drawn)
    with pytest.raises(AssertionError):
        assert_same([*expected[1:], expected[0]], expected)
    warmer = replace(classifier, temperature=1.01 * classifier.temperature)
    with pytest.raises(AssertionError):
        assert_same(python_says(warmer, drawn), expected)


def test_the_bytes_decide_and_not_the_name_of_the_file(
    folder: Path, drawn: list[Path], tmp_path: Path
) -> None:
    classifier = Classifier.load(folder)
    renamed = [tmp_path / f"{number}.png" for number in range(len(drawn))]
    for path, photo in zip(renamed, drawn, strict=True):
        path.write_bytes(photo.read_bytes())
    assert python_says(classifier, renamed) == python_says(classifier, drawn)
