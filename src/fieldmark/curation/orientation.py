"""Photos that are rotated by 90 degrees.

Some of the photos are rotated by 0, 90, 180 and 270 degrees, and a head on the network's features is trained
to classify upright, quarter turn and upside down (S. Gidaris, P. Singh and N. Komodakis, "Unsupervised
representation learning by predicting image rotations", 2018). It is applied to the cached features of all
photos. A photo that does not look upright is also measured at the other three angles: a photo with a quarter
turn must look upright or upside down after 90 degrees, and have a quarter turn again after 180.

Left and right are not distinguished, since networks are trained on mirrored photos. Upside down does not
count as rotated: the head confuses it with upright too often.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import islice

import numpy as np

from fieldmark.data.loader import decoded
from fieldmark.data.photos import PhotoFile
from fieldmark.data.transforms import Preprocess
from fieldmark.evaluation import metrics
from fieldmark.features.cache import Features
from fieldmark.features.extraction import BATCH
from fieldmark.features.extractor import FeatureExtractor
from fieldmark.features.labelled import LabelledFeatures
from fieldmark.heads import HEADS
from fieldmark.heads.base import Head
from fieldmark.models import Backbone, runtime
from fieldmark.models.runtime import Engine
from fieldmark.utils.errors import ImageRejected
from fieldmark.utils.logging import progress_bar
from fieldmark.utils.random import order
from fieldmark.utils.typing import FloatArray, IntArray

_TRAINING_PHOTOS = 1000
_MIN_PHOTOS = 100
_MIN_LOG_ODDS = 1.0  # nats at one angle from which on all four are measured
_UPRIGHT, _QUARTER, _DOWN = range(3)
_LABELS = (_UPRIGHT, _QUARTER, _DOWN, _QUARTER)  # after 0, 1, 2, 3 quarter turns


def rotation_log_odds(
    extractor: FeatureExtractor,
    backbone: Backbone,
    photos: Sequence[PhotoFile],
    features: Features,
    seed: int,
) -> FloatArray:
    """Compute the log-odds that each photo has a quarter turn, in nats, summed over four angles; shape (N,).

    They are zero for photos that look upright, and for all if there are fewer than 100 photos. `features`
    are those of the photos as they are; `seed` selects the training photos.
    """
    found_N = np.zeros(len(photos), np.float32)
    keys = [photo.sha256 for photo in photos]
    unique = np.unique(keys, return_index=True)[1]
    if len(unique) < _MIN_PHOTOS:
        return found_N
    chosen = unique[order([keys[at] for at in unique], "sideways", seed)[:_TRAINING_PHOTOS]]
    engine = runtime.engine(backbone, extractor.engine, batch=BATCH)
    views = partial(_views, extractor.crop_for(backbone), engine, photos, features)
    head_N = np.zeros(len(photos), np.int64)  # the head for each photo: not trained on it
    head_N[np.isin(keys, [keys[at] for at in chosen[::2]])] = 1
    for number, half in enumerate((chosen[::2], chosen[1::2])):
        head = _train(views(half), seed)
        rows = np.flatnonzero(head_N == number)
        first = [_log_odds(head, x_BD) for _, x_BD in features.take(rows).blocks()]
        rows = rows[np.concatenate([found_N[:0], *first]) >= _MIN_LOG_ODDS]
        x_N4D = views(rows)
        for turns in range(4):
            found_N[rows] += (-1) ** turns * _log_odds(head, x_N4D[:, turns])
    return found_N


def _train(views_N4D: FloatArray, seed: int) -> Head:
    """Train a head that classifies upright, quarter turn and upside down."""
    x_ND = views_N4D.reshape(4 * len(views_N4D), -1)
    y_N = np.tile(np.array(_LABELS, np.int64), len(views_N4D))
    learn = LabelledFeatures(Features.of(x_ND), y_N, tuple(map(str, range(len(y_N)))))
    return HEADS["ridge"](learn, learn.where(np.zeros(len(y_N), np.bool_)), 3, seed).head


def _log_odds(head: Head, x_ND: FloatArray) -> FloatArray:
    """Compute the log-odds of a quarter turn at one angle, shape (N,)."""
    if not len(x_ND):
        return np.zeros(0, np.float32)
    log_p_NK = metrics.log_softmax(head.logits(x_ND))
    others = np.logaddexp(log_p_NK[:, _UPRIGHT], log_p_NK[:, _DOWN])
    return np.asarray(log_p_NK[:, _QUARTER] - others, np.float32)


def _views(
    crop: Preprocess, engine: Engine, photos: Sequence[PhotoFile], features: Features, rows: IntArray
) -> FloatArray:
    """Compute features of rows after 0, 1, 2, 3 quarter turns, shape (len(rows), 4, D)."""
    found_N4D = np.zeros((len(rows), 4, features.dim), np.float32)
    found_N4D[:, 0] = features[rows]
    crops = enumerate(decoded([photos[at] for at in rows], crop))
    with progress_bar("rotating photos", len(rows)) as bar:
        while chunk := list(islice(crops, BATCH)):
            good = {number: pixels for number, pixels in chunk if not isinstance(pixels, ImageRejected)}
            for turns in (1, 2, 3) if good else ():
                rotated = np.rot90(np.stack(list(good.values())), turns, axes=(1, 2))
                found_N4D[list(good), turns] = engine(np.ascontiguousarray(rotated))
            bar.advance(len(chunk))
    return found_N4D
