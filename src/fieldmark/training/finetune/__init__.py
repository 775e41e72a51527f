"""Training a network itself: from scratch, all layers, its small parts, or literally its last layer.

`loop` is read from top to bottom; what a run is made of is a recipe: `plain`, as the paper trained, or
`good`, what has been learned since. What helps the loop has a file each: `data` and `augment` (the
photos), `layers` and `low_rank` (what learns, and how fast), `state` (what is kept on the way),
`machine` (the device and the precision), `ranks` (several processes), `plan` (how long it will take).
"""

from __future__ import annotations

from fieldmark.data.loader import LabelledCrops
from fieldmark.training.finetune.checkpoint import seconds_spent
from fieldmark.training.finetune.config import EPOCHS, FineTuning, Transfer, good, plain
from fieldmark.training.finetune.device import join_processes
from fieldmark.training.finetune.layers import set_last_layer, split_trained
from fieldmark.training.finetune.loop import Stopped, finetune, measure, scores
from fieldmark.training.finetune.time_estimate import Pace, pace

__all__ = [
    "EPOCHS",
    "FineTuning",
    "LabelledCrops",
    "Pace",
    "Stopped",
    "Transfer",
    "finetune",
    "good",
    "join_processes",
    "measure",
    "pace",
    "plain",
    "scores",
    "seconds_spent",
    "set_last_layer",
    "split_trained",
]
