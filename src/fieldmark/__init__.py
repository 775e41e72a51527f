"""fieldmark: from labelled photos of living things to a species classifier, honestly measured.

The public names are loaded when they are first used, so that the command line starts at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fieldmark.data.photos import PhotoTable
    from fieldmark.data.split import Split
    from fieldmark.data.taxonomy import Taxon, Taxonomy
    from fieldmark.evaluation.results import Evaluation
    from fieldmark.inference.classifier import Answer, Classifier, Prediction
    from fieldmark.utils.errors import ClassifierError, FieldmarkError, ImageRejected, InputError

__version__ = "0.1.0"

_HOME = {
    "Answer": "classifier",
    "Classifier": "classifier",
    "ClassifierError": "errors",
    "Evaluation": "evaluate",
    "FieldmarkError": "errors",
    "ImageRejected": "errors",
    "InputError": "errors",
    "PhotoTable": "photos",
    "Prediction": "classifier",
    "Split": "split",
    "Taxon": "taxonomy",
    "Taxonomy": "taxonomy",
}

__all__ = [
    "Answer",
    "Classifier",
    "ClassifierError",
    "Evaluation",
    "FieldmarkError",
    "ImageRejected",
    "InputError",
    "PhotoTable",
    "Prediction",
    "Split",
    "Taxon",
    "Taxonomy",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"fieldmark.{_HOME[name]}"), name)
    raise AttributeError(f"module 'fieldmark' has no attribute {name!r}")
