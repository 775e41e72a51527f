"""Training a network itself: from scratch, all layers, its small parts, or literally its last layer.

`loop` is read from top to bottom; what a run is made of is a recipe: `plain`, as the paper trained, or
`good`, what has been learned since. What helps the loop has a file each: `data` and `augment` (the
photos), `layers` and `low_rank` (what learns, and how fast), `state` (what is kept on the way),
`machine` (the device and the precision), `ranks` (several processes), `plan` (how long it will take).
"""

from __future__ import annotations

from fieldmark.data.loader import LabelledCrops
from fieldmark.training.finetune.checkpoint import spent
from fieldmark.training.finetune.config import EPOCHS, FineTuning, good, plain
from fieldmark.training.finetune.device import join
from fieldmark.training.finetune.layers import start_from, taken_apart
from fieldmark.training.finetune.loop import Stopped, finetune, measure, scores
from fieldmark.training.finetune.time_estimate import Pace, estimate, fit_to, pace

__all__ = [
    "EPOCHS",
    "FineTuning",
    "LabelledCrops",
    "Pace",
    "Stopped",
    "estimate",
    "finetune",
    "fit_to",
    "good",
    "join",
    "measure",
    "pace",
    "plain",
    "scores",
    "spent",
    "start_from",
    "taken_apart",
]
