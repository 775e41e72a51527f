"""Export: the file gives the classifier's answers with ONNX Runtime alone, or is not written."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from PIL import Image

from fieldmark import models
from fieldmark.data.locations import Locations
from fieldmark.data.photos import PhotoTable, build_frame
from fieldmark.data.split import split_photos
from fieldmark.data.taxonomy import Taxon, Taxonomy
from fieldmark.data.transforms import Preprocess
from fieldmark.evaluation.calibration import Threshold
from fieldmark.evaluation.location_prior import KernelPrior, LocationRule
from fieldmark.heads.base import LinearHead
from fieldmark.inference import export
from fieldmark.inference.classifier import Classifier, Network, stacked
from fieldmark.inference.classifier.location import LocationPrior
from fieldmark.inference.classifier.model_card import card
from fieldmark.inference.export import preprocessing
from fieldmark.models import runtime, tracing
from fieldmark.utils.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
NAME = "shufflenet_v2_x0_5"
TAXA = tuple(Taxon(str(n), f"Genus species{n}", f"kind {n}") for n in range(5))


def make(preprocess: Preprocess | None = None, name: str = NAME, scale: float = 300) -> Classifier:
    """A classifier with random weights; `scale` spreads its scores, for random features are small."""
    backbone = models.load(name, weights="random")
    dim = backbone.architecture.feature_dim
    rng = np.random.default_rng(0)
    return Classifier.alone(
        backbone,
        preprocess=preprocess or Preprocess(fit="squash"),
        head=LinearHead(
            rng.normal(0, scale, (dim, 5)).astype(np.float32),
            np.array([0.1, 0.2, -0.3, 0, -np.inf], np.float32),  # the last class was never learned
        ),
        taxonomy=Taxonomy(TAXA),
        temperature=1.7,
        thresholds={"species": Threshold(0.95, 0.6, 0.8)},
        provenance={"name": "made for a test", "licence": "other", "command": "private"},
    )


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache for the whole file: converting the network takes some seconds."""
    return tmp_path_factory.mktemp("graphs")


@pytest.fixture(autouse=True)
def one_cache(cache: Path, graphs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIELDMARK_CACHE", str(graphs))


def pictures(*shapes: tuple[int, int]) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [rng.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in shapes]


# The pixels


def pixel_session(preprocess: Preprocess) -> onnxruntime.InferenceSession:
    add = preprocessing.Nodes("p_")
    out = preprocessing.crop(add, "image", preprocess)
    shape = [1, preprocess.size, preprocess.size, 3]
    graph = helper.make_graph(
        add.nodes,
        "pixels",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["h", "w", 3])],
        [helper.make_tensor_value_info(out, TensorProto.UINT8, shape)],
        add.initializers,
    )
    opset = helper.make_opsetid("", tracing.OPSET)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return onnxruntime.InferenceSession(model.SerializeToString())


PIXELS = {
    (fit, interpolation): Preprocess(size=56, resize=64, fit=fit, interpolation=interpolation)
    for fit in ("squash", "crop", "pad")
    for interpolation in ("bicubic", "bilinear")
}
SIDES = st.one_of(st.integers(1, 400), st.sampled_from([56, 64, 112, 128, 65, 63, 1000]))


@pytest.fixture(scope="module")
def sessions() -> dict[tuple[str, str], onnxruntime.InferenceSession]:
    return {key: pixel_session(preprocess) for key, preprocess in PIXELS.items()}


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(height=SIDES, width=SIDES, seed=st.integers(0, 9), data=st.data())
@pytest.mark.parametrize("key", PIXELS, ids="-".join)
def test_the_crop_in_the_graph_is_the_crop(
    sessions: Any, key: tuple[str, str], height: int, width: int, seed: int, data: Any
) -> None:
    picture = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    [crop] = sessions[key].run(None, {"image": picture})
    expected = PIXELS[key].apply(picture)
    difference = np.abs(crop[0].astype(int) - expected)
    # A sum that lies halfway between two grey levels goes up or down by its last bit.
    few = 1e-3 if key[1] == "bicubic" else 5e-2
    assert difference.max() <= 1
    assert (difference > 0).mean() <= few


def test_most_pictures_have_exactly_the_same_crop(sessions: Any) -> None:
    shapes = [(h, w) for h in (40, 120, 333, 500) for w in (47, 211, 375, 640)]
    for (fit, interpolation), session in sessions.items():
        if interpolation == "bicubic":
            crop = PIXELS[fit, interpolation].apply
            same = [(session.run(None, {"image": p})[0][0] == crop(p)).all() for p in pictures(*shapes)]
            assert np.mean(same) > 0.7, fit


