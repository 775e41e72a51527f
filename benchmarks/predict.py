"""Measure `fieldmark predict` of a folder, as a whole process: from its start to the file of answers.

The peer is the script that a user of timm writes: a `DataLoader` with one worker per core, the eager
network, and a CSV of the five best classes of each photo. Both use EfficientNet-Lite0 on real photos.

Decoding and the network share the cores, so that the rate is at most `1 / (1 / engine + 1 / decoding)`, both
measured alone in the same round. The note has the share of it that is reached without the start, as it is for
tens of thousands of photos: the rate of the photos that the folder has more than a third of it.
"""

from __future__ import annotations

import itertools
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.cold_start import DECLARE, classifier, process
from benchmarks.common import Row, alternate, compare, rounds, shared
from benchmarks.pipeline import FeatureExtractor
from fieldmark.models import runtime

NETWORK = "tf_efficientnet_lite0"
PHOTOS, FEWEST = 768, 96
ONE, PART, FOLDER = "one photo", "a third of the folder", "the folder"
ENGINE, DECODE, TIMM = "engine", "decoding", "a script with timm"

SCRIPT = """
import csv, os, sys
import timm, torch
from PIL import Image
from safetensors.torch import load_file
from timm.data import create_transform, resolve_data_config
from torch.utils.data import DataLoader, Dataset

class Photos(Dataset):
    def __init__(self, folder, transform):
        self.paths, self.transform = sorted(entry.path for entry in os.scandir(folder)), transform
    def __len__(self):
        return len(self.paths)
    def __getitem__(self, number):
        return self.transform(Image.open(self.paths[number]).convert("RGB"))

model = timm.create_model("tf_efficientnet_lite0", num_classes=100)
model.load_state_dict(load_file(sys.argv[1]))
model.eval()
photos = Photos(sys.argv[2], create_transform(**resolve_data_config({}, model=model)))
with torch.inference_mode(), open(sys.argv[3], "w") as out:
    rows = csv.writer(out)
    at = 0
    for batch in DataLoader(photos, batch_size=32, num_workers=os.cpu_count()):
        for scores, numbers in zip(*model(batch).softmax(1).topk(5)):
            rows.writerow([photos.paths[at], *scores.tolist(), *numbers.tolist()])
            at += 1
"""


def run(quick: bool = False) -> list[Row]:
    """Return a row for each tier in floating point."""
    tiers = [runtime.EXACT, *([runtime.HALF] if runtime.halves() and not quick else [])]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photos = _photos(folder / "photos", FEWEST if quick else PHOTOS)
        weights = classifier(folder / "model")
        return [_row(folder, photos, weights, tier, rounds(quick)) for tier in tiers]


def _photos(folder: Path, count: int) -> list[Path]:
    """Link some real photos of all classes into one folder, and a third of them into `part` beside it."""
    paths = sorted(shared("data", "wild74", "train_val2019").rglob("*.jpg"))
    folder.mkdir()
    part = folder.with_name("part")
    part.mkdir()
    links = [folder / f"{number:05}.jpg" for number in range(count)]
    for number, (link, path) in enumerate(zip(links, paths[:: max(1, len(paths) // count)], strict=False)):
        link.symlink_to(path)
        if number % 3 == 0:
            (part / link.name).symlink_to(path)
    return links


def _row(folder: Path, photos: Sequence[Path], weights: Path, tier: runtime.Tier, count: int) -> Row:
    extractor = FeatureExtractor([NETWORK], len(photos), tier=tier)
    ours = [sys.executable, "-m", "fieldmark", "predict", str(folder / "model"), "--compute", tier.name]
    script = [sys.executable, "-c", DECLARE + SCRIPT, str(weights), str(folder / "photos")]
    outs = (folder / f"{tier.name}{number}.csv" for number in itertools.count())

    def afresh(command: Sequence[str], what: Path | None = None) -> float:
        """Run a command that writes a new file: what is answered already is not computed again."""
        out = str(next(outs))
        return process([*command, out] if what is None else [*command, str(what), "--out", out])()

    values = alternate(
        {
            ONE: lambda: afresh(ours, photos[0]),
            PART: lambda: afresh(ours, folder / "part"),
            FOLDER: lambda: len(photos) / afresh(ours, folder / "photos"),
            TIMM: lambda: len(photos) / afresh(script),
            ENGINE: lambda: extractor.bare([NETWORK]),
            DECODE: lambda: extractor.decode([NETWORK]),
        },
        count,
        warm_up=count > 1,
    )
    share = _share(values, len(photos))
    return compare(
        f"a folder of {len(photos):,} photos, {tier.name}",
        values,
        FOLDER,
        TIMM,
        unit="img/s",
        more_is_better=True,
        note=f"start included; without it {share:.0%} of what engine and decoding allow on these cores",
        more={"share_of_bound": share, "one_photo_s": statistics.median(values[ONE])},
    )


def _share(values: Mapping[str, Sequence[float]], photos: int) -> float:
    """Return the median share of the bound that is reached without the start."""
    rounds_ = zip(*(values[name] for name in (PART, FOLDER, ENGINE, DECODE)), strict=True)
    more = photos - len(range(0, photos, 3))
    shares = [
        more / (photos / folder - part) * (1 / engine + 1 / decode)
        for part, folder, engine, decode in rounds_
    ]
    return statistics.median(shares)
