"""`--compute`: what is taken and why, and a classifier that carries its int8 graph."""

from __future__ import annotations

import json
import pickle
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from msgspec import UNSET
from PIL import Image
from tests.conftest import write_about

from fieldmark import models
from fieldmark.experiments import Options, Run, StudyConfig, study
from fieldmark.experiments.model_ranking import RankConfig, rank
from fieldmark.experiments.records import StudyRow
from fieldmark.inference.classifier import Classifier
from fieldmark.models import runtime
from fieldmark.models.runtime import base
from fieldmark.training import ExtendConfig, TrainConfig, Trained, compute, extend, train
from fieldmark.utils import io
from fieldmark.utils.errors import ClassifierError, InputError

NETWORK: dict[str, Any] = {"backbone": "squeezenet1_1", "weights": "random", "engine": "onnxruntime"}


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four classes of 60 bright photos that differ in their brightness alone."""
    folder = tmp_path_factory.mktemp("many") / "many"
    for label in range(4):
        (folder / f"class {label}").mkdir(parents=True)
        for number in range(60):
            rng = np.random.default_rng([label, number])
            pixels = rng.normal(150 + 30 * label, 8, (64, 64, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"class {label}" / f"{number}.png")
    return folder


pytestmark = pytest.mark.usefixtures("one_cache")


def twice_as_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the machine and its load; a tier that cannot run is still refused."""

    def faster(_exact: Any, other: Any, _crops: Any, engine: str) -> float:
        runtime.engine(other, engine)
        return 2.0

    monkeypatch.setattr(compute, "_faster", faster)


def taken(trained: Trained) -> dict[str, Any]:
    found: dict[str, Any] = trained.classifier.provenance["compute"]
    return found


