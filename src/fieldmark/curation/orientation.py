"""Photos that lie on their side.

Turning a picture by a known angle makes a labelled example of it without a person (S. Gidaris, P.
Singh and N. Komodakis, "Unsupervised representation learning by predicting image rotations", 2018).
Some of the photos are turned four ways, and a head on the network's features learns to tell upright,
sideways and upside down. It is then asked about the features of all photos, which are there already.
A photo that it does not find upright is looked at in all four ways: turned by a quarter, a picture
on its side has to look upright or upside down, and by two quarters sideways again.

Left and right are not told apart: a network that learned from mirrored pictures sees no difference.
Nor is upside down called rotated: half of the time it is taken for upright.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fieldmark.data.loader import decoded
from fieldmark.data.photos import PhotoFile
from fieldmark.evaluation import metrics
from fieldmark.features.cache import Features
from fieldmark.features.extraction import BATCH
from fieldmark.features.extractor import FeatureExtractor
from fieldmark.features.labelled import LabelledFeatures
from fieldmark.heads import HEADS
from fieldmark.heads.base import Head
from fieldmark.models import Backbone, runtime
from fieldmark.utils.errors import ImageRejected
from fieldmark.utils.logging import progress_bar
from fieldmark.utils.random import order
from fieldmark.utils.typing import ByteArray, FloatArray, IntArray

_TAUGHT = 1000  # photos that are turned to learn from
_FEWEST = 100
_ASKED_FROM = 1.0  # nats of one view from which on all four are looked at
_UPRIGHT, _SIDEWAYS, _DOWN = range(3)
_SHOWN = (_UPRIGHT, _SIDEWAYS, _DOWN, _SIDEWAYS)  # by 0, 1, 2, 3 quarters


def sideways(
    extractor: FeatureExtractor,
    backbone: Backbone,
    photos: Sequence[PhotoFile],
    features: Features,
    seed: int,
) -> FloatArray:
    """How much likelier each photo lies on its side than not, in nats over four views; shape (N,).

    Zero for those that look upright at once, and for all of fewer than a hundred photos.

    Args:
        bench: its crop and engine are taken.
        backbone: its features tell.
        photos: N photos that can be decoded.
        features: of those photos as they are.
        seed: of which photos are turned to learn from.
    """
    found_N = np.zeros(len(photos), np.float32)
    keys = [photo.sha256 for photo in photos]
    unique = np.unique(keys, return_index=True)[1]
    if len(unique) < _FEWEST:
        return found_N
    taught = unique[order([keys[at] for at in unique], "sideways", seed)[:_TAUGHT]]
    views = _Views(extractor, backbone)
    side_N = np.zeros(len(photos), np.int64)  # whose head judges: never one that learned from it
    side_N[np.isin(keys, [keys[at] for at in taught[::2]])] = 1
    for side, half in enumerate((taught[::2], taught[1::2])):
        head = _learned(views.of(photos, half, features), seed)
        mine = np.flatnonzero(side_N == side)
        first = np.concatenate(
            [_evidence(head, x_BD) for _, x_BD in features.take(mine).blocks()] or [found_N[:0]]
        )
        asked = mine[first >= _ASKED_FROM]
        seen = views.of(photos, asked, features)
        for way in range(4):
            found_N[asked] += (1, -1, 1, -1)[way] * _evidence(head, seen[:, way])
    return found_N


def _learned(views_N4D: FloatArray, seed: int) -> Head:
    """A head that tells upright, sideways and upside down."""
    x_ND = views_N4D.reshape(4 * len(views_N4D), -1)
    y_N = np.tile(np.array(_SHOWN, np.int64), len(views_N4D))
    learn = LabelledFeatures(Features.of(x_ND), y_N, tuple(map(str, range(len(y_N)))))
    return HEADS["ridge"](learn, learn.where(np.zeros(len(y_N), np.bool_)), 3, seed).head


def _evidence(head: Head, x_ND: FloatArray) -> FloatArray:
    """The log-odds of sideways in one view, shape (N,)."""
    if not len(x_ND):
        return np.zeros(0, np.float32)
    log_p_NK = metrics.log_softmax(head.logits(x_ND))
    others = np.logaddexp(log_p_NK[:, _UPRIGHT], log_p_NK[:, _DOWN])
    return np.asarray(log_p_NK[:, _SIDEWAYS] - others, np.float32)


class _Views:
    """Features of photos turned four ways."""

    def __init__(self, extractor: FeatureExtractor, backbone: Backbone) -> None:
        self.crop = extractor.crop_for(backbone)
        self.engine = runtime.engine(backbone, extractor.engine, batch=BATCH)

    def of(self, photos: Sequence[PhotoFile], rows: IntArray, features: Features) -> FloatArray:
        """By 0, 1, 2, 3 quarters, shape (len(rows), 4, D); the first are there already."""
        found_N4D = np.zeros((len(rows), 4, features.dim), np.float32)
        found_N4D[:, 0] = features[rows]
        pixels = decoded([photos[at] for at in rows], self.crop)
        batch: list[tuple[int, ByteArray]] = []
        with progress_bar("turning pictures", len(rows)) as stage:
            for number, crop in enumerate(pixels):
                if not isinstance(crop, ImageRejected):
                    batch.append((number, crop))
                if len(batch) == BATCH or number == len(rows) - 1:
                    self._turned(batch, found_N4D)
                stage.advance()
        return found_N4D

    def _turned(self, batch: list[tuple[int, ByteArray]], found_N4D: FloatArray) -> None:
        if batch:
            at, crops = [each for each, _ in batch], np.stack([crop for _, crop in batch])
            for way in (1, 2, 3):
                turned = np.ascontiguousarray(np.rot90(crops, way, axes=(1, 2)))
                found_N4D[at, way] = self.engine(turned)
            batch.clear()
