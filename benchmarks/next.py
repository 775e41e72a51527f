"""What to label next: how many labels each way of choosing photos needs for the same error.

    python -m benchmarks next

Two drawn field guides of different shapes: 40 species with a long tail, and 10 species with many photos each.
Training starts from two labelled photos a species; 20 photos at a time are chosen from the others, labelled,
and the default last layer is trained again, as the application does. The error is that on the guide's test
photos, in the mean over the seeds. The figure is the number of labels after which it has come down to what
random choice reaches with all of its labels.

These are not timings: nothing varies from run to run, so there is one round.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import common
from benchmarks.common import Row
from fieldmark.app import choosing
from fieldmark.data import synthetic
from fieldmark.data.transforms import PAPER_CROP
from fieldmark.heads.estimator import FeatureClassifier
from fieldmark.inference.classifier import streaming
from fieldmark.models import Backbone, load, runtime
from fieldmark.utils import io
from fieldmark.utils.errors import ImageRejected

GUIDES = {"40 species, long tail": (40, 1600), "10 species": (10, 1000)}
AT_ONCE, ROUNDS, SEEDS, START = 20, 10, 5, 2
WAYS: dict[str, Callable[..., np.ndarray]] = {
    "margin": choosing.by_margin,
    "entropy": choosing.by_entropy,
    "k-centre of small margins": choosing.by_centres,
    "gradients (BADGE)": choosing.by_gradients,
    "random": choosing.at_random,
}


@dataclass(frozen=True)
class Guide:
    """Features and labels of a drawn guide: those to choose from, and those that the error is measured on."""

    pool_ND: np.ndarray
    pool_N: np.ndarray
    test_ND: np.ndarray
    test_N: np.ndarray


def run(quick: bool = False) -> list[Row]:
    """Return a row for each guide and way of choosing."""
    rows = []
    for name, (species, photos) in ({"6 species": (6, 72)} if quick else GUIDES).items():
        guide = drawn(species, photos, "shufflenet_v2_x0_5" if quick else "tf_efficientnet_lite0")
        rounds, seeds = (2, 1) if quick else (ROUNDS, SEEDS)
        errors = {
            way: np.mean([curve(guide, way, rounds, seed) for seed in range(seeds)], axis=0) for way in WAYS
        }
        rows += [_row(name, way, errors) for way in WAYS if way != "random"]
    return rows


def drawn(species: int, photos: int, network: str) -> Guide:
    """Draw a field guide and compute the features of its photos."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        synthetic.draw(folder, species=species, photos=photos, seed=7)
        weights = "random" if network.startswith("shuffle") else "pretrained"
        backbone = load(network, weights=weights)
        pool = _part(folder, backbone, ("train2019.json", "val2019.json"))
        test = _part(folder, backbone, ("test2019.json", "answers.json"))
    return Guide(*pool, *test)


def _part(folder: Path, backbone: Backbone, files: tuple[str, str]) -> tuple[np.ndarray, np.ndarray]:
    documents = [io.read_json(folder / file) for file in files]
    label = {a["image_id"]: a["category_id"] for each in documents for a in each.get("annotations", ())}
    photos = [each for document in documents for each in document.get("images", ())]
    engine = runtime.engine(backbone, "onnxruntime")
    found, labels = [], []
    for start in range(0, len(photos), 32):
        crops = []
        for each in photos[start : start + 32]:
            try:
                crops.append(streaming.crops_of(folder / each["file_name"], (PAPER_CROP,))[0])
            except ImageRejected:
                continue
            labels.append(label[each["id"]])
        found.append(engine(np.stack(crops)))
    return np.concatenate(found), np.array(labels)


def curve(guide: Guide, way: str, rounds: int, seed: int) -> list[float]:
    """Return the error on the test photos at the start and after each round."""
    rng = np.random.default_rng(seed)
    labelled: list[int] = []
    for each in np.unique(guide.pool_N):
        labelled += rng.permutation(np.flatnonzero(guide.pool_N == each))[:START].tolist()
    errors = []
    for number in range(rounds + 1):
        head = FeatureClassifier(seed=seed).fit(guide.pool_ND[labelled], guide.pool_N[labelled])
        errors.append(float((head.predict(guide.test_ND) != guide.test_N).mean()))
        left = np.setdiff1d(np.arange(len(guide.pool_N)), labelled)
        if number < rounds and len(left):
            p_NC = head.predict_proba(guide.pool_ND[left])
            chosen = WAYS[way](p_NC, guide.pool_ND[left], AT_ONCE, seed * 1000 + number)
            labelled += left[chosen].tolist()
    return errors


def labels_for(errors: np.ndarray, goal: float) -> float:
    """Return after how many labels an error was reached, between two rounds by a straight line.

    An error that falls below the goal and rises again counts from the last time that it was above.
    """
    above = np.flatnonzero(errors > goal)
    if not len(above):
        return 0.0
    last = int(above[-1])
    if last + 1 == len(errors):
        return float("inf")
    share = (errors[last] - goal) / max(errors[last] - errors[last + 1], 1e-12)
    return float(AT_ONCE * (last + share))


def _row(guide: str, way: str, errors: dict[str, np.ndarray]) -> Row:
    ours, random = errors[way], errors["random"]
    needed, all_labels = labels_for(ours, float(random[-1])), float(AT_ONCE * (len(random) - 1))
    reached = np.isfinite(needed)
    ratio = all_labels / max(needed, 1.0) if reached else float(random[-1] / ours[-1])
    mean = f"mean error over all rounds {ours.mean():.3f}, random {random.mean():.3f}"
    note = f"error at the end {ours[-1]:.3f}, random {random[-1]:.3f}; {mean}"
    note += "" if reached else "; not reached: the ratio is that of the errors at the end"
    more = {"error": float(ours[-1]), "random": float(random[-1])}
    more |= {"mean_error": float(ours.mean()), "mean_random": float(random.mean())}
    shown = needed if reached else all_labels
    what = f"{guide}, by {way}: labels for random's error"
    return Row(
        *(what, "labels", shown, all_labels, "random choice", ratio, ratio, ratio, common.EXACT),
        note=note,
        more=more,
    )
