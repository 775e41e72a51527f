"""How well photos of none of the classes are told, measured with classes held out."""

from __future__ import annotations

from typing import Any

import numpy as np

from fieldmark.data.subset import DataSplits
from fieldmark.evaluation import calibration, metrics
from fieldmark.features.extractor import FeatureExtractor
from fieldmark.features.labelled import LabelledFeatures
from fieldmark.heads import ridge, sampled_softmax
from fieldmark.heads.base import LinearHead
from fieldmark.heads.default import fit_best
from fieldmark.models import Backbone
from fieldmark.training.config import TrainConfig
from fieldmark.utils.random import order
from fieldmark.utils.typing import FloatArray

KNOWN_RECALL = 0.95
"""The share of photos of the classes that are not to be called unknown."""


def unknown(extractor: FeatureExtractor, backbone: Backbone, parts: DataSplits, config: TrainConfig) -> Any:
    """How well photos of none of the classes are told: a tenth of the classes is held out, another
    last layer is trained on the others, and the scores of both kinds of photos are compared.

    Args:
        bench, backbone, parts, config: as for the classifier.

    Returns:
        `held_out` (taxon ids), `known` and `unknown` (photos), and for `energy`, `confidence` (the
        first probability) and `neighbour` (the cosine to the nearest training photo) the `auroc` and
        `fpr95`. None where there is too little to measure, or where the network itself was trained
        on all classes, so that none was held out of it.
    """
    drawn = order(parts.classes, "unknown", config.seed)[: max(1, len(parts.classes) // 10)]
    held = {parts.classes[number] for number in drawn}
    rest = tuple(taxon_id for taxon_id in parts.classes if taxon_id not in held)
    if config.transfer != "last" or len(rest) < 2:
        return None
    train, val, test = (
        extractor.features(backbone, photos, rest) for photos in (parts.train, parts.val, parts.test)
    )
    learn, check = train.where(train.labels >= 0), val.where(val.labels >= 0)
    head = _last_layer(learn, check, len(rest), config)
    temperature = calibration.fit_temperature(head.logits_of(check.features), check.labels)

    # The photos of the held-out classes were kept from this head in all parts.
    known = _some(test.where(test.labels >= 0), config.seed)
    strange = []
    for photos, found in ((parts.train, train), (parts.val, val), (parts.test, test)):
        strange.append(found.where(np.array([each in held for each in photos.taxon_ids], np.bool_)))
    others = [_some(each, config.seed) for each in strange]
    if not len(known) or not sum(map(len, others)):
        return None

    def scores(photos: LabelledFeatures) -> dict[str, FloatArray]:
        logits = head.logits_of(photos.features) / np.float32(temperature)
        return {
            "energy": calibration.energy(logits),
            "confidence": metrics.confidence(logits).astype(np.float32),
            "neighbour": _nearest(photos, learn),
        }

    of_known, of_others = scores(known), [scores(each) for each in others if len(each)]
    measured: dict[str, Any] = {
        "held_out": sorted(held),
        "known": len(known),
        "unknown": sum(map(len, others)),
    }
    for name, inside in of_known.items():
        outside = np.concatenate([each[name] for each in of_others])
        measured[name] = {
            "auroc": metrics.auroc(inside, outside),
            "fpr95": metrics.false_positive_rate(inside, outside, KNOWN_RECALL),
        }
    return measured


def _last_layer(
    learn: LabelledFeatures, check: LabelledFeatures, classes: int, config: TrainConfig
) -> LinearHead:
    """Learned as the classifier's; of very many classes, where that takes long, in closed form."""
    if config.head == "sampled" or classes >= sampled_softmax.MANY:
        return ridge.fit(learn, check, classes).head
    fits = fit_best(learn, check, classes, seed=config.seed, epochs=config.epochs, kind=config.head)
    return fits[0].head


def _some(photos: LabelledFeatures, seed: int) -> LabelledFeatures:
    """At most 2,000 of the photos, drawn by their ids: enough for a rate."""
    keep = np.zeros(len(photos), np.bool_)
    keep[order(photos.ids, "unknown", seed)[:2000]] = True
    return photos.where(keep)


def _nearest(photos: LabelledFeatures, among: LabelledFeatures) -> FloatArray:
    """The cosine of each photo to the most similar of others, shape (N,)."""

    def unit(x_ND: FloatArray) -> FloatArray:
        length = np.linalg.norm(x_ND, axis=1, keepdims=True)
        return np.asarray(x_ND / np.maximum(length, np.float32(1e-12)), np.float32)

    best = np.full(len(photos), -1, np.float32)
    own = [(start, unit(x_BD)) for start, x_BD in photos.features.blocks()]
    for _, x_BD in among.features.blocks():
        others = unit(x_BD).T
        for start, mine in own:
            span = slice(start, start + len(mine))
            best[span] = np.maximum(best[span], (mine @ others).max(axis=1))
    return best
