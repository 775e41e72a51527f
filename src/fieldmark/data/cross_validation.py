"""Every photo measured by a head that was not trained on it: training and validation photos in folds.

A head on cached features costs seconds, so one can be trained for each fold. This measures ten times as
many photos as the validation part has, as needed for classes with few photos. The test part stays out.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from fieldmark.data.photos import PhotoTable
from fieldmark.data.subset import LabelledPhotos
from fieldmark.utils.random import order
from fieldmark.utils.typing import BoolArray, IntArray

FOLDS = 5


def together(first: LabelledPhotos, second: LabelledPhotos) -> LabelledPhotos:
    """The photos of two parts, one after the other."""
    names = (each.name for each in fields(first))
    return LabelledPhotos(**{name: getattr(first, name) + getattr(second, name) for name in names})


def placed(photos: LabelledPhotos, table: PhotoTable) -> tuple[LabelledPhotos, LabelledPhotos]:
    """Return those at a known location, of classes at two locations or more; and the same, whose groups
    are the locations."""
    location = dict(table.frame.select("id", "location").iter_rows())
    of_N = [location.get(photo_id) for photo_id in photos.ids]
    at: dict[str, set[str]] = {}
    for taxon_id, place in zip(photos.taxon_ids, of_N, strict=True):
        at.setdefault(taxon_id, set()).update([place] if place is not None else [])
    pairs = zip(photos.taxon_ids, of_N, strict=True)
    keep_N = np.array([place is not None and len(at[taxon_id]) > 1 for taxon_id, place in pairs], np.bool_)
    by_place = replace(photos, groups=tuple(of_N))
    return photos.where(keep_N), by_place.where(keep_N)


def folds(photos: LabelledPhotos, count: int, seed: int) -> IntArray:
    """The fold of each photo, shape (N,), by ids, groups and seed: classes spread evenly, no group torn."""
    units = _units(photos)
    names = list(units)
    drawn = [units[names[at]] for at in order(names, "folds", seed)]
    found = np.zeros(len(photos), np.int64)
    # It goes on from class to class, so that small classes do not all lie in the first folds.
    for place, numbers in enumerate(sorted(drawn, key=lambda numbers: photos.taxon_ids[numbers[0]])):
        found[numbers] = place % count
    return found


def _units(photos: LabelledPhotos) -> dict[str, list[int]]:
    """The numbers of the photos that must stay together: those of a group, or one that stands alone."""
    units: dict[str, list[int]] = {}
    for number, (photo_id, group) in enumerate(zip(photos.ids, photos.groups, strict=True)):
        units.setdefault(f"photo {photo_id}" if group is None else f"group {group}", []).append(number)
    return units


def spared(photos: LabelledPhotos, aside_N: BoolArray, learn_N: BoolArray) -> BoolArray:
    """Which of the photos that were to be put aside (`aside_N`) are, shape (N,).

    Those of a class without a photo to learn from (`learn_N`) are not, with all of their group: it would
    be closed for good, and nothing could be chosen or measured by it.
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
