"""`fieldmark train`: photos in; out comes a classifier, an honest measure of it, and a page.

A file each: what it is told (`config`), the work in turn (`running`), how well strangers are told
(`strangers`), and what is said of the outcome (`account`).
"""

from fieldmark.train.account import answered, measured, outcome, photo_line, provenance, sentence
from fieldmark.train.config import TrainConfig
from fieldmark.train.running import (
    Trained,
    beside,
    calibrated,
    prepare,
    sweep,
    taken,
    train,
    train_network,
    write,
)
from fieldmark.train.strangers import unknown

__all__ = [
    "TrainConfig",
    "Trained",
    "answered",
    "beside",
    "calibrated",
    "measured",
    "outcome",
    "photo_line",
    "prepare",
    "provenance",
    "sentence",
    "sweep",
    "taken",
    "train",
    "train_network",
    "unknown",
    "write",
]
