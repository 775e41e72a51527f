"""Measure the same on a GPU, where PyTorch finds one: the five networks forward, and end to end.

Forward: uint8 crops in main memory to features in main memory, against the network
in eager PyTorch on the same GPU (prepared float32 tensors on it, batches of 256). End to end:
photos on disk to the feature cache, decoded on the CPU, against the bare engine, as in `pipeline`.
The aim on an H100 is 6,500 crops a second forward for ResNeXt-50 and for DenseNet-121, and 4,000
photos a second for the five together.

The last row compares NVIDIA's JPEG decoder, through torchvision, with ours on all cores. It is not used:
its pixels are not those that the tier `exact` guarantees. The row shows the cost of that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from benchmarks import pipeline
from benchmarks.common import Row, Unavailable, alternate, compare, cores, rounds, shared
from fieldmark import models
from fieldmark.data import images
from fieldmark.models import Backbone, runtime
from fieldmark.models.runtime import cuda

CROPS = 4_096
PEER = "eager PyTorch on the same GPU"


def run(quick: bool = False, names: Sequence[str] = pipeline.NETWORKS) -> list[Row]:
    """Measure forward rates, end-to-end rates, and decoding.

    Raises:
        Unavailable: PyTorch finds no GPU.
    """
    if not cuda.available():
        raise Unavailable("PyTorch finds no GPU on this machine")
    rows = [_forward(models.load(name, weights="random"), quick) for name in names]
    rows += pipeline.run(quick, names, engine="cuda")
    return [*rows, *_decoding(quick)]


def _forward(backbone: Backbone, quick: bool) -> Row:
    import torch

    side = backbone.architecture.input_size
    crops = np.random.default_rng(0).integers(0, 256, (CROPS, side, side, 3), dtype=np.uint8)
    engine = runtime.engine(backbone, "cuda")
    features = engine(crops[: cuda.BATCH])
    trunk = backbone.trunk.to("cuda")
    with torch.inference_mode():
        there = torch.from_numpy(crops[: cuda.BATCH]).cuda()
        ready = trunk.pixels(there)
        off = runtime.relative_error(features, trunk(there).cpu().numpy())

    def eager() -> None:
        with torch.inference_mode():
            for _ in range(CROPS // cuda.BATCH):
                trunk.features(ready)
            torch.cuda.synchronize()

    values = alternate(
        {"forward": _rate(lambda: engine(crops)), PEER: _rate(eager)}, rounds(quick), warm_up=True
    )
    trunk.to("cpu")
    precision = getattr(engine, "precision", "")
    return compare(
        f"{backbone.architecture.name}, forward",
        values,
        "forward",
        PEER,
        unit="img/s",
        more_is_better=True,
        note=f"{precision}, features {off:.0e} off at most; {torch.cuda.get_device_name()}",
    )


def _rate(call: Callable[[], object]) -> Callable[[], float]:
    def way() -> float:
        start = time.perf_counter()
        call()
        return CROPS / (time.perf_counter() - start)

    return way


def _decoding(quick: bool) -> list[Row]:
    """Measure bytes to pixels at full size, ours including resizing; nothing without nvJPEG."""
    import torch

    from fieldmark.models._torchvision_import import import_torchvision

    import_torchvision()
    from torchvision.io import decode_jpeg

    paths = sorted(shared("data", "wild74", "train_val2019").rglob("*.jpg"))[:1024]
    data = [path.read_bytes() for path in paths]
    tensors = [torch.frombuffer(bytearray(one), dtype=torch.uint8) for one in data]
    try:
        decode_jpeg(tensors[:2], device="cuda")
    except RuntimeError:
        return []

    def theirs() -> float:
        start = time.perf_counter()
        decode_jpeg(tensors, device="cuda")
        torch.cuda.synchronize()
        return len(data) / (time.perf_counter() - start)

    def ours() -> float:
        from concurrent.futures import ThreadPoolExecutor

        start = time.perf_counter()
        with ThreadPoolExecutor(cores()) as pool:
            list(pool.map(images.decode, data))
        return len(data) / (time.perf_counter() - start)

    values = alternate({"ours": ours, "nvJPEG": theirs}, rounds(quick), warm_up=True)
    what = f"decoding alone, {cores()} cores"
    return [compare(what, values, "ours", "nvJPEG", unit="img/s", more_is_better=True)]


if __name__ == "__main__":
    from benchmarks.common import table

    try:
        print(table("gpu", run()))
    except Unavailable as why:
        print(f"gpu: skipped, {why}")
