"""The commands whose writes are made to fail, on a few drawn photos."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NETWORK = "test_efficientnet"  # of timm, 356,000 weights: the same writes as any other in less time
TRAIN = (
    *("--backbone", NETWORK, "--weights", "random", "--engine", "torch"),
    *("--groups", "none", "--holdout", "--epochs", "3"),
)
RECIPE = '''
from fieldmark.experiments.recipes import Recipe, Run

def recipe(options):
    """Two heads."""
    network = "test_efficientnet"
    runs = (Run("a", "Two", network, epochs=2), Run("b", "Three", network, epochs=3))
    return Recipe("mine", "Two heads", runs)
'''


@dataclass(frozen=True)
class Command:
    """A command, run in a folder that has what the commands in `after` left."""

    name: str
    argv: tuple[str, ...]
    out: str  # what it writes
    after: tuple[str, ...] = ()


COMMANDS = (
    Command("index", ("index", "photos", "--out", "photos.parquet"), "photos.parquet"),
    Command("extract", ("extract", "photos", *TRAIN[:6]), "cache"),
    Command("train", ("train", "photos", "--out", "model", *TRAIN), "model"),
    Command("retrain", ("train", "photos", "--out", "model", "--seed", "1", *TRAIN), "model", ("train",)),
    Command("grow", ("grow", "model", "more", "--out", "grown", "--engine", "torch"), "grown", ("train",)),
    Command("check", ("check", "photos", "--out", "checked", "--engine", "torch", *TRAIN[:4]), "checked"),
    Command(
        "predict",
        ("predict", "model", "more", "--out", "names.csv", "--engine", "torch"),
        "names.csv",
        ("train",),
    ),
    Command("export", ("export", "model", "--onnx", "model.onnx"), "model.onnx", ("train",)),
    Command(
        "study",
        (
            *("study", "mine.py", "photos", "--out", "study", "--engine", "torch"),
            "--groups",
            "none",
            "--weights-dir",
            "weights",
        ),
        "study",
    ),
    Command(
        "fetch",
        (
            *("fetch", "open-data", "--out", "own", "--taxon", "Parus", "--photos", "3"),
            "--rate",
            "1000",
            "--from",
            "URL",
        ),
        "own",
    ),
)


def prepare(folder: Path, draw: Callable[[int, int], bytes]) -> None:
    """Write photos of three classes, a few more of two, and a recipe of a study."""
    for root, first, count in (("photos", 0, 8), ("more", 20, 3)):
        for label, name in enumerate(("Apis mellifera", "Bombus terrestris", "Danaus plexippus")):
            (folder / root / name).mkdir(parents=True)
            for number in range(first, first + count):
                (folder / root / name / f"{number:02}.jpg").write_bytes(draw(label, number))
    from safetensors.torch import save_file

    from fieldmark import models

    (folder / "mine.py").write_text(RECIPE)
    (folder / "weights").mkdir()
    random = models.load(NETWORK, weights="random", seed=7).network.state_dict()
    save_file(random, folder / "weights" / f"{NETWORK}.safetensors")
    (folder / "tmp").mkdir()


def publish(folder: Path, draw: Callable[[int, int], bytes]) -> None:
    """Write the tables and photos of a tiny iNaturalist Open Data, to be served from a folder."""
    taxa = [("1", "", "kingdom", "Animalia"), ("3", "1", "genus", "Parus")]
    taxa += [("4", "1/3", "species", "Parus major"), ("6", "1/3", "species", "Parus minor")]
    observations, photos = [], []
    for n in range(8):
        observations.append((f"uuid-{n}", n % 3, 50.0, 10.0, 5, (4, 6)[n % 2], "research", "2024-05-01"))
        photos.append((f"p{n}", n, f"uuid-{n}", n % 3, "jpg", "CC0", 9, 9, 0))
        (folder / "photos" / str(n)).mkdir(parents=True)
        (folder / "photos" / str(n) / "medium.jpg").write_bytes(draw(n % 2, n))
    accuracy = "observation_uuid,observer_id,latitude,longitude,positional_accuracy,taxon_id,quality_grade"
    accuracy += ",observed_on"
    sizes = "photo_uuid,photo_id,observation_uuid,observer_id,extension,license,width,height,position"
    tables: dict[str, tuple[str, list[Any]]] = {
        "taxa": ("taxon_id,ancestry,rank,name,active", [(*row, "true") for row in taxa]),
        "observations": (accuracy, observations),
        "photos": (sizes, photos),
        "observers": ("observer_id,login,name", [(n, f"o{n}", "") for n in range(3)]),
    }
    for name, (header, rows) in tables.items():
        lines = [header.split(","), *rows]
        text = "".join("\t".join(map(str, line)) + "\n" for line in lines)
        (folder / f"{name}.csv.gz").write_bytes(gzip.compress(text.encode(), mtime=0))


# Results


def loads(path: Path) -> str:
    """Why an output is not whole; nothing if it is, or is not there."""
    from fieldmark.data import readers
    from fieldmark.inference.classifier import Classifier

    try:
        if not path.exists():
            return ""
        if (path / "classifier.json").exists():
            Classifier.load(path)
        elif path.suffix == ".parquet":
            readers.read(path)
        elif path.suffix == ".onnx":
            import onnx

            onnx.checker.check_model(onnx.load(path))
        elif path.is_dir() and path.name != "cache":
            for each in path.rglob("*.json"):
                json.loads(each.read_text())
    except Exception as error:
        return f"{path.name} is not whole: {error!r}"
    return ""


def copy(template: Path, folder: Path) -> None:
    """Make the folder of a run anew, with the same bytes and times."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(template, folder, symlinks=True)
