"""A network and how it sees photos, and what came of one that was tried."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fieldmark import models
from fieldmark.data import cross_validation
from fieldmark.data.subset import DataSplits, LabelledPhotos
from fieldmark.data.transforms import FitMode, Preprocess
from fieldmark.evaluation import calibration, metrics
from fieldmark.features.extractor import FeatureExtractor
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
        backbone: the network, on its own side or a larger one.
        bench: where the features of the view are kept.
    """

    backbone: Backbone
    extractor: FeatureExtractor

    @property
    def view(self) -> Preprocess:
        """From a photo to the crop that the network sees."""
        return self.extractor.crop_for(self.backbone)

    @property
    def name(self) -> str:
        """What it is called on a page."""
        facts = self.backbone.architecture
        return name_of(facts.name, self.view, facts.input_size if self.backbone.native else None)


@dataclass(frozen=True)
class TrialResult:
    """A candidate that was learned.

    Attributes:
        candidate: which.
        note: what is told of how it was learned, beside the candidate's name; "" for the default.
        head: the last layer that is kept in the end.
        logits_NC: of the photos that it is measured on, each by a head or a network that never saw it.
        temperature: fitted on them.
        loss, error: of the calibrated scores on them.
        seconds: what it took here; what was kept from before costs none.
        rows_N: which of the training and validation photos it is measured on, shape (all of them,);
            None: on all.
        variant: whether it is another layer on what a candidate sees, beside the usual two: an
            ensemble by the plain mean counts each view alike, and so leaves these out.
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
        """With its temperature, and measured on photos of the classes `labels_N`."""
        known = labels_N >= 0
        temperature = calibration.fit_temperature(logits_NC, labels_N)
        scaled, labels = logits_NC[known] / np.float32(temperature), labels_N[known]
        loss = metrics.negative_log_likelihood(scaled, labels)
        error = metrics.top_k_error(scaled, labels)
        return cls(candidate, note, head, logits_NC, temperature, loss, error, **more)

    @property
    def name(self) -> str:
        """What it is called on a page."""
        return f"{self.candidate.name}, {self.note}" if self.note else self.candidate.name

    def log_p(self, keep_N: BoolArray | None = None) -> npt.NDArray[np.floating[Any]]:
        """Its calibrated log-probabilities, shape (N, C), of its photos or of some of them."""
        logits_NC = self.logits_NC if keep_N is None else self.logits_NC[keep_N]
        return metrics.log_softmax(logits_NC / np.float32(self.temperature))


def training_and_validation(parts: DataSplits) -> LabelledPhotos:
    """The photos that are learned from and chosen by: all but the test part."""
    return cross_validation.together(parts.train, parts.val)


def candidates(
    networks: Sequence[Backbone], extractor: FeatureExtractor, *, all_views: bool
) -> list[Candidate]:
    """The networks as they are; with `all_views` larger crops, centres and mirrored photos as well.

    Cheap and promising ones first: each network on its own side after two larger views of the first.
    """

    def seen(by: Backbone, fit: FitMode = "squash", *, flip: bool = False) -> Candidate:
        view = replace(extractor.preprocess, fit=fit, flip=flip)
        return Candidate(by, extractor.with_view(view))

    plain = [seen(each) for each in networks]
    if not all_views:
        return plain
    large = [_larger(each) for each in networks]
    first = large[0] or networks[0]
    wanted = [plain[0], *([seen(first)] if large[0] else []), seen(first, "crop"), *plain[1:]]
    wanted += [seen(first, flip=True), seen(first, "crop", flip=True)]
    wanted += [seen(each) for each in large[1:] if each]
    return wanted


def _larger(backbone: Backbone) -> Backbone | None:
    """The network on larger crops, in steps of 32 pixels; None where it cannot see them."""
    side = 32 * round(LARGER * backbone.architecture.input_size / 32)
    try:
        return backbone.at(side)
    except InputError:
        return None


def load_all(names: Sequence[str], weights_dir: Any, seed: int) -> list[Backbone]:
    """The networks with their pretrained weights; what they are is said."""
    found = []
    for name in names:
        found.append(models.load(name, weights_dir=weights_dir, seed=seed))
        logger.info(f"Network: {name}; {found[-1].account.summary}")
    return found