# The whole file


def placed(classifier: Classifier) -> Classifier:
    """With a prior of two places."""
    rows = np.repeat([[47.0, 8.0, 100], [52.0, 13.0, 100]], 50, axis=0)
    kernel = KernelPrior(Locations.of(rows), np.repeat([0, 1], 50), 5)
    return replace(classifier, prior=LocationPrior(kernel, LocationRule(0.5, 1.3)))


@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
def test_the_file_gives_the_classifiers_answers(fit: Any, tmp_path: Path) -> None:
    classifier = make(Preprocess(fit=fit))
    if fit == "squash":  # the prior of one place, and a list of species, are numbers in the file
        classifier = replace(placed(classifier).at(47, 8).favouring([TAXA[2].id]), thresholds={})
    done = export.export(classifier, tmp_path / "m.onnx", pictures((300, 400)))
    assert done.parity.photos == 13
    assert done.parity.max_difference <= 1e-4
    assert done.parity.agreement == 1
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    picture = pictures((333, 222))[0]
    p_C, energy = session.run(None, {"image": picture})
    assert p_C.shape == (5,)
    assert p_C.sum() == pytest.approx(1, abs=1e-5)
    assert p_C[4] == 0
    assert energy.shape == ()
    assert energy == pytest.approx(classifier.outputs(stacked([classifier.crop(picture)]))[1][0])
    assert done.parity.ood_difference <= 1e-3
    best = classifier.predict([picture], top=5)[0]
    assert [TAXA[n] for n in np.argsort(-p_C)] == [answer.taxon for answer in best.answers]
    assert p_C.max() == pytest.approx(best.best.score, abs=1e-4)
    assert p_C.max() < 0.999, "scores so extreme that they would agree whatever the picture"
    model = onnx.load(tmp_path / "m.onnx")
    assert [(o.domain, o.version) for o in model.opset_import] == [("", tracing.OPSET)]
    assert done.size == (tmp_path / "m.onnx").stat().st_size


