"""A candidate, which is a network with a view of the photos, and the result of a trial."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fieldmark import models
from fieldmark.data import cross_validation
from fieldmark.data.subset import DataSplits, LabelledPhotos
from fieldmark.data.transforms import Preprocess, ResizeMode
from fieldmark.evaluation import calibration, metrics
from fieldmark.features.extractor import FeatureExtractor, View
from fieldmark.heads.base import LinearHead
from fieldmark.inference.classifier import name_of
from fieldmark.models import Backbone
from fieldmark.utils.errors import InputError
from fieldmark.utils.typing import BoolArray, FloatArray, IntArray

logger = logging.getLogger(__name__)

LARGER = 9 / 7
"""The side of larger crops as a multiple of the network's own: 288 for 224."""


@dataclass(frozen=True)
class Candidate:
    """One network and one view of a photo.

    Attributes:
        backbone: the network, with its own crop size or a larger one.
        extractor: computes and caches the features of the view.
        plain: whether this is the network's usual crop: what the recipes of fine-tuning were made for.
    """

    backbone: Backbone
    extractor: FeatureExtractor
    plain: bool = False

    @property
    def view(self) -> Preprocess:
        """The preprocessing from a photo to the network's crop."""
        return self.extractor.crop_for(self.backbone)

    @property
    def name(self) -> str:
        """Its name on a page."""
        facts = self.backbone.architecture
        return name_of(facts.name, self.view, facts.input_size if self.backbone.native else None)


@dataclass(frozen=True)
class TrialResult:
    """A trained candidate, measured on photos that it was not trained on.

    Attributes:
        candidate: the network and the view.
        note: the way of training, added to the candidate's name; "" for the default.
        head: the final last layer.
        logits_NC: out-of-fold predictions of the photos that it is measured on.
        temperature: fitted on them.
        loss, error: of the calibrated scores on them.
        seconds: the time it took here; cached results take none.
        rows_N: the rows of the training and validation photos that it is measured on; None: all.
        variant: whether it is another last layer for the same features, beside the usual two: the plain
            mean of an ensemble counts each view once, and so leaves these out.
        refit: fits the last layer in the same way on other photos; None where the network was trained too.
    """

    candidate: Candidate
    note: str
    head: LinearHead
    logits_NC: FloatArray
    temperature: float
    loss: float
    error: float
    seconds: float = 0.0
    rows_N: BoolArray | None = None
    variant: bool = False
    refit: Callable[[LabelledPhotos], LinearHead] | None = None

    @classmethod
    def of(
        cls,
        candidate: Candidate,
        note: str,
        head: LinearHead,
        logits_NC: FloatArray,
        labels_N: IntArray,
        **more: Any,
    ) -> TrialResult:
        """Fit the temperature, and measure on photos with the labels `labels_N`."""
        known = labels_N >= 0
        temperature = calibration.fit_temperature(logits_NC, labels_N)
        scaled, labels = logits_NC[known] / np.float32(temperature), labels_N[known]
        loss = metrics.negative_log_likelihood(scaled, labels)
        error = metrics.top_k_error(scaled, labels)
        return cls(candidate, note, head, logits_NC, temperature, loss, error, **more)

    @property
    def name(self) -> str:
        """Its name on a page."""
        return f"{self.candidate.name}, {self.note}" if self.note else self.candidate.name

    def fit_on(self, photos: LabelledPhotos) -> LinearHead:
        """Return the last layer fitted on other photos; of a fine-tuned network the one that it has."""
        return self.refit(photos) if self.refit else self.head

    def log_p(self, keep_N: BoolArray | None = None) -> npt.NDArray[np.floating[Any]]:
        """Return calibrated log-probabilities, shape (N, C), of its photos or of some of them."""
        logits_NC = self.logits_NC if keep_N is None else self.logits_NC[keep_N]
        return metrics.log_softmax(logits_NC / np.float32(self.temperature))


def training_and_validation(parts: DataSplits) -> LabelledPhotos:
    """Return the training and validation photos together."""
    return cross_validation.together(parts.train, parts.val)


def candidates(
    networks: Sequence[Backbone], extractor: FeatureExtractor, *, all_views: bool, sides: Sequence[int] = ()
) -> list[Candidate]:
    """List the candidates, cheap and promising ones first.

    Args:
        networks: the networks, the default first.
        extractor: computes their features.
        all_views: also try larger crops, central crops (or whole photos, where central ones are usual) and
            mirrored photos; crops of another kind or size only where the user chose none.
        sides: further sides of the crops in pixels, where the user chose several.
    """
    usual = extractor.preprocess
    chosen = isinstance(usual, View) and usual.fit is not None

    def view_of(network: Backbone, view: Preprocess | View = usual, **plain: bool) -> Candidate:
        return Candidate(network, extractor.with_view(view), **plain)

    plain = [view_of(each, plain=True) for each in networks]
    if not all_views:
        return plain
    resized = [list(_at(each, sides) if sides else _larger(each)) for each in networks]
    first = networks[0] if sides else next(iter(resized[0]), networks[0])
    other: ResizeMode = "squash" if extractor.crop_for(first).fit == "crop" else "crop"
    others = [] if chosen else [replace(usual, fit=other)]
    return [
        plain[0],
        *(view_of(each) for each in resized[0]),
        *(view_of(first, each) for each in others),
        *plain[1:],
        *(view_of(first, replace(each, flip=True)) for each in (usual, *others)),
        *(view_of(each) for others_of in resized[1:] for each in others_of),
    ]


def _larger(backbone: Backbone) -> Iterator[Backbone]:
    """The network for larger crops, in steps of 32 pixels; none where its size is fixed or chosen."""
    if backbone.native is None:
        with suppress(InputError):
            yield backbone.at(32 * round(LARGER * backbone.architecture.input_size / 32))


def _at(backbone: Backbone, sides: Sequence[int]) -> Iterator[Backbone]:
    """The network for crops of each side that it takes."""
    for side in sides:
        try:
            yield backbone.at(side)
        except InputError as error:
            logger.info(f"{backbone.architecture.name} is not tried with crops of {side} pixels: {error}")


def load_all(names: Sequence[str], weights_dir: Any, seed: int, size: int | None) -> list[Backbone]:
    """Load the networks with their pretrained weights, and log which these are, and their licences."""
    networks = [models.load(name, weights_dir=weights_dir, seed=seed, size=size) for name in names]
    for network in networks:
        logger.info(f"Network: {network.summary}")
    return networks
