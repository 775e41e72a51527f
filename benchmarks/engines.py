"""Measure crops to features, one network at a time: our engines against eager PyTorch.

Eager PyTorch is what torchvision's and timm's examples run: `model.eval()`, `torch.inference_mode()`,
prepared float32 tensors, normalised, in a batch of 16. Ours start from uint8 crops and include the
normalisation. Each row gives the difference of its features from those of eager PyTorch.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence

import numpy as np

from benchmarks.common import Row, alternate, compare, rounds, shared
from fieldmark import models
from fieldmark.data.transforms import Preprocess
from fieldmark.models import Backbone, runtime
from fieldmark.models.runtime import openvino

NETWORKS = (
    *("alexnet", "squeezenet1_1", "shufflenet_v2_x0_5", "shufflenet_v2_x1_0"),
    *("tf_efficientnet_lite0", "densenet121", "resnext50_32x4d"),
)
BATCH = 16
SECONDS = 0.5  # a turn, or one batch of a slow network
PEER = "eager PyTorch on ready tensors"


def run(quick: bool = False, names: Sequence[str] = NETWORKS) -> list[Row]:
    """Return a row for each engine of each network."""
    crops = _crops(BATCH)
    rows = []
    for name in names[:1] if quick else names:
        rows += _rows(models.load(name, weights="random"), crops, quick)
    return rows


def _rows(backbone: Backbone, batch: np.ndarray, quick: bool) -> list[Row]:
    names = ["onnxruntime", *(["openvino"] if openvino.installed() else [])]
    ours: dict[str, runtime.Engine] = {n: runtime.engine(backbone, n, batch=BATCH) for n in names}
    eager, exact = _eager(backbone, batch)
    ways = {PEER: rate(eager, BATCH, quick)}
    ways |= {n: rate(lambda e=e: e(batch), BATCH, quick) for n, e in ours.items()}  # type: ignore[misc]
    values = alternate(ways, rounds(quick), warm_up=True)
    rows = []
    for name, engine in ours.items():
        off = runtime.relative_error(engine(batch), exact)
        note = f"features {off:.0e} off at most"
        rows.append(
            compare(
                f"{backbone.architecture.name}, {name}",
                values,
                name,
                PEER,
                unit="img/s",
                more_is_better=True,
                note=note,
                more={"relative_error": off},
            )
        )
    return rows


def _eager(backbone: Backbone, crops: np.ndarray) -> tuple[Callable[[], object], np.ndarray]:
    """Return the network of its library without its last layer, and its features."""
    import torch

    trunk = backbone.trunk
    with torch.inference_mode():
        ready = trunk.pixels(torch.from_numpy(crops)).contiguous()
        exact = trunk(torch.from_numpy(crops)).numpy()

    def call() -> object:
        with torch.inference_mode():
            return trunk.features(ready)

    return call, exact


def rate(call: Callable[[], object], crops: int, quick: bool) -> Callable[[], float]:
    """Measure crops per second over some calls, each of so many crops."""

    def way() -> float:
        start, done = time.perf_counter(), 0
        while not done or (not quick and time.perf_counter() - start < SECONDS):
            call()
            done += crops
        return done / (time.perf_counter() - start)

    return way


def _crops(count: int) -> np.ndarray:
    """Read crops of real photos."""
    paths = sorted(shared("data", "wild74", "train_val2019").rglob("*.jpg"))
    crop = Preprocess(fit="squash")
    return np.stack([crop.crop(p.read_bytes()) for p in paths[:: len(paths) // count][:count]])


if __name__ == "__main__":
    from benchmarks.common import table

    print(table("engines", run(names=sys.argv[1:] or NETWORKS)))
