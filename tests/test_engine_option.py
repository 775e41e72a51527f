"""`--engine` of predict, explain and serve: the same answers by each, and no other one than the named one."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fieldmark.inference.classifier import Classifier
from fieldmark.models import runtime
from fieldmark.models.runtime import ENGINES, cuda, selection
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
