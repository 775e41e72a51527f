"""Sets of values that options may have, once for the library and the command line.

This module imports nothing, so that `fieldmark --help` can show the values at once.
"""

from __future__ import annotations

from typing import Literal

# How a photo becomes the square that a network is given: resized without its proportions, cut out of the
# centre, or whole with a border.
Crop = Literal["squash", "center", "pad"]
# The languages of pages.
Language = Literal["en", "de", "es", "fr", "pt"]
# Which label comes first: the most probable, or the one with the least expected taxonomic distance.
Decision = Literal["probable", "height"]
# How photos are decoded: in full, or large JPEGs at a reduced size.
DecodingTier = Literal["exact", "fast"]
# What runs a network; `auto` measures which is fastest.
EngineName = Literal["auto", "torch", "onnxruntime", "openvino", "cuda", "mps"]
# How a last layer is trained: on all classes in each step, or on a sample of them.
HeadKind = Literal["softmax", "sampled"]
# In how many bits an optimiser keeps each number of its state.
OptimizerBits = Literal[8, 32]
# How precisely a network is computed: in float32, in 16 bits, or in 8-bit integers.
TierName = Literal["exact", "half", "int8"]
# Those that need no photos to set their ranges by.
FloatTierName = Literal["exact", "half"]
# All tiers, or as measured on the user's photos.
Compute = Literal["exact", "half", "int8", "auto"]
# What `fieldmark predict` prints.
OutputFormat = Literal["text", "csv", "jsonl"]
# The sizes of photos in iNaturalist Open Data, from the largest on.
PhotoSize = Literal["original", "large", "medium", "small", "thumb", "square"]
# What can be downloaded: the iNaturalist challenges and a selection from iNaturalist Open Data.
PublishedSet = Literal["inat2017", "inat2018", "inat2019", "inat2021", "open-data"]
# How much is tried in training.
Quality = Literal["fast", "good", "best"]
# Whether bursts and near-duplicates are found and stay together.
Grouping = Literal["auto", "none"]
# How photos are divided into training, validation and test part; `location`: so that no place is in two.
SplitMethod = Literal["stratified", "random", "official", "location"]
# Which layers are trained, and from which weights.
Transfer = Literal["last", "all", "low-rank", "adapters", "scratch"]
# How the members of an ensemble are weighted.
Weighting = Literal["mean", "weights", "greedy"]
