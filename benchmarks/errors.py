"""Compare errors: ours with the reference, and the fast tier with the exact one.

Both are measured on the same validation photos of ../shared/data/wild74, paired: the interval is that
of the difference, and an interval that contains 0 is a tie.

The reference is the recipe of `benchmarks.reference`. Its network is frozen and in evaluation mode and
its transform is not random, so the input of the last layer is the same in every epoch. It is therefore
computed once here, by that recipe (in float16), and the last layer is trained on it for all epochs. The
two of the five networks that have only random weights here are left out: their errors have no meaning,
and they would take most of the time.

The fast tier differs on photos of more than four times the crop on each side, and those at hand are
smaller. So photos of wild74 and of a drawn guide are enlarged to 2 megapixels, get the grain of a camera's
sensor, whose detail is as fine as a pixel, and are written as JPEG (quality 90). Both tiers read these; a
ridge head on both is measured in the same folds.

These are not timings: nothing varies from run to run, so there is one round.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from PIL import Image

from benchmarks import common
from benchmarks.common import Row
from benchmarks.reference import BATCH, Example, Recipe, recipe
from fieldmark import models
from fieldmark.data import synthetic
from fieldmark.data.dataset import load_dataset
from fieldmark.data.photos import PhotoFile
from fieldmark.data.split import split_photos
from fieldmark.data.subset import DataSplits, LabelledPhotos, read
from fieldmark.evaluation.comparison import Difference, difference
from fieldmark.evaluation.results import Evaluation
from fieldmark.features.cache import FeatureStore
from fieldmark.features.extractor import FeatureExtractor, View
from fieldmark.heads.softmax import Hyperparameters, Training, fit
from fieldmark.training import compute
from fieldmark.training.stages import Prepared
from fieldmark.utils import io
from fieldmark.utils.choices import DecodingTier

NETWORKS = ("alexnet", "squeezenet1_1", "shufflenet_v2_x0_5")
TIER_NETWORKS = ("tf_efficientnet_lite0", "squeezenet1_1")
EPOCHS = 10
SAMPLE = 700
SHORTEST = 1300  # pixels of the shorter side: about 2 megapixels
GRAIN = 12.0  # grey levels


def run(
    quick: bool = False,
    data: Path | None = None,
    weights_dir: Path | None = None,
    networks: Sequence[str] = NETWORKS,
) -> list[Row]:
    """Return a row per network, and one for the tiers: errors of both, and their difference."""
    if data is None:
        data, weights_dir = common.shared("data", "wild74"), common.shared("weights")
    table = read(data, limit=200 if quick else None, seed=0)
    parts = DataSplits.of(table, split_photos(table, val=0.1, test=0.0, seed=0))
    with tempfile.TemporaryDirectory() as folder:
        store = FeatureStore(Path(folder))
        rows = [_against_reference(name, parts, weights_dir, store) for name in networks]
        return [*rows, *_tiers(data, weights_dir, Path(folder), quick)]


def _against_reference(name: str, parts: DataSplits, weights_dir: Path | None, store: FeatureStore) -> Row:
    backbone = models.load(name, weights_dir=weights_dir)
    extractor = FeatureExtractor(store=store, engine="onnxruntime")
    ours = _evaluation(extractor, backbone, parts)
    scores = _reference_scores(name, parts, weights_dir)
    theirs = Evaluation.of(parts.val, scores, parts.classes)
    return _row(f"{name}, error", ours, theirs, "torchvision's recipe", parts)


def _evaluation(extractor: FeatureExtractor, backbone: models.Backbone, parts: DataSplits) -> Evaluation:
    """Evaluate ours as a study does: features, ten epochs of the last layer, scores."""
    photos = [*parts.train.files, *parts.val.files]
    extractor.compute(photos, {backbone.architecture.name: backbone})
    train = extractor.features(backbone, parts.train, parts.classes)
    val = extractor.features(backbone, parts.val, parts.classes)
    found = fit(train, val, len(parts.classes), Training(epochs=EPOCHS), Hyperparameters())
    return Evaluation.of(parts.val, found.head.logits_of(val.features), parts.classes)


def _row(
    what: str, ours: Evaluation, theirs: Evaluation, peer: str, parts: DataSplits, note: str = ""
) -> Row:
    found: Difference = difference(ours, theirs)
    a, b = (float(each.wrong_N().mean()) for each in (ours, theirs))
    more = {"train": len(parts.train), "val": len(parts.val), "classes": len(parts.classes)}
    return common.paired(what, a, b, peer, (found.value, *found.interval), note=note, more=more)


# --- the reference ---------------------------------------------------------------------------------


def _reference_scores(name: str, parts: DataSplits, weights_dir: Path | None) -> np.ndarray:
    """Return the scores of the reference recipe on the validation photos, after all epochs."""
    torch.manual_seed(0)
    of = recipe(name, len(parts.classes), weights_dir, library="torchvision")
    train, labels = _inputs(of, parts.train, parts.classes)
    val, _ = _inputs(of, parts.val, parts.classes)
    optimiser = of.optimiser()
    batches = -(-len(train) // BATCH)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, EPOCHS * batches)
    loss_of = torch.nn.CrossEntropyLoss()
    for _ in range(EPOCHS):
        for index in torch.randperm(len(train)).split(BATCH):
            optimiser.zero_grad()
            loss_of(_scores(of, train[index]), labels[index]).backward()
            optimiser.step()
            falling.step()
    with torch.no_grad():
        return np.asarray(_scores(of, val).numpy())


def _inputs(of: Recipe, photos: LabelledPhotos, classes: Sequence[str]) -> tuple[Any, Any]:
    """Return the inputs of the last layer of the reference's network, and the labels."""
    taken: list[torch.Tensor] = []
    hook = of.last.register_forward_pre_hook(lambda _, given: taken.append(given[0].half()))
    labels = photos.labels(classes)
    examples: list[Example] = [
        (photo.path, int(label)) for photo, label in zip(photos.files, labels, strict=True)
    ]
    of.scores(of.loader(examples, shuffle=False))
    hook.remove()
    return torch.cat(taken), torch.from_numpy(labels)


