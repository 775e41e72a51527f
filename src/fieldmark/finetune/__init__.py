"""Training a network itself: from scratch, all layers, its small parts, or literally its last layer.

`loop` is read from top to bottom; what a run is made of is a recipe: `plain`, as the paper trained, or
`good`, what has been learned since. What helps the loop has a file each: `data` and `augment` (the
photos), `layers` and `low_rank` (what learns, and how fast), `state` (what is kept on the way),
`machine` (the device and the precision), `ranks` (several processes), `plan` (how long it will take).
"""

from __future__ import annotations

from fieldmark.finetune.data import Crops
from fieldmark.finetune.layers import start_from
from fieldmark.finetune.loop import finetune, measure, scores
from fieldmark.finetune.machine import join
from fieldmark.finetune.plan import estimate, fit_to
from fieldmark.finetune.recipe import EPOCHS, FineTuning, Transfer, good, plain

__all__ = [
    "EPOCHS",
    "Crops",
    "FineTuning",
    "Transfer",
    "estimate",
    "finetune",
    "fit_to",
    "good",
    "join",
    "measure",
    "plain",
    "scores",
    "start_from",
]
