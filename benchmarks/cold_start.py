"""Measure the time from start to the first answer: whole processes, timed from outside.

`fieldmark predict` of one photo, with its network converted before, against the script that a user of
timm writes: import torch and timm, make the network, read its weights from a file, take timm's own
transform, predict. Both use EfficientNet-Lite0, and both find all files in the system's cache.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.common import Row, alternate, compare, rounds, timed
from fieldmark import models
from fieldmark.data.taxonomy import Taxon, Taxonomy
from fieldmark.data.transforms import Preprocess
from fieldmark.heads.base import LinearHead
from fieldmark.inference.classifier import Classifier
from fieldmark.models.runtime import graphs

CLASSES = 100
HELP_AIM, PREDICT_AIM = 0.3, 0.35  # seconds

TIMM = """
import sys
import timm, torch
from PIL import Image
from safetensors.torch import load_file
from timm.data import create_transform, resolve_data_config
model = timm.create_model("tf_efficientnet_lite0", num_classes=100)
model.load_state_dict(load_file(sys.argv[1]))
model.eval()
transform = create_transform(**resolve_data_config({}, model=model))
with torch.inference_mode():
    scores = model(transform(Image.open(sys.argv[2]).convert("RGB"))[None]).softmax(1)[0]
for score, number in zip(*scores.topk(5)):
    print(f"{score:.1%} {number}")
"""
# torchvision's wheel beside a CPU-only torch needs this first; it adds nothing else to the peer's time.
DECLARE = "from fieldmark.models._torchvision_import import import_torchvision as t; t()\n"


def run(quick: bool = False) -> list[Row]:
    """Compare `--help` and `predict` with timm's script."""
    count = rounds(quick, 7)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photo = folder / "photo.jpg"
        noise = np.random.default_rng(0).integers(0, 256, (375, 500, 3), dtype=np.uint8)
        Image.fromarray(noise).save(photo, quality=90)
        weights = classifier(folder / "model")
        ours = [sys.executable, "-m", "fieldmark"]
        values = alternate(
            {
                "--help": process([*ours, "--help"]),
                "predict": process([*ours, "predict", str(folder / "model"), str(photo)]),
                "timm": process([sys.executable, "-c", DECLARE + TIMM, str(weights), str(photo)]),
            },
            count,
            warm_up=not quick,
        )
    peer = {"a script with timm, one photo": values["timm"]}
    rows = []
    for way, what, aim in (("predict", "predict, one photo", PREDICT_AIM), ("--help", "--help", HELP_AIM)):
        note = f"aim: {aim} s"
        rows.append(compare(what, {way: values[way]} | peer, way, next(iter(peer)), note=note))
    return rows


def classifier(folder: Path) -> Path:
    """Make a classifier with a converted network, and the same network in a file for timm."""
    import torch
    from safetensors.torch import save_file

    backbone = models.load("tf_efficientnet_lite0", weights="random")
    graphs.graph(backbone)
    dim = backbone.architecture.feature_dim
    Classifier.alone(
        backbone,
        preprocess=Preprocess(),
        head=LinearHead(np.eye(dim, CLASSES, dtype=np.float32), np.zeros(CLASSES, np.float32)),
        taxonomy=Taxonomy([Taxon(str(n), f"Species {n}") for n in range(CLASSES)]),
    ).save(folder)
    state = {name: value.contiguous() for name, value in backbone.network.state_dict().items()}
    state |= {"classifier.weight": torch.zeros(CLASSES, dim), "classifier.bias": torch.zeros(CLASSES)}
    path = folder.parent / "timm.safetensors"
    save_file(state, path)
    return path


def process(command: list[str]) -> Callable[[], float]:
    """Return a function that measures the seconds of a command, for `alternate`; it raises if that fails."""

    def call() -> None:
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))
        if done.returncode:
            raise RuntimeError(f"{' '.join(command[:4])} failed: {done.stderr[-2000:]}")

    return timed(call)


if __name__ == "__main__":
    from benchmarks.common import table

    print(table("cold start", run()))
