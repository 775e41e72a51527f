"""Train the network itself: from scratch, all layers, adapters or low-rank updates, or its last layer.

`loop` is the training loop. A recipe (`config`) has all settings: `plain` is the paper's, `good` has the
improvements since. The other files: `data` and `augment` (the photos), `layers` and `low_rank` (what is
trained, and how fast), `step` (one update), `adamw8` (the optimiser in 8 bits), `rounds` (smaller networks:
`magnitude`, zeros in place of the smallest weights, and `channels`, fewer of them), `distillation` (from a
larger network), `checkpoint` (interrupted runs), `device` (device and data type), `distributed` (several
processes), `time_estimate`, `memory_estimate`.
"""

from __future__ import annotations

from fieldmark.data.loader import LabelledCrops
from fieldmark.training.finetune import channels
from fieldmark.training.finetune.checkpoint import seconds_spent
from fieldmark.training.finetune.config import EPOCHS, FineTuning, good, plain
from fieldmark.training.finetune.device import join_processes
from fieldmark.training.finetune.distillation import Teacher
from fieldmark.training.finetune.layers import set_last_layer, split_trained
from fieldmark.training.finetune.loop import Stopped, finetune, measure, scores
from fieldmark.training.finetune.magnitude import weight_bytes
from fieldmark.training.finetune.memory_estimate import check as check_memory
from fieldmark.training.finetune.rounds import fewer_channels, train_in_rounds, zeros
from fieldmark.training.finetune.time_estimate import Pace, pace

__all__ = [
    "EPOCHS",
    "FineTuning",
    "LabelledCrops",
    "Pace",
    "Stopped",
    "Teacher",
    "channels",
    "check_memory",
    "fewer_channels",
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
    "train_in_rounds",
    "weight_bytes",
    "zeros",
]