def _scores(of: Recipe, inputs: torch.Tensor) -> torch.Tensor:
    """Apply the last layer, and for SqueezeNet the ReLU and the mean after it."""
    scores = of.last(inputs.float())
    return scores.relu().mean((2, 3)) if scores.ndim == 4 else scores


# --- the tiers -------------------------------------------------------------------------------------


def _tiers(data: Path, weights_dir: Path | None, folder: Path, quick: bool) -> Iterator[Row]:
    """Compare the errors of a ridge head on the features of both tiers, in the same folds."""
    synthetic.draw(folder / "guide", **({"species": 4, "photos": 40} if quick else {}))
    for name, place in {data.name: data, "a drawn guide": folder / "guide"}.items():
        prepared = Prepared(load_dataset(place), FeatureExtractor())
        photos = _enlarged(prepared.splits.train.some(40 if quick else SAMPLE), folder / f"large {name}")
        for network in TIER_NETWORKS[:1] if quick else TIER_NETWORKS:
            backbone = models.load(network, weights_dir=weights_dir)
            found = {}
            for tier in get_args(DecodingTier):
                store = FeatureStore(folder / tier)
                how = replace(prepared, extractor=FeatureExtractor(View(tier=tier), store))
                found[tier] = compute.evaluated(how, backbone, photos, seed=0)
            pair = found["fast"], found["exact"]
            errors = (float(each.wrong_N().mean()) for each in pair)
            apart = difference(*pair)
            what = f"fast tier, {network}, error on {name}"
            note = f"{apart.photos:,} photos, enlarged, with grain"
            yield common.paired(what, *errors, "exact tier", (apart.value, *apart.interval), note=note)


def _enlarged(photos: LabelledPhotos, folder: Path) -> LabelledPhotos:
    folder.mkdir()
    with ThreadPoolExecutor(common.cores()) as pool:
        return replace(photos, files=tuple(pool.map(lambda photo: _enlarge(photo, folder), photos.files)))


def _enlarge(photo: PhotoFile, folder: Path) -> PhotoFile:
    with Image.open(photo.path) as image:
        times = SHORTEST / min(image.size)
        size = (round(image.width * times), round(image.height * times))
        large = np.asarray(image.convert("RGB").resize(size, Image.Resampling.BICUBIC), np.float32)
    grain = np.random.default_rng(int(photo.sha256[:8], 16)).normal(0, GRAIN, large.shape)
    path = folder / f"{photo.sha256}.jpg"
    Image.fromarray((large + grain).clip(0, 255).astype(np.uint8)).save(path, "JPEG", quality=90)
    return PhotoFile(io.file_digest(path), path)