@pytest.fixture(scope="module")
def int8(many: Path, kept: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier that computes in int8. Not to be changed."""
    folder = tmp_path_factory.mktemp("int8") / "model"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIELDMARK_CACHE", str(kept))
        train(many, out=folder, config=TrainConfig(**NETWORK, compute="int8"))
    return folder


@pytest.fixture
def copy(int8: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(int8, tmp_path / "copy"))


# What is taken


def test_auto_takes_a_faster_tier_that_does_no_harm_and_no_harmful_one(
    many: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both with the same photos and speed; the harm has a real cause: the ranges of black crops."""
    twice_as_fast(monkeypatch)
    config = TrainConfig(**NETWORK, compute="auto")
    good = train(many, config=config)
    assert taken(good)["tier"] == good.classifier.lead.network.tier.name == "int8"
    said = taken(good)["said"]
    assert capsys.readouterr().err.splitlines().count(said) == 1
    assert "--compute auto takes int8: int8 is 2.00 times as fast as exact; the error of a" in said
    assert said.endswith(
        "the engine onnxruntime cannot compute half here (it computes float32 and int8 only)."
    )
    calibration_crops = compute.calibration_crops
    monkeypatch.setattr(compute, "calibration_crops", lambda *a: np.zeros_like(calibration_crops(*a)))
    bad = train(many, config=config)
    assert taken(bad)["tier"] == bad.classifier.lead.network.tier.name == "exact"
    assert ", a harm; the engine" in taken(bad)["said"]
    (measured,) = taken(bad)["measured"]
    assert measured["difference"]["interval"][0] > 0.3
    assert bad.summary.top1_error < 0.1  # as without the option


def test_auto_takes_exact_where_no_tier_is_faster_or_photos_are_too_few(
    many: Path, insects: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(compute, "_faster", lambda *_: 1.05)
        slow = train(many, config=TrainConfig(**{**NETWORK, "engine": "auto"}, compute="auto"))
    assert slow.classifier.lead.network.tier == runtime.EXACT
    assert "int8 is 1.05 times as fast as exact, and 1.1 are required" in taken(slow)["said"]
    twice_as_fast(monkeypatch)
    few = train(insects, config=TrainConfig(**NETWORK, compute="auto"))
    assert taken(few)["tier"] == "exact"
    assert "where more than 2 cannot be excluded" in taken(few)["said"]
    fewest = train(insects, config=TrainConfig(**NETWORK, compute="auto", limit=7))
    assert "auto takes exact: " in taken(fewest)["said"]
    assert "8 photos or more" in taken(fewest)["said"]


def test_speeds_are_measured_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """The median of the rounds' ratios: one slow round decides nothing."""
    rates = iter([30.0, 10.0, 30.0, 10.0, 3.0, 10.0, 30.0, 10.0, 30.0, 10.0])
    monkeypatch.setattr(compute.selection, "rate", lambda *_: next(rates))
    backbone = models.load("squeezenet1_1", weights="random")
    crops = np.zeros((4, 224, 224, 3), np.uint8)
    assert compute._faster(backbone, backbone, crops, "onnxruntime") == pytest.approx(3.0)


def test_half_is_taken_or_refused_before_photos_are_read_by_the_network(
    many: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, run: Any
) -> None:
    monkeypatch.setattr(base, "torch_has_half", lambda: False)
    half = {**NETWORK, "engine": "torch"}
    with pytest.raises(InputError, match="torch cannot compute half here"):
        train(many, config=TrainConfig(**half, compute="half"))
    words = ("--backbone", "squeezenet1_1", "--weights", "random", "--compute", "half", "--engine", "torch")
    done = run("extract", many, *words)
    assert (done.code, done.err.count("cannot compute half here")) == (2, 1)
    monkeypatch.setattr(base, "torch_has_half", lambda: True)  # slow, and right, without the instructions
    folder = tmp_path / "half"
    train(many, out=folder, config=TrainConfig(**half, compute="half", limit=16))
    classifier = Classifier.load(folder, engine="torch")
    assert classifier.lead.network.tier == runtime.HALF
    photo = next(many.rglob("*.png"))
    exact = Classifier.load(folder, engine="torch", compute="exact")
    assert 0 < np.abs(classifier.predict_proba([photo]) - exact.predict_proba([photo])).max() < 0.2
    monkeypatch.setattr(base, "torch_has_half", lambda: False)
    done = run("predict", folder, photo, "--engine", "torch")
    assert (done.code, done.err.count("use --compute exact")) == (2, 1)
    assert run("predict", folder, photo, "--engine", "torch", "--compute", "exact").code == 0


def test_networks_are_compared_in_half(
    insects: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In a study and in a ranking: other features than in float32, and rows that are told apart."""
    monkeypatch.setattr(base, "torch_has_half", lambda: True)
    runs, options = [Run("own", "One", "squeezenet1_1", pruned=False)], Options(epochs=1)
    where: dict[str, Any] = {"engine": "torch", "limit": 40, "groups": "none"}
    found = [
        study(insects, runs, StudyConfig(options, compute=tier, **where), out=tmp_path / "study").record
        for tier in ("exact", "half", "half")
    ]
    exact, half, again = (each.rows[0] for each in found)
    assert exact.key != half.key == again.key
    assert abs((exact.val_top1_error or 0) - (half.val_top1_error or 0)) < 0.3
    ranked = [
        rank(insects, RankConfig(("squeezenet1_1",), compute=tier, **where)).networks[0].ridge.error
        for tier in ("exact", "half")
    ]
    assert abs(ranked[0] - ranked[1]) < 0.2
    # What the types forbid, a Python user may pass.
    with pytest.raises(InputError, match="depends on training photos: give it to `fieldmark train`"):
        rank(insects, RankConfig(("squeezenet1_1",), compute="auto", **where))  # type: ignore[arg-type]


def test_networks_of_a_study_compute_in_int8_or_as_auto_chooses(
    many: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Their rows say so, and are kept when the study goes on."""
    twice_as_fast(monkeypatch)
    monkeypatch.setattr(compute, "MOST_HARM", 1.0)  # these are too few photos to exclude less
    runs, options = [Run("own", "One", "squeezenet1_1", pruned=False)], Options(epochs=1)
    where: dict[str, Any] = {"engine": "onnxruntime", "groups": "none"}

    def row(compute: Any) -> StudyRow:
        how = StudyConfig(options, compute=compute, **where)
        return study(many, runs, how, out=tmp_path / "study").record.rows[0]

    exact, int8, again, auto = map(row, ("exact", "int8", "int8", "auto"))
    assert (exact.compute, int8.compute, auto.compute) == (UNSET, "int8", "int8")
    assert exact.key != int8.key == again.key == auto.key
    assert abs((exact.val_top1_error or 0) - (int8.val_top1_error or 0)) < 0.3
    page = (tmp_path / "study" / "report.html").read_text()
    assert re.search(r"<h2>own</h2>.*One.*random weights.*int8", page, re.DOTALL)
    with pytest.raises(InputError, match="compute is 'quick': choose exact, half, int8 or auto"):
        StudyConfig(compute="quick")  # type: ignore[arg-type]  # as a Python user may
    sized = [replace(runs[0], size=96)]
    with pytest.raises(InputError, match="A row has a size of its own, and int8 is made for the network's"):
        study(many, sized, StudyConfig(options, compute="auto", **where))


def test_what_has_no_tier_is_refused(many: Path, int8: Path, model: Path, run: Any) -> None:
    for more, why in (
        ({"transfer": "all"}, "--compute is for a frozen network"),
        ({"also": ("shufflenet_v2_x0_5",)}, "--compute is for one network"),
        ({"quality": "best"}, "--compute is for one network"),
    ):
        with pytest.raises(InputError, match=why):
            TrainConfig(**more, compute="int8").check()  # type: ignore[arg-type]
    with pytest.raises(InputError, match="compute is 'quick': choose exact, half, int8 or auto"):
        TrainConfig(compute="quick")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="there is no compute 'quick': name exact, half, int8, auto"):
        Classifier.load(int8, compute="quick")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="carries no int8 graph: train it with --compute int8"):
        Classifier.load(model, compute="int8")
    for tier in ("int8", "auto"):
        done = run("extract", many, "--compute", tier)
        assert (done.code, done.err.count("depends on training photos")) == (2, 1)
    done = run("predict", int8, next(many.rglob("*.png")), "--engine", "torch")
    assert (done.code, done.err.count("the engine torch cannot compute int8")) == (2, 1)


def test_an_int8_that_is_slower_here_is_said(
    many: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(compute, "_faster", lambda *_: 0.5)
    train(many, config=TrainConfig(**NETWORK, compute="int8", limit=24))
    assert "int8 in onnxruntime is 0.50 times as fast as exact here, so slower" in capsys.readouterr().err


# A classifier with its int8 graph


def test_a_classifier_carries_its_graph_and_computes_in_it(
    int8: Path, many: Path, run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    about = json.loads((int8 / "classifier.json").read_text())
    assert about["members"][0]["compute"] == {"tier": "int8", "engine": "onnxruntime", "graph": "int8.onnx"}
    assert about["files"]["int8.onnx"] == io.file_digest(int8 / "int8.onnx")
    photos = sorted(many.rglob("*.png"))[::24]
    classifier = Classifier.load(int8)
    assert classifier.lead.network.tier.graph == int8 / "int8.onnx"
    usual, exact = (Classifier.load(int8, compute=each) for each in (None, "exact"))
    same = usual.predict_proba(photos)
    assert np.array_equal(same, Classifier.load(int8, compute="int8").predict_proba(photos))
    assert np.array_equal(same, Classifier.load(int8, compute="auto").predict_proba(photos))
    assert np.abs(same - exact.predict_proba(photos)).max() > 0
    told = "The last layer learned from features in int8: computed exact, its answers differ"
    assert capsys.readouterr().err.count(told) == 1
    again = pickle.loads(pickle.dumps(usual))  # noqa: S301  # as for a cluster
    assert np.array_equal(same, again.predict_proba(photos))
    assert exact.lead.network.key == about["members"][0]["backbone_key"] != usual.lead.network.key
    said = run("predict", int8, *photos, "--format", "csv")
    assert (said.code, run("predict", int8, *photos, "--format", "csv", "--compute", "exact").code) == (0, 0)
    done = run("explain", int8, photos[0], "--out", int8.parent / "x.png", "--compute", "exact")
    assert done.code == 0, done.err  # with the similar photos, whose vectors are in int8


def test_it_is_saved_again_with_its_graph_or_without(copy: Path, tmp_path: Path) -> None:
    Classifier.load(copy).save(tmp_path / "again")
    assert (tmp_path / "again" / "int8.onnx").read_bytes() == (copy / "int8.onnx").read_bytes()
    assert Classifier.load(tmp_path / "again").lead.network.tier.name == "int8"
    Classifier.load(copy, compute="exact").save(copy)
    assert not (copy / "int8.onnx").exists()
    assert not (copy / "report.html").exists()  # of what answered otherwise
    assert Classifier.load(copy).lead.network.tier == runtime.EXACT


def test_it_grows_in_its_tier(copy: Path, insects: Path, tmp_path: Path) -> None:
    grown = extend(copy, insects, ExtendConfig(engine="onnxruntime"), out=tmp_path / "grown")
    network = Classifier.load(tmp_path / "grown").lead.network
    assert network.tier.digest == grown.classifier.lead.network.tier.digest != ""
    assert grown.classifier.provenance["grown"]["computed"] == 64


def nested(graph: onnx.ModelProto) -> None:
    inner = onnx.helper.make_graph([], "inner", [], [])
    graph.graph.node.append(onnx.helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner))


def foreign(graph: onnx.ModelProto) -> None:
    graph.graph.node[0].domain = "com.example"


def outside(graph: onnx.ModelProto) -> None:
    entry = graph.graph.initializer[0].external_data.add()
    entry.key, entry.value = "location", "/etc/passwd"


def function(graph: onnx.ModelProto) -> None:
    graph.functions.add().name = "hidden"


@pytest.mark.parametrize("harm", [nested, foreign, outside, function])
def test_a_graph_that_holds_more_than_a_network_is_refused(copy: Path, harm: Any) -> None:
    """Whoever made it also wrote its digest."""
    graph = onnx.load(copy / "int8.onnx")
    harm(graph)
    rewritten(copy, graph.SerializeToString())
    with pytest.raises(ClassifierError, match=r"int8\.onnx is not the graph of a network alone"):
        Classifier.load(copy)


def rewritten(folder: Path, data: bytes, **compute: Any) -> None:
    (folder / "int8.onnx").write_bytes(data)
    about = json.loads((folder / "classifier.json").read_text())
    about["files"]["int8.onnx"] = io.sha256(data)
    about["members"][0]["compute"] |= compute
    write_about(folder, about)


def test_a_damaged_graph_is_refused(copy: Path) -> None:
    good = (copy / "int8.onnx").read_bytes()
    for bad in (good[:-1], b"", good[:500] + b"x" + good[501:]):
        (copy / "int8.onnx").write_bytes(bad)
        with pytest.raises(ClassifierError, match=r"int8\.onnx is not the file that was written with it"):
            Classifier.load(copy)
    for bad in (b"no graph", b""):
        rewritten(copy, bad)
        with pytest.raises(ClassifierError, match="is not the graph of a network alone"):
            Classifier.load(copy)
    (copy / "int8.onnx").unlink()
    with pytest.raises(ClassifierError, match=r"int8\.onnx"):
        Classifier.load(copy)


@pytest.mark.parametrize(
    "compute",
    [{"tier": "int4"}, {"engine": "torch"}, {"graph": "../int8.onnx"}, {"graph": 5}, {"engine": []}],
)
def test_a_tier_that_is_not_known_is_refused(copy: Path, compute: dict[str, Any]) -> None:
    rewritten(copy, (copy / "int8.onnx").read_bytes(), **compute)
    with pytest.raises(ClassifierError, match="damaged classifier"):
        Classifier.load(copy)
