"""Tiers of precision: the speed of int8 beside float32, and what becomes of the error.

    python -m benchmarks tiers

Speed: crops per second of the same engine in both tiers, in alternating rounds. Error: top-1 error of a
ridge head on the features of both, in the same folds, as `--compute auto` compares them, on a sample of real
photos (wild74) and of drawn ones; and of the networks' own last layers on 100 photos of ImageNet. Ranges are
set by 64 training photos of each data set (ImageNet: by those of wild74). The tier `half` is measured where
the processor has it. Networks without complete weights are measured for speed alone.
"""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.common import EXACT, Row, alternate, compare, rounds, shared
from benchmarks.engines import rate
from fieldmark import models
from fieldmark.data import synthetic
from fieldmark.data.dataset import load_dataset
from fieldmark.data.subset import LabelledPhotos
from fieldmark.evaluation import intervals
from fieldmark.evaluation.comparison import Difference, difference
from fieldmark.features.extractor import FeatureExtractor
from fieldmark.models import Backbone, runtime
from fieldmark.models.runtime.quantise import quantised
from fieldmark.training import compute
from fieldmark.training.stages import Prepared
from fieldmark.utils.errors import InputError
from fieldmark.utils.typing import ByteArray

NETWORKS = ("tf_efficientnet_lite0", "squeezenet1_1", "mobilenet_v2")
COMPLETE = NETWORKS[:2]
"""Those whose weights have ImageNet's last layer."""
FOR_SPEED = ("alexnet", "shufflenet_v2_x0_5", "densenet121", "resnext50_32x4d")
"""Those whose weights are not at hand; a speed does not depend on them."""
BATCH = 32


def run(quick: bool = False) -> list[Row]:
    """Return rows of speed and of errors for each network and engine."""
    sample = 64 if quick else compute.SAMPLE
    with tempfile.TemporaryDirectory() as folder:
        synthetic.draw(Path(folder) / "guide", **({"species": 4, "photos": 120} if quick else {}))
        places = {"wild74": shared("data", "wild74"), "a drawn guide": Path(folder) / "guide"}
        data = {name: Prepared(load_dataset(path), FeatureExtractor()) for name, path in places.items()}
        photos = {name: each.splits.train.some(sample) for name, each in data.items()}
        rows: list[Row] = []
        for name in NETWORKS[1:2] if quick else NETWORKS:
            backbone = models.load(name, weights_dir=shared("weights"))
            for engine in runtime.CONVERTED:
                rows += _rows(data, photos, backbone, engine, quick)
        for name in () if quick else FOR_SPEED:
            backbone = models.load(name, weights="random")
            for engine in runtime.CONVERTED:
                rows += _rows(dict(list(data.items())[:1]), photos, backbone, engine, quick)
        return rows


def _rows(
    data: dict[str, Prepared], photos: dict[str, LabelledPhotos], backbone: Backbone, engine: str, quick: bool
) -> Iterator[Row]:
    """Yield the rows of a network on an engine: speed, and errors unless its weights are random."""
    crops = {name: compute.calibration_crops(each, backbone, photos[name]) for name, each in data.items()}
    try:
        tiers = {name: {"int8": quantised(backbone, some, engine)} for name, some in crops.items()}
    except InputError:  # it is not installed
        return
    if engine in runtime.halves():
        tiers = {name: each | {"half": backbone.computed(runtime.HALF)} for name, each in tiers.items()}
    first = next(iter(tiers))
    for tier, found in tiers[first].items():
        yield _speed(backbone, found, engine, crops[first][:BATCH], quick)
        for name, each in data.items() if backbone.architecture.name not in FOR_SPEED else ():
            yield _error(name, each, photos[name], backbone, tiers[name][tier], engine)
        if backbone.architecture.name in COMPLETE:
            yield _imagenet(backbone, found, engine)


def _speed(exact: Backbone, other: Backbone, engine: str, batch: ByteArray, quick: bool) -> Row:
    tier = other.tier.name
    runs = {tier: runtime.engine(other, engine), "exact": runtime.engine(exact, engine)}
    ways = {name: rate(lambda call=call: call(batch), BATCH, quick) for name, call in runs.items()}  # type: ignore[misc]
    values = alternate(ways, rounds(quick), warm_up=True)
    pairs = zip(runs[tier](batch), runs["exact"](batch), strict=True)
    off = float(np.median([runtime.relative_error(a[None], b[None]) for a, b in pairs]))
    return compare(
        f"{exact.architecture.name}, {engine}, speed in {tier}",
        values,
        tier,
        "exact",
        unit="img/s",
        more_is_better=True,
        note=f"features {off:.1%} off (median)",
    )


def _error(
    name: str, data: Prepared, photos: LabelledPhotos, exact: Backbone, other: Backbone, engine: str
) -> Row:
    """Compare the errors of a ridge head on the features of both tiers."""
    data = replace(data, extractor=replace(data.extractor, engine=engine))
    scores = [compute.evaluated(data, each, photos, seed=0) for each in (other, exact)]
    what = f"{exact.architecture.name}, {engine}, error in {other.tier.name} on {name}"
    return _row(what, *(float(each.wrong_N().mean()) for each in scores), difference(*scores))


def _imagenet(exact: Backbone, other: Backbone, engine: str) -> Row:
    """Compare the errors of the network's own last layer on photos of ImageNet."""
    folder = shared("data", "imagenet-sample")
    with (folder / "labels.csv").open() as file:
        listed = list(csv.DictReader(file))
    facts, state = exact.architecture, exact.network.state_dict()
    crop = replace(facts.preprocess, fit="crop", size=facts.input_size)
    crops = np.stack([crop.crop((folder / each["file_name"]).read_bytes()) for each in listed])
    labels_N = np.array([int(each["imagenet_index"]) for each in listed])
    weight_CD = state[f"{facts.last_layer_path}.weight"].flatten(1).numpy()
    bias_C = state[f"{facts.last_layer_path}.bias"].numpy()
    wrong = [
        (runtime.engine(each, engine)(crops) @ weight_CD.T + bias_C).argmax(axis=1) != labels_N
        for each in (other, exact)
    ]
    values = wrong[0].astype(np.float64) - wrong[1]
    interval = intervals.difference_interval(values, [None] * len(values), seed=0)
    found = Difference(float(values.mean()), interval, len(values))
    what = f"{facts.name}, {engine}, error in {other.tier.name} on ImageNet, own last layer"
    return _row(what, *(float(each.mean()) for each in wrong), found)


def _row(what: str, ours: float, peer: float, found: Difference) -> Row:
    low, high = found.interval
    ratio = peer / ours if ours else 1.0
    note = f"difference {found.value:+.3f} ({low:+.3f} to {high:+.3f}) on {found.photos:,} photos"
    return Row(what, "", ours, peer, "exact", ratio, ratio, ratio, EXACT, note=note)
