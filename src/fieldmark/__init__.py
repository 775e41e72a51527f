"""fieldmark: from labelled photos of species to a classifier, with an honest measure of it.

The public names are loaded when they are first used, so that `import fieldmark` is quick. Each is
described in docs/python.md.
"""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fieldmark.data.dataset import Dataset, load_dataset
    from fieldmark.data.photos import PhotoTable
    from fieldmark.data.taxonomy import Taxon
    from fieldmark.evaluation.results import Evaluation
    from fieldmark.experiments.runs import Run
    from fieldmark.experiments.study import StudyConfig, study
    from fieldmark.heads.estimator import FeatureClassifier
    from fieldmark.inference.classifier import Answer, Classifier, Prediction
    from fieldmark.inference.evaluate import evaluate
    from fieldmark.training import (
        Callback,
        ExtendConfig,
        MLflowCallback,
        TensorBoardCallback,
        TrainConfig,
        Trained,
        extend,
        train,
    )
    from fieldmark.utils.errors import ClassifierError, FieldmarkError, ImageRejected, InputError

__version__ = "0.1.0"

_MODULES = {
    "data.dataset": ("Dataset", "load_dataset"),
    "data.photos": ("PhotoTable",),
    "data.taxonomy": ("Taxon",),
    "evaluation.results": ("Evaluation",),
    "experiments.runs": ("Run",),
    "experiments.study": ("StudyConfig", "study"),
    "heads.estimator": ("FeatureClassifier",),
    "inference.classifier": ("Answer", "Classifier", "Prediction"),
    "inference.evaluate": ("evaluate",),
    "training": (
        *("Callback", "ExtendConfig", "MLflowCallback", "TensorBoardCallback"),
        *("TrainConfig", "Trained", "extend", "train"),
    ),
    "utils.errors": ("ClassifierError", "FieldmarkError", "ImageRejected", "InputError"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}
_DEPRECATED = {"Split": "data.split", "Taxonomy": "data.taxonomy"}
"""Names of the version before, each with its module; see docs/python.md for how long they stay."""

__all__ = [
    "Answer",
    "Callback",
    "Classifier",
    "ClassifierError",
    "Dataset",
    "Evaluation",
    "ExtendConfig",
    "FeatureClassifier",
    "FieldmarkError",
    "ImageRejected",
    "InputError",
    "MLflowCallback",
    "PhotoTable",
    "Prediction",
    "Run",
    "StudyConfig",
    "Taxon",
    "TensorBoardCallback",
    "TrainConfig",
    "Trained",
    "evaluate",
    "extend",
    "load_dataset",
    "study",
    "train",
]


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name) or _DEPRECATED.get(name)
    if module is None:
        raise AttributeError(f"module 'fieldmark' has no attribute {name!r}")
    if name in _DEPRECATED:
        warnings.warn(
            f"fieldmark.{name} is deprecated: import it from fieldmark.{module}.",
            DeprecationWarning,
            stacklevel=2,
        )
    return getattr(import_module(f"fieldmark.{module}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
