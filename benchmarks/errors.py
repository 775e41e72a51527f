"""Compare errors: ours with the reference, and the fast tier with the exact one.

Both are measured on the same validation photos of ../shared/data/wild74, paired: the interval is that
of the difference, and an interval that contains 0 is a tie.

The reference is the recipe of `benchmarks.reference`. Its network is frozen and in evaluation mode and
its transform is not random, so the input of the last layer is the same in every epoch. It is therefore
computed once here, by that recipe (in float16), and the last layer is trained on it for all epochs. The
two of the five networks that have only random weights here are left out: their errors have no meaning,
and they would take most of the time.

The fast tier differs on photos of more than twice the crop on each side, and those of wild74 are
smaller. So they are enlarged fourfold and written as JPEG (quality 90) first, and both tiers read
these. They lack the finest detail of a photo of that size.

These are not timings: nothing varies from run to run, so there is one round.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks import common
from benchmarks.common import Row
from benchmarks.reference import BATCH, Example, Recipe, recipe
from fieldmark import models
from fieldmark.data.photos import PhotoFile
from fieldmark.data.split import split_photos
from fieldmark.data.subset import DataSplits, LabelledPhotos, read
from fieldmark.data.transforms import PAPER_CROP, Preprocess
from fieldmark.evaluation.comparison import Difference, difference
from fieldmark.evaluation.results import Evaluation
from fieldmark.features.cache import FeatureStore
from fieldmark.features.extractor import FeatureExtractor
from fieldmark.heads.softmax import Hyperparameters, Training, fit
from fieldmark.utils import io

NETWORKS = ("alexnet", "squeezenet1_1", "shufflenet_v2_x0_5")
TIER_NETWORK = "tf_efficientnet_lite0"
EPOCHS = 10
ENLARGED = 4


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
        some = parts if quick else _first(parts, 2000)
        return [*rows, _tiers(some, Path(folder), store)]


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


def _tiers(parts: DataSplits, folder: Path, store: FeatureStore) -> Row:
    parts = _enlarged(parts, folder / "enlarged")
    backbone = models.load(TIER_NETWORK)
    found = {}
    for tier in ("exact", "fast"):
        crop: Preprocess = replace(PAPER_CROP, tier=tier)
        found[tier] = _evaluation(FeatureExtractor(crop, store, engine="onnxruntime"), backbone, parts)
    note = "photos enlarged so that the tier acts"
    return _row(f"fast tier, {TIER_NETWORK}, error", found["fast"], found["exact"], "exact tier", parts, note)


def _first(parts: DataSplits, limit: int) -> DataSplits:
    """Return about `limit` photos of both parts, every n-th."""
    step = max(1, (len(parts.train) + len(parts.val)) // limit)
    return replace(parts, train=_some(parts.train, step), val=parts.val)


def _some(photos: LabelledPhotos, step: int) -> LabelledPhotos:
    return LabelledPhotos(
        photos.ids[::step],
        photos.files[::step],
        photos.taxon_ids[::step],
        photos.groups[::step],
        photos.supercategories[::step],
    )


def _enlarged(parts: DataSplits, folder: Path) -> DataSplits:
    folder.mkdir()
    with ThreadPoolExecutor(common.cores()) as pool:
        made = [
            replace(part, files=tuple(pool.map(lambda photo: _enlarge(photo, folder), part.files)))
            for part in (parts.train, parts.val)
        ]
    return replace(parts, train=made[0], val=made[1])


def _enlarge(photo: PhotoFile, folder: Path) -> PhotoFile:
    with Image.open(photo.path) as image:
        size = (image.width * ENLARGED, image.height * ENLARGED)
        large = image.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    out = BytesIO()
    large.save(out, "JPEG", quality=90)
    path = folder / f"{photo.sha256}.jpg"
    path.write_bytes(out.getvalue())
    return PhotoFile(io.sha256(out.getvalue()), path)