def test_the_metadata_says_what_the_numbers_mean(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    classifier = placed(make()).favouring([TAXA[2].id], "park")
    export.export(classifier, tmp_path / "m.onnx")
    assert [each for each in caplog.messages if "strength 0.5) is not in the file" in each]
    assert "leaves this out" in card(classifier)
    about = onnxruntime.InferenceSession(tmp_path / "m.onnx").get_modelmeta().custom_metadata_map
    assert about["format"] == export.FORMAT
    assert json.loads(about["classes"]) == [taxon.name for taxon in TAXA]
    assert Taxonomy.from_json(json.loads(about["taxonomy"])) == classifier.taxonomy
    assert json.loads(about["threshold"])["score"] == 0.6
    assert json.loads(about["thresholds"])["species"]["score"] == 0.6
    assert json.loads(about["check"])["photos"] == len(list(export.generated_pictures()))
    assert json.loads(about["int8"]) is None
    assert json.loads(about["favoured"]) == {"name": "park", "listed": [2]}
    assert "is not in the file" in json.loads(about["left_out"])[0]
    assert json.loads(about["known_from"]) == (classifier.ood.threshold if classifier.ood else None)
    assert json.loads(about["provenance"]) == {"name": "made for a test", "licence": "other"}


@pytest.mark.parametrize("what", ["head", "temperature", "nan", "energy"])
def test_a_file_that_disagrees_is_not_written(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier = make()
    assemble = export.assemble
    head = classifier.lead.head

    def with_head(other: LinearHead) -> Classifier:
        return replace(classifier, members=(replace(classifier.lead, head=other),))

    other = {
        "head": with_head(LinearHead(head.weight[:, [1, 0, 2, 3, 4]], head.bias)),
        "temperature": replace(classifier, temperature=classifier.temperature * 1.01),
        "energy": with_head(LinearHead(head.weight, head.bias + np.float32(0.2))),
        "nan": with_head(LinearHead(head.weight * np.float32(np.nan), head.bias)),
    }[what]
    monkeypatch.setattr(export, "assemble", lambda _, trunk: assemble(other, trunk))
    with pytest.raises(InputError, match="is not written: the graph disagrees"):
        export.export(classifier, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_what_the_rounding_of_a_few_values_changes_is_no_disagreement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier = make()
    for interpolation in export.TOLERANCE:
        monkeypatch.setitem(export.TOLERANCE, interpolation, 0.0)  # so that any rounding is above it
    parity = export.export(classifier, tmp_path / "m.onnx").parity
    assert 0 < parity.max_difference < 1e-4
    shapes = list(export.generated_pictures())
    exact, rounded = (export.expected_of(classifier, shapes, share) for share in (0.0, 1e-3))
    own = export.differences(rounded, exact)
    assert parity.max_difference < own.max_difference < 0.1
    again = export.expected_of(classifier, shapes, 1e-3)
    np.testing.assert_array_equal(again.probabilities_NC, rounded.probabilities_NC)


def test_a_place_that_cannot_be_written_to_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="could not be written"):
        export.export(make(), tmp_path / "file" / "m.onnx")


def test_generated_pictures_are_the_same_every_time_and_of_many_shapes() -> None:
    first, second = list(export.generated_pictures()), list(export.generated_pictures())
    assert all((a == b).all() for a, b in zip(first, second, strict=True))
    shapes = {picture.shape[:2] for picture in first}
    assert (1, 1) in shapes
    assert len(shapes) == 12


# Photos to check on


def folder_with_photos(tmp_path: Path, classifier: Classifier) -> Path:
    (tmp_path / "photos").mkdir()
    for number, picture in enumerate(pictures(*[(60, 80)] * 40)):
        Image.fromarray(picture).save(tmp_path / "photos" / f"{number}.png")
    numbers = [str(number) for number in range(40)]
    frame = build_frame(
        {
            "id": numbers,
            "path": [f"{number}.png" for number in numbers],
            "taxon_id": [str(int(number) % 4) for number in numbers],
        }
    )
    table = PhotoTable(frame, classifier.taxonomy, tmp_path / "photos", "folder")
    classifier.save(tmp_path / "model")
    table.write(tmp_path / "model" / "photos.parquet")
    split = split_photos(table, val=0.0, test=0.2, seed=0, way="stratified")
    split.write(tmp_path / "model" / "split.parquet")
    return tmp_path / "model"


def test_the_classifiers_own_photos_are_found_unseen_ones_first(tmp_path: Path) -> None:
    model = folder_with_photos(tmp_path, make())
    found = export.own_photos(Classifier.load(model), limit=10)
    assert len(found) == 10
    test = set(pl.read_parquet(model / "split.parquet").filter(pl.col("part") == "test")["id"])
    assert {path.stem for path in found[:8]} == test
    for path in found:
        path.unlink()
    again = export.own_photos(Classifier.load(model), limit=99)
    assert len(again) == 30
    assert not set(again) & set(found)


def test_own_photos_of_a_classifier_without_a_table_are_none() -> None:
    assert export.own_photos(make()) == []


def test_a_broken_photo_is_passed_over_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(pictures((20, 30))[0]).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"no picture")
    assert len(export.pictures([tmp_path / "bad.png", tmp_path / "good.png"])) == 1
    assert "bad.png is not used for the check" in capsys.readouterr().err
    with pytest.raises(InputError, match="None of the photos"):
        export.pictures([tmp_path / "bad.png"])


# 8 bits


def test_8_bits_make_the_file_small_and_say_what_they_cost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "speed", lambda *_: 1.25)  # of any machine
    model = folder_with_photos(tmp_path, make(scale=30))
    plain = export.run(model, tmp_path / "plain.onnx", compute="exact")
    small = export.run(model, tmp_path / "small.onnx", compute="int8")
    assert (plain.loss, plain.faster, small.faster) == (None, None, 1.25)
    assert small.loss is not None
    assert small.loss.photos == 20
    assert 0 < small.loss.max_difference < 0.5
    assert small.size < 0.5 * plain.size
    about = onnxruntime.InferenceSession(tmp_path / "small.onnx").get_modelmeta()
    said = json.loads(about.custom_metadata_map["int8"])
    assert said["max_difference"] == small.loss.max_difference


def test_8_bits_that_are_not_faster_here_are_refused_and_not_written(
    tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "speed", lambda *_: 0.83)
    model = folder_with_photos(tmp_path, make(scale=30))
    done = run("export", model, "--onnx", tmp_path / "slow.onnx", "--compute", "int8")
    assert done.code == 2
    assert "slow.onnx is not written: in int8 it is 0.83 times as fast as in float32 on this" in done.err
    assert not list(tmp_path.glob("slow*"))


