"""Plan the photos of a field guide: how many of each species, of which animal, in which part."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count

import numpy as np

from fieldmark.data.synthetic.camera import size_of
from fieldmark.data.synthetic.species import Species
from fieldmark.utils import random

_LONGEST_SEQUENCE = 4
_SHARES = {"test": 0.16, "val": 0.1}  # of a species' photos; the rest is for training


@dataclass(frozen=True)
class Frame:
    """One photo to draw."""

    id: int
    name: str  # of the file, without folder and ending
    path: str  # relative to the guide's folder
    species: int
    individual: str
    sequence: str | None  # the `seq_id` of an animal that was photographed several times
    part: str  # train, val or test
    size: tuple[int, int]  # width, height in pixels, after EXIF orientation
    defect: str = ""  # empty, "truncated" or "web page"


def plan(species: tuple[Species, ...], photos: int, seed: int) -> list[Frame]:
    """Plan the photos of a guide, species by species: a pure function of its arguments.

    Every species has photos in all three parts, and no animal is in two of them.
    """
    frames: list[Frame] = []
    sequences = count()
    numbers = counts(len(species), photos, seed)
    second, first = np.argsort(numbers, kind="stable")[-2:]
    defects = {int(first): "truncated", int(second): "web page"}
    for kind, number in zip(species, numbers, strict=True):
        drawn: dict[str, int] = {"test": 0, "val": 0, "train": 0}
        for animal, shots in enumerate(_animals(number, seed, kind.id)):
            part = _part(drawn, number)
            drawn[part] += shots
            sequence = str(next(sequences)) if shots > 1 else None
            folder = "test2019" if part == "test" else f"train_val2019/{kind.supercategory}/{kind.id}"
            individual = f"{kind.id}/{animal}"
            for shot in range(shots):
                name = f"{random.hash64(f'{individual}/{shot}', 'photo', seed):016x}"
                path, size = f"{folder}/{name}.jpg", size_of(seed, name)
                defect = defects.pop(kind.id, "") if part == "train" else ""
                frames.append(
                    Frame(len(frames), name, path, kind.id, individual, sequence, part, size, defect)
                )
    return frames


def counts(species: int, photos: int, seed: int) -> list[int]:
    """Return the number of photos of each species: a long tail with sum `photos` and minimum 6."""
    tail = np.geomspace(1, 0.06, species) - 0.06
    share = (photos - 6 * species) * tail / tail.sum()
    number = np.floor(share).astype(int) + 6
    rest = photos - int(number.sum())
    number[np.argsort(np.floor(share) - share)[:rest]] += 1
    ranks = random.order([str(i) for i in range(species)], "rarity", seed)
    return [int(number[rank]) for rank in np.argsort(ranks)]


def _animals(photos: int, seed: int, species: int) -> list[int]:
    """Return the number of photos of each animal of a species, in ascending order."""
    rng = random.generator(seed, "animals", species)
    shots: list[int] = []
    while sum(shots) < photos:
        wanted = int(rng.integers(2, _LONGEST_SEQUENCE + 1)) if rng.random() < 0.12 else 1
        shots.append(min(wanted, photos - sum(shots)))
    while len(shots) < 4:  # an animal for each part, and one more for training
        longest = int(np.argmax(shots))
        shots[longest] -= 1
        shots.append(1)
    return sorted(shots)


def _part(drawn: dict[str, int], photos: int) -> str:
    """Return the part of the next animal: test and val first, with at least one animal each."""
    wanted = (part for part, share in _SHARES.items() if drawn[part] < max(1, round(share * photos)))
    return next(wanted, "train")
