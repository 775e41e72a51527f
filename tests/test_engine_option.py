"""`--engine` of predict, explain and serve: the same answers by each, and no other one than the named one."""

from __future__ import annotations

import pickle
import subprocess
import sys
import textwrap
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fieldmark.inference import inputs, predictor
from fieldmark.inference.classifier import Classifier, Network
from fieldmark.models import BACKBONES, runtime
from fieldmark.models.runtime import ENGINES, cuda, graphs, selection
from fieldmark.models.runtime.base import TorchEngine
from fieldmark.models.runtime.openvino import installed
from fieldmark.serving.config import ServeConfig
from fieldmark.serving.model import info
from fieldmark.utils.errors import InputError

HERE = [
    "torch",
    "onnxruntime",
    *(["openvino"] if installed() else []),
    *(["cuda"] if cuda.available() else []),
]


@pytest.fixture
def converted(model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A trained classifier, with the cache that its network may be converted into."""
    monkeypatch.setenv("FIELDMARK_CACHE", str(model.parent / "cache"))
    return model


def test_predictions_of_all_engines_agree(
    converted: Path, insects: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "SECONDS", 0.01)
    photos = sorted(insects.rglob("*.jpg"))[::30]
    usual = Classifier.load(converted).predict_proba(photos)
    said = run("predict", converted, *photos, "--format", "csv")
    assert said.code == 0
    for name in ("auto", *HERE):
        classifier = Classifier.load(converted, engine=name)  # type: ignore[arg-type]
        assert np.abs(classifier.predict_proba(photos) - usual).max() < (5e-3 if name == "cuda" else 1e-3)
        used = classifier.lead.network.engine.name
        assert used == name or (name == "auto" and used in ENGINES)
        again = pickle.loads(pickle.dumps(classifier))  # noqa: S301  # as for a cluster
        assert again.lead.network.runs_in == name
        told = run("predict", converted, *photos, "--format", "csv", "--engine", name)
        assert (told.code, told.out.count("\n")) == (0, said.out.count("\n"))


def test_an_engine_is_named_or_refused_in_one_sentence(
    converted: Path, insects: Path, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = next(insects.rglob("*.jpg"))
    with pytest.raises(InputError, match="there is no engine 'quick': name auto, torch, onnxruntime"):
        Classifier.load(converted, engine="quick")  # type: ignore[arg-type]
    for command in (
        ("predict", converted, photo),
        ("explain", converted, photo, "--out", tmp_path / "x.png"),
    ):
        done = run(*command, "--engine", "quick")
        assert done.code == 2
        assert "'quick' is not one of 'auto', 'torch'" in done.err
    monkeypatch.setattr(cuda, "available", lambda *_: False)
    done = run("predict", converted, photo, "--engine", "cuda")
    assert done.code == 2
    assert done.err.count("the engine cuda") == 1
    assert "the engine cuda needs a GPU that PyTorch can use" in done.err.splitlines()[-1]


def test_an_explanation_is_predicted_by_the_named_engine(
    converted: Path, insects: Path, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = []
    call = TorchEngine.__call__
    monkeypatch.setattr(TorchEngine, "__call__", lambda self, crops: (used.append(1), call(self, crops))[1])
    photo = next(insects.rglob("*.jpg"))
    done = run("explain", converted, photo, "--out", tmp_path / "x.png", "--engine", "torch")
    assert (done.code, bool(used)) == (0, True)


def test_a_named_engine_that_cannot_run_a_network_is_no_other_one(
    converted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "cached_graph", lambda key: None)

    def fail(*_: Any) -> Any:
        raise InputError("it cannot be converted")

    monkeypatch.setattr(runtime, "graph", fail)
    assert Classifier.load(converted).lead.network.engine.name == "torch"
    with pytest.raises(InputError, match="it cannot be converted"):
        _ = Classifier.load(converted, engine="onnxruntime").lead.network.engine


def test_a_server_reports_its_engine_and_does_not_start_without_it(
    converted: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("torch", "onnxruntime"):
        about = info(Classifier.load(converted, engine=name), ServeConfig())  # type: ignore[arg-type]
        assert about.engine == name
    monkeypatch.setattr(cuda, "available", lambda *_: False)
    done = run("serve", converted, "--engine", "cuda", "--port", 0)
    assert (done.code, done.err.count("the engine cuda needs a GPU")) == (2, 1)


def loaded_by(folder: Path, **options: Any) -> list[str]:
    """The engine and whether PyTorch was imported, in a process of its own that predicts one crop."""
    program = f"""
        import sys
        import numpy as np
        from fieldmark.inference.classifier import Classifier
        network = Classifier.load({str(folder)!r}, **{options!r}).lead.network
        network.engine(np.zeros((1, 224, 224, 3), np.uint8))
        print(network.engine.name, "torch" in sys.modules)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True
    )
    return done.stdout.split()


@pytest.mark.skipif(not installed(), reason="OpenVINO is not installed")
def test_an_engine_that_was_chosen_before_starts_without_pytorch(
    converted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "SECONDS", 0.01)
    # OpenVINO alone is measured, so that it is the choice whatever this machine is.
    monkeypatch.setattr(selection, "measure", partial(measured, only="openvino", real=selection.measure))
    facts = BACKBONES["shufflenet_v2_x0_5"]
    selection._path(selection.conditions(facts, runtime.BATCH)).unlink(missing_ok=True)
    assert Classifier.load(converted, engine="auto").lead.network.engine.name == "openvino"
    assert loaded_by(converted, engine="auto") == ["openvino", "False"]
    assert loaded_by(converted) == ["onnxruntime", "False"]
    if "openvino" in runtime.halves():
        assert Classifier.load(converted, compute="half").lead.network.engine.name == "openvino"
        assert loaded_by(converted, compute="half") == ["openvino", "False"]
    # Without the features to compare with, PyTorch computes them again.
    graphs._expected_path(Classifier.load(converted).lead.network.exact_key).unlink()
    assert loaded_by(converted, engine="auto") == ["openvino", "True"]


def measured(backbone: Any, batch: int, make: Any, *, only: str, real: Any) -> Any:
    return real(backbone, batch, {only: make[only]})


def test_many_photos_are_predicted_by_the_fastest_engine(
    converted: Path, insects: Path, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "SECONDS", 0.01)
    classifier = Classifier.load(converted)
    paths = [path for path in sorted(insects.rglob("*.jpg")) if path.stem != "broken"]
    photos = inputs.find_all(paths, ())
    assert len(photos) < predictor.MANY
    assert predictor.for_all(classifier, photos) is classifier
    monkeypatch.setattr(predictor, "MANY", len(photos))
    assert [each.runs_in for each in predictor.for_all(classifier, photos).networks] == ["auto"]
    assert predictor.for_all(classifier, photos[1:]) is classifier
    named = Classifier.load(converted, engine="torch")
    assert predictor.for_all(named, photos) is named

    used: list[str | None] = []
    real = Network._without_pytorch
    monkeypatch.setattr(
        Network, "_without_pytorch", lambda self, name: (used.append(name), real(self, name))[1]
    )
    out = tmp_path / "all.csv"
    assert run("predict", converted, *paths, "--out", out).code == 0
    whole = out.read_bytes()
    journal = out.with_name("all.csv.journal")
    journal.write_text("".join(journal.read_text().splitlines(keepends=True)[:33]))
    out.unlink()
    done = run("predict", converted, *paths, "--out", out)  # the photos that are left are few
    assert (done.code, used) == (0, ["auto", "auto"])
    assert out.read_bytes() == whole
    assert "Going on: 32 photos" in done.err
