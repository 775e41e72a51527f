"""Classifier: members, taxonomy, calibration and provenance, in one folder (see `folder`)."""

from __future__ import annotations

from fieldmark.classifier.answers import Answer, Prediction, Source, Wider
from fieldmark.classifier.folder import FORMAT
from fieldmark.classifier.members import Member, Network, name_of
from fieldmark.classifier.model import Classifier, Crops, Photo, stacked

__all__ = [
    "FORMAT",
    "Answer",
    "Classifier",
    "Crops",
    "Member",
    "Network",
    "Photo",
    "Prediction",
    "Source",
    "Wider",
    "name_of",
    "stacked",
]
