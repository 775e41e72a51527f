"""The JSON schemas are those of the records, and what is written satisfies them."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema
import pytest

from fieldmark.experiments import Run, StudyConfig, study
from fieldmark.experiments.runs import Options

ROOT = Path(__file__).parent.parent
SCHEMAS = ROOT / "docs/schemas"


def schema(name: str) -> Any:
    return json.loads((SCHEMAS / f"{name}.schema.json").read_text())


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "scripts")
    return importlib.import_module("write_schemas")


def test_the_schemas_are_what_the_script_writes(script: ModuleType) -> None:
    assert {path.name for path in SCHEMAS.iterdir()} == {f"{name}.schema.json" for name in script.RECORDS}
    for name in script.RECORDS:
        written = (SCHEMAS / f"{name}.schema.json").read_text()
        assert written == script.text(name), "run python scripts/write_schemas.py"
        jsonschema.Draft202012Validator.check_schema(json.loads(written))


@pytest.mark.parametrize("name", ["classifier", "evaluation"])
def test_a_trained_classifier_satisfies_its_schemas(model: Path, name: str) -> None:
    content = json.loads((model / f"{name}.json").read_text())
    jsonschema.Draft202012Validator(schema(name)).validate(content)
    del content["temperature" if name == "classifier" else "top1_error"]
    with pytest.raises(jsonschema.ValidationError, match="is a required property"):
        jsonschema.Draft202012Validator(schema(name)).validate(content)


def test_a_study_satisfies_its_schema(insects: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIELDMARK_CACHE", str(tmp_path / "cache"))
    how: dict[str, Any] = {"backbone": "shufflenet_v2_x0_5", "pruned": False, "epochs": 2}
    runs = [
        Run("table3", "Cached", **how),
        Run("ensemble", "Mean", mode="ensemble", members="table3"),
        Run("epochs", "Early", mode="early", part="cross", **how),
    ]
    config = StudyConfig(Options(epochs=2), engine="torch", limit=40)
    result = study(insects, runs, config, out=tmp_path / "out")
    content = json.loads((tmp_path / "out" / "study.json").read_text())
    assert content == result.to_dict()
    jsonschema.Draft202012Validator(schema("study")).validate(content)
    with pytest.raises(jsonschema.ValidationError, match="extra"):
        jsonschema.Draft202012Validator(schema("study")).validate(content | {"extra": 1})
