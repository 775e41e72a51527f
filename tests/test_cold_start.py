"""The command line imports no more than its answer needs: that is what keeps its start short."""

from __future__ import annotations

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

HEAVY = ("torch", "torchvision", "timm", "polars", "matplotlib", "rich", "onnx", "sklearn", "jinja2")
HEAVY_FOR_HELP = (*HEAVY, "numpy", "onnxruntime", "openvino", "PIL")

RUN = """
import json, sys
sys.argv = ["fieldmark", *json.loads(sys.argv[1])]
from fieldmark.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def run(*words: str) -> tuple[str, set[str]]:
    """What `fieldmark WORDS` prints in a process of its own, and the packages that it imported."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(words)],
        capture_output=True,
        text=True,
        check=False,
        env=dict(os.environ),
    )
    assert done.returncode == 0, done.stderr
    *printed, modules = done.stdout.splitlines()
    return "\n".join(printed), set(json.loads(modules))


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
    printed, modules = run(*words)
    assert "fieldmark" in printed
    assert not modules & set(HEAVY_FOR_HELP)


def test_one_photo_is_named_without_pytorch(classifier: Path, tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    Image.new("RGB", (80, 60), (90, 140, 40)).save(photo)
    printed, modules = run("predict", str(classifier), str(photo))
    assert "Avis secunda" in printed
    assert "onnxruntime" in modules
    assert not modules & set(HEAVY)
