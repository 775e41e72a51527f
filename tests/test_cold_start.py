"""The command line imports no more than its answer needs: that is what keeps its start short."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fieldmark import models
from fieldmark.data.taxonomy import Taxon, Taxonomy
from fieldmark.data.transforms import Preprocess
from fieldmark.heads.base import LinearHead
from fieldmark.inference.classifier import Classifier
from fieldmark.models.runtime import graphs
from fieldmark.utils import collector

HEAVY = ("torch", "torchvision", "timm", "polars", "matplotlib", "rich", "onnx", "sklearn", "jinja2")
HEAVY_FOR_HELP = (*HEAVY, "numpy", "onnxruntime", "openvino", "PIL")

RUN = """
import gc, json, sys
sys.argv = ["fieldmark", *json.loads(sys.argv[1])]
from fieldmark.__main__ import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print(json.dumps(gc.isenabled()))
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def run(*words: str) -> tuple[str, bool, set[str]]:
    """What `fieldmark WORDS` prints in a process of its own, whether the garbage collector ran when it ended,
    and the packages that it imported."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(words)],
        capture_output=True,
        text=True,
        check=False,
        env=dict(os.environ),
    )
    assert done.returncode == 0, done.stderr
    *printed, collected, modules = done.stdout.splitlines()
    return "\n".join(printed), json.loads(collected), set(json.loads(modules))


@pytest.fixture
def classifier(tmp_path: Path) -> Path:
    """A classifier of two invented birds, whose network was converted before."""
    backbone = models.load("shufflenet_v2_x0_5", weights="random")
    graphs.graph(backbone)
    folder = tmp_path / "model"
    Classifier.alone(
        backbone,
        preprocess=Preprocess(fit="squash"),
        head=LinearHead(np.eye(1024, 2, dtype=np.float32), np.array([0, 5], np.float32)),
        taxonomy=Taxonomy([Taxon("1", "Avis prima"), Taxon("2", "Avis secunda")]),
    ).save(folder)
    return folder


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["predict", "--help"]])
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    printed, _, modules = run(*words)
    assert "fieldmark" in printed
    assert not modules & set(HEAVY_FOR_HELP)


def test_one_photo_is_named_without_pytorch(classifier: Path, tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    Image.new("RGB", (80, 60), (90, 140, 40)).save(photo)
    printed, collected, modules = run("predict", str(classifier), str(photo))
    assert "Avis secunda" in printed
    assert collected
    assert "onnxruntime" in modules
    assert not modules & set(HEAVY)


def test_a_module_is_loaded_without_the_collector_which_runs_again_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "loaded_once.py").write_text("import gc\nRAN = gc.isenabled()\n")
    (tmp_path / "broken_one.py").write_text("raise KeyError\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    collector.load("loaded_once")
    assert not sys.modules["loaded_once"].RAN
    assert gc.isenabled()
    frozen = gc.get_freeze_count()
    collector.load("loaded_once")
    assert gc.get_freeze_count() == frozen
    with pytest.raises(KeyError):
        collector.load("broken_one")
    assert gc.isenabled()
