"""Classifier: members, taxonomy, calibration and provenance, in one folder (see `folder`)."""

from __future__ import annotations

from fieldmark.inference.classifier.answers import Answer, HigherTaxon, Prediction, Source
from fieldmark.inference.classifier.ensemble_member import Member, Network, name_of
from fieldmark.inference.classifier.folder import FORMAT
from fieldmark.inference.classifier.model import Classifier
from fieldmark.inference.classifier.streaming import Crops, OnError, Photo, stacked

__all__ = [
    "FORMAT",
    "Answer",
    "Classifier",
    "Crops",
    "HigherTaxon",
    "Member",
    "Network",
    "OnError",
    "Photo",
    "Prediction",
    "Source",
    "name_of",
    "stacked",
]