def test_speeds_are_compared_by_the_median_of_alternating_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, order = [0.0], []
    seconds = {"quick": 1.0, "slow": 3.0}

    def running(name: str) -> Any:
        def call(_photo: Any) -> None:
            order.append(name)
            clock[0] += seconds[name] * (50 if len(order) in (1, 5) else 1)  # the first, and one outlier

        return call

    monkeypatch.setattr(export, "running", running)
    monkeypatch.setattr(export.time, "perf_counter", lambda: clock[0])
    assert export.speed("quick", "slow", pictures((3, 3))) == pytest.approx(3.0)  # type: ignore[arg-type]
    assert order[:4] == ["slow", "quick", "quick", "slow"]


def test_an_onnx_file_is_not_computed_in_half(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not computed in half: use --compute exact or int8"):
        export.export(make(), tmp_path / "m.onnx", compute="half")


def test_8_bits_need_photos(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="name some with --check"):
        export.export(make(), tmp_path / "m.onnx", pictures((9, 9)), compute="int8")
    assert not (tmp_path / "m.onnx").exists()


# With ONNX Runtime alone

BLOCKER = """
import importlib.abc, runpy, sys

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "fieldmark", "onnx", "timm", "torchvision", "polars"}:
            raise ImportError(f"{name} is not to be imported")

sys.meta_path.insert(0, Blocker())
try:
    import fieldmark
except ImportError:
    pass
else:
    raise SystemExit("the blocker does not block")
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_the_example_runs_without_fieldmark_and_torch(tmp_path: Path) -> None:
    classifier = make()
    export.export(classifier, tmp_path / "m.onnx")
    photo = tmp_path / "photo.png"
    Image.fromarray(pictures((120, 90))[0]).save(photo)
    example = ROOT / "examples" / "onnx_only.py"
    assert len(example.read_text().splitlines()) <= 24
    words = [sys.executable, "-c", BLOCKER, str(example), str(tmp_path / "m.onnx"), str(photo)]
    run = subprocess.run(words, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    answers = classifier.predict([photo])[0].answers
    expected = [f"  {a.score:6.1%}  {a.taxon.common_name}" for a in answers]
    assert run.stdout.splitlines() == [str(photo), *expected]


def test_a_converted_network_is_exported_without_torch(tmp_path: Path) -> None:
    classifier = make()
    model = folder_with_photos(tmp_path, classifier)
    runtime.engine(classifier.lead.network.backbone, "onnxruntime")  # converts it, if no test did before
    code = f"""
        import sys
        from pathlib import Path
        from fieldmark.inference import export
        export.run(Path({str(model)!r}), Path({str(tmp_path / "m.onnx")!r}))
        print("torch" in sys.modules)
    """
    words = [sys.executable, "-c", textwrap.dedent(code)]
    run = subprocess.run(words, capture_output=True, text=True, check=False)
    assert run.stdout.strip() == "False", run.stderr


# Real photos


@pytest.mark.shared
def test_real_photos_agree_to_1e_4(shared: Path, tmp_path: Path) -> None:
    """With trained weights, whose probabilities a single grey level can move."""
    weights = shared / "weights" / "squeezenet1_1.safetensors"
    paths = sorted((shared / "data" / "wild74").rglob("*.jpg"))[::400]
    backbone = models.load("squeezenet1_1", weights=weights)
    random = make(name="squeezenet1_1", scale=0.1)
    member = replace(random.lead, network=Network.of(backbone))
    classifier = replace(random, members=(member,))
    done = export.export(classifier, tmp_path / "m.onnx", export.pictures(paths))
    assert done.parity.photos == len(paths) + 12
    assert done.parity.max_difference <= 1e-4


def test_names_that_a_branch_takes_from_outside_are_renamed_with_the_rest() -> None:
    """A branch of an `If` uses values of the graph around it: with other names it would find none."""
    value, node = helper.make_tensor_value_info, helper.make_node
    branches = {
        name: helper.make_graph(
            [node(what, ["x", "x"], ["inner"])], name, [], [value("inner", TensorProto.FLOAT, [2])]
        )
        for name, what in (("then_branch", "Add"), ("else_branch", "Mul"))
    }
    graph = helper.make_graph(
        [
            node("Constant", [], ["yes"], value=helper.make_tensor("", TensorProto.BOOL, [], [True])),
            node("If", ["yes"], ["y"], **branches),
        ],
        "whole",
        [value("x", TensorProto.FLOAT, [2])],
        [value("y", TensorProto.FLOAT, [2])],
    )
    model = helper.make_model(
        tracing.prefixed(graph, "a_"), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    [found] = session.run(["a_y"], {"a_x": np.array([1, 3], np.float32)})
    np.testing.assert_array_equal(found, [2, 6])
