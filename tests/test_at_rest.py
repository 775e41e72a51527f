"""Files that a disk changed: one bit of any file of a classifier is refused in a sentence, or is harmless."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from fieldmark.inference import neighbours
from fieldmark.inference.classifier import Classifier
from fieldmark.inference.classifier.folder import LIMITS, part
from fieldmark.utils.errors import ClassifierError

# How a file is read, and what is read: the same as before for a flip that is not refused.
READ: dict[str, Callable[[Path], object]] = {
    "classifier.json": lambda folder: _all(Classifier.load(folder)),
    "head.safetensors": lambda folder: _all(Classifier.load(folder)),
    "ood.safetensors": lambda folder: _all(Classifier.load(folder)),
    "backbone.safetensors": lambda folder: Classifier.load(folder).lead.network.backbone.key,
    "neighbours.safetensors": lambda folder: bool(neighbours.load_index(Classifier.load(folder))),
    "photos.parquet": lambda folder: _part(folder, "photos.parquet"),
    "split.parquet": lambda folder: _part(folder, "split.parquet"),
    "evaluation.safetensors": lambda folder: _part(folder, "evaluation.safetensors"),
}
COUNT = {"classifier.json": 150, "backbone.safetensors": 6}  # flips: of the others 40
NOT_READ = {"README.md", "report.html", "evaluation.json"}  # they are for people and other programs


def _all(loaded: Classifier) -> object:
    return loaded.digest, loaded.provenance, dict(loaded.files)


def _part(folder: Path, name: str) -> str:
    return part(folder, name, Classifier.load(folder).files).name


def _bits(size: int, count: int) -> Iterator[tuple[int, int]]:
    """Places all over a file, one in each of `count` equal regions, with its first and last byte."""
    for place in np.unique(np.linspace(0, size - 1, min(size, count)).astype(int)).tolist():
        yield place, 1 << place % 8


@pytest.mark.parametrize("name", READ)
def test_a_flipped_bit_is_refused_or_harmless(model: Path, tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(model, tmp_path / "model"))
    path, before = folder / name, READ[name](folder)
    whole, said = path.read_bytes(), []
    for place, bit in _bits(len(whole), COUNT.get(name, 40)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
        try:
            assert READ[name](folder) == before, f"bit {bit} of byte {place} went unnoticed"
        except ClassifierError as error:
            said.append(str(error))
    assert said
    assert all(each.endswith(".") and "\n" not in each for each in said)


def test_every_file_of_a_classifier_is_flipped_somewhere(model: Path) -> None:
    names = {path.name for path in model.iterdir()}
    assert names - NOT_READ == set(READ)
    assert {*LIMITS} & names <= set(READ)
