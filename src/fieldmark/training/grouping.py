"""Group photos that belong together, before they are divided: bursts and near-duplicates.

Frames of a burst, and copies of a photo, are no independent photos: with one to learn from and one to
measure on, the error looks too small. Groups that the source names (sequences, observations) stay.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import pairwise

import numpy as np
import polars as pl

from fieldmark.data import images
from fieldmark.data.events import number_events, seconds_of, shots_of
from fieldmark.data.photos import PhotoFile, PhotoTable
from fieldmark.data.storage import places
from fieldmark.data.subset import LabelledPhotos
from fieldmark.features import image_stats
from fieldmark.features.cache import Features
from fieldmark.features.hamming_search import components
from fieldmark.inference.classifier.ood import unit
from fieldmark.utils.typing import IntArray

logger = logging.getLogger(__name__)

_RADIUS = 13  # largest Hamming distance of the hashes of near-duplicates, of 64 bits
_MIRRORED = np.uint64(0xAAAAAAAAAAAAAAAA)  # bits of the hash that change sign when a photo is mirrored
_SECONDS = 10.0  # between two frames of a burst
_CANDIDATE, _SAME = 0.9, 0.985  # cosines: of photos whose hashes are compared; of photos that are the same
_NEAREST = 8  # photos of its class that a photo is compared with
_BLOCK = 1024


def grouped(table: PhotoTable, photos: LabelledPhotos, features: Features | None) -> PhotoTable:
    """Return the table with photos of one burst and near-duplicates in one group.

    Only photos with the same label are compared.

    Args:
        table: the photos.
        photos: those with a label, N of them.
        features: of the same photos, in the same order; None: near-duplicates are not looked for.
    """
    bursts = _bursts(photos)
    copies = _pairs([]) if features is None else _near_duplicates(photos, features)
    copies = _of_other_visits(table, photos, copies)
    if not len(bursts) + len(copies):
        return table
    named: dict[str, int] = {}
    own = [(named.setdefault(g, n), n) for n, g in enumerate(photos.groups) if g is not None]
    first_N = components(len(photos), np.concatenate([_pairs(own), bursts, copies]))
    name: dict[int, str] = {}
    for number, group in enumerate(photos.groups):
        if group is not None:
            name.setdefault(int(first_N[number]), group)
    size_N = np.bincount(first_N, minlength=len(photos))
    groups = {
        photo_id: name.get(first, f"like {photos.ids[first]}")
        for photo_id, first in zip(photos.ids, first_N.tolist(), strict=True)
        if size_N[first] > 1
    }
    added = sum(
        group is None and each in groups for each, group in zip(photos.ids, photos.groups, strict=True)
    )
    if added:
        logger.info(
            f"{added:,} photos belong to a burst or are near-duplicates of others of their class ("
            f"{len(bursts):,} pairs by time and camera, {len(copies):,} by their look): a group is not "
            "divided (--groups none: it is)."
        )
    new = pl.DataFrame(
        {"id": list(groups), "together": list(groups.values())}, schema_overrides={"id": pl.String}
    )
    frame = table.frame.join(new, on="id", how="left", maintain_order="left")
    frame = frame.with_columns(group=pl.coalesce("together", "group")).drop("together")
    return table.with_frame(frame)


def _of_other_visits(table: PhotoTable, photos: LabelledPhotos, pairs: IntArray) -> IntArray:
    """Leave out pairs of one place and of different events: a fixed camera always sees the same background.

    Otherwise all photos of a species at a station would be one group.
    """
    shots = shots_of(table, photos.ids)
    known_N = np.array(
        [shot.place is not None and bool(shot.sequence or seconds_of(shot.taken)) for shot in shots]
    )
    place = {name: at for at, name in enumerate(dict.fromkeys(shot.place for shot in shots))}
    place_N = np.array([place[shot.place] for shot in shots], np.int64)
    event_N = np.array(number_events(shots), np.int64)
    one, other = pairs.T
    both = known_N[one] & known_N[other] & (place_N[one] == place_N[other])
    kept: IntArray = pairs[~(both & (event_N[one] != event_N[other]))]
    return kept


def _pairs(pairs: Sequence[tuple[int, int]]) -> IntArray:
    return np.array(pairs, np.int64).reshape(-1, 2)


def _by_class(photos: LabelledPhotos) -> Iterator[IntArray]:
    """The numbers of the photos of each class."""
    taxa = np.array(photos.taxon_ids)
    order = np.argsort(taxa, kind="stable")
    yield from np.split(order, np.flatnonzero(taxa[order][1:] != taxa[order][:-1]) + 1)


def _bursts(photos: LabelledPhotos) -> IntArray:
    """Pairs of photos of one class and camera, taken within seconds of each other; shape (P, 2)."""
    found: list[tuple[int, int]] = []
    shots = [_shot(file) for file in photos.files]
    for numbers in _by_class(photos):
        taken = sorted((shot, int(number)) for number in numbers if (shot := shots[number]) is not None)
        for ((camera, time), one), ((other, later), two) in pairwise(taken):
            if camera == other and later - time <= _SECONDS:
                found.append((one, two))
    return _pairs(found)


def _shot(file: PhotoFile) -> tuple[str, float] | None:
    """The camera and the time of a photo in seconds; None without EXIF data or where it is not local."""
    if not places.is_local(file.path):
        return None
    found = images.exif_of(file.path)
    if not found.taken:
        return None
    return f"{found.camera_model} {found.camera_serial}", datetime.fromisoformat(found.taken).timestamp()


def _near_duplicates(photos: LabelledPhotos, features: Features) -> IntArray:
    """Pairs of photos of one class whose features and perceptual hashes are nearly the same; shape (P, 2)."""
    parts = [_similar(numbers, features) for numbers in _by_class(photos) if len(numbers) > 1]
    pairs = np.concatenate([pair for pair, _ in parts]) if parts else _pairs([])
    cosines = np.concatenate([cosine for _, cosine in parts]) if parts else np.empty(0, np.float32)
    if not len(pairs):
        return pairs
    numbers, place = np.unique(pairs, return_inverse=True)
    stats = image_stats.compute([photos.files[number] for number in numbers])
    hash_P2 = stats.hash_N[place.reshape(-1, 2)]
    differ = hash_P2[:, 0] ^ hash_P2[:, 1]
    distance = np.minimum(np.bitwise_count(differ), np.bitwise_count(differ ^ _MIRRORED))
    kept: IntArray = pairs[(distance <= _RADIUS) | (cosines >= _SAME)]
    return kept


def _similar(numbers: IntArray, features: Features) -> tuple[IntArray, np.ndarray]:
    """Pairs of some photos with a high cosine, the nearest ones of each; and the cosines."""
    x_MD = unit(features[numbers])
    pairs, cosines = [], []
    for start in range(0, len(numbers), _BLOCK):
        cosine_BM = x_MD[start : start + _BLOCK] @ x_MD.T
        rows_B = np.arange(start, start + len(cosine_BM))
        cosine_BM[np.arange(len(rows_B)), rows_B] = -1
        most = min(_NEAREST, len(numbers) - 1)
        near_BK = np.argpartition(-cosine_BM, most - 1, axis=1)[:, :most]
        near = np.take_along_axis(cosine_BM, near_BK, 1)
        row, column = np.nonzero(near >= _CANDIDATE)
        pairs.append(np.stack([numbers[rows_B[row]], numbers[near_BK[row, column]]], 1))
        cosines.append(near[row, column])
    every, values = np.concatenate(pairs), np.concatenate(cosines)
    every.sort(axis=1)
    unique, first = np.unique(every, axis=0, return_index=True)
    return unique, values[first]
