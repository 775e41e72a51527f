"""Every photo measured by a head that never saw it: the training and validation photos in folds.

A head on kept features costs seconds, so it can be learned once a fold, on all photos outside it. The
rows then speak of ten times as many photos as the validation part has, which is what it takes to say
anything about classes with few photos. The test part stays out of it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from fieldmark.data.subset import LabelledPhotos
from fieldmark.utils.random import order
from fieldmark.utils.typing import BoolArray, IntArray

FOLDS = 5


def together(first: LabelledPhotos, second: LabelledPhotos) -> LabelledPhotos:
    """The photos of two parts, one after the other."""
    both = {each.name: getattr(first, each.name) + getattr(second, each.name) for each in fields(first)}
    return LabelledPhotos(**both)


def folds(photos: LabelledPhotos, count: int, seed: int) -> IntArray:
    """The fold of each photo, shape (N,): each class spread evenly, no group torn.

    It depends on the photos' ids and groups and on the seed alone.
    """
    units = _units(photos)
    names = list(units)
    by_class: dict[str, list[str]] = {}
    for at in order(names, "folds", seed):
        first = units[names[at]][0]
        by_class.setdefault(photos.taxon_ids[first], []).append(names[at])
    found = np.zeros(len(photos), np.int64)
    # It goes on from class to class, so that small classes do not all lie in the first folds.
    place = 0
    for taxon_id in sorted(by_class):
        for name in by_class[taxon_id]:
            found[units[name]] = place % count
            place += 1
    return found


def _units(photos: LabelledPhotos) -> dict[str, list[int]]:
    """The numbers of the photos that must stay together: those of a group, or one that stands alone."""
    units: dict[str, list[int]] = {}
    for number, (photo_id, group) in enumerate(zip(photos.ids, photos.groups, strict=True)):
        units.setdefault(f"photo {photo_id}" if group is None else f"group {group}", []).append(number)
    return units


def spared(photos: LabelledPhotos, aside_N: BoolArray, learn_N: BoolArray) -> BoolArray:
    """Which of the photos that were to be put aside are, shape (N,).

    Those of a class without a photo to learn from are not, with all of their group: it would be closed
    for good, and nothing could be chosen or measured by it.

    Args:
        photos: N of them.
        aside_N: which were to be put aside.
        learn_N: which are learned from.
    """
    learned = {taxon for taxon, learn in zip(photos.taxon_ids, learn_N, strict=True) if learn}
    aside_N = aside_N.copy()
    for numbers in _units(photos).values():
        classes = {photos.taxon_ids[number] for number in numbers}
        if aside_N[numbers[0]] and not classes <= learned:
            aside_N[numbers] = False
            learned |= classes
    return aside_N


def choosing(photos: LabelledPhotos, seed: int, among_N: BoolArray) -> BoolArray:
    """Which tenth of some of the photos is left to choose by, no class as a whole; shape (N,)."""
    tenth_N = folds(photos, 10, seed + 1) == 0
    return spared(photos, among_N & tenth_N, among_N & ~tenth_N)


@dataclass(frozen=True)
class Fold:
    """One fold: which photos are learned from, which choose, which are measured; shape (N,) each."""

    learn: BoolArray
    choose: BoolArray
    measure: BoolArray


def rounds(photos: LabelledPhotos, seed: int, count: int = FOLDS) -> list[Fold]:
    """Each fold measured in turn; a tenth of the photos outside it is left to choose by."""
    outer = folds(photos, count, seed)
    inner = folds(photos, 10, seed + 1)
    found = []
    for number in range(count):
        outside, tenth = outer != number, inner == number
        choose = spared(photos, outside & tenth, outside & ~tenth)
        found.append(Fold(outside & ~choose, choose, ~outside))
    return found
