"""Sets of values that options may have, once for the library and the command line.

This module imports nothing, so that `fieldmark --help` can show the values at once.
"""

from __future__ import annotations

from typing import Literal

DecodingTier = Literal["exact", "fast"]
"""How photos are decoded: in full, or large JPEGs at a reduced size."""

EngineName = Literal["auto", "torch", "onnxruntime", "openvino", "cuda"]
"""What runs a network; `auto` measures which is fastest."""

HeadKind = Literal["softmax", "sampled"]
"""How a last layer is trained: on all classes in each step, or on a sample of them."""

OutputFormat = Literal["text", "csv", "jsonl"]
"""What `fieldmark predict` prints."""

PhotoSize = Literal["original", "large", "medium", "small", "thumb", "square"]
"""The sizes of photos in iNaturalist Open Data, from the largest on."""

PublishedSet = Literal["inat2017", "inat2018", "inat2019", "inat2021", "open-data"]
"""What can be downloaded: the iNaturalist challenges and a selection from iNaturalist Open Data."""

Quality = Literal["fast", "good", "best"]
"""How much is tried in training."""

Grouping = Literal["auto", "none"]
"""Whether bursts and near-duplicates are found and stay together."""

SplitMethod = Literal["stratified", "random", "official"]
"""How photos are divided into training, validation and test part."""

Transfer = Literal["last", "all", "low-rank", "adapters", "scratch"]
"""Which layers are trained, and from which weights."""

Weighting = Literal["mean", "weights", "greedy"]
"""How the members of an ensemble are weighted."""
