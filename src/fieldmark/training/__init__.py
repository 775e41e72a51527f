"""Training: labelled photos in; a classifier, an honest measure of it, and a report out."""

from __future__ import annotations

from fieldmark.training.callbacks import Callback, MLflowCallback, TensorBoardCallback
from fieldmark.training.config import TrainConfig
from fieldmark.training.names_only import train_from_names
from fieldmark.training.run import Trained, extend, train
from fieldmark.training.strategies import ExtendConfig
from fieldmark.training.summary import sentence

__all__ = [
    "Callback",
    "ExtendConfig",
    "MLflowCallback",
    "TensorBoardCallback",
    "TrainConfig",
    "Trained",
    "extend",
    "sentence",
    "train",
    "train_from_names",
]
