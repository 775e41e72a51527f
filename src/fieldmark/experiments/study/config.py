"""The configuration of a study."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fieldmark.experiments.recipes import Options
from fieldmark.utils.choices import DecodingTier, EngineName, SplitMethod


@dataclass(frozen=True)
class StudyConfig:
    """The configuration of a study.

    The number of training photos below which a class is pruned is by default the paper's 100, or, where less
    than two thirds of the classes have as many, the number that prunes the same share of the classes as in
    the paper. Networks without available weights run from random weights, and every table marks them.
    """

    options: Options = field(default_factory=Options)  # of the recipe
    only: tuple[str, ...] = ()  # run only these tables; empty: all
    limit: int | None = None  # use at most so many photos
    names: Path | None = None  # a table of accepted names, see `fieldmark.data.synonyms`
    weights_dir: Path | None = None  # a folder of weights, searched before anything is downloaded
    skip_missing: bool = False  # leave out networks whose weights are not available
    prune_below: int | None = None  # classes with fewer training photos are pruned; None: see above
    split: SplitMethod = "stratified"
    val: float = 0.1  # the share held out
    test: float = 0.1  # the same; not used where the source has its own test part
    engine: EngineName = "auto"  # what runs the networks; `auto` measures which is fastest
    precision: Literal["float32", "bfloat16"] = "float32"  # the data type of training all layers
    tier: DecodingTier = "exact"  # how photos are decoded
    bands: tuple[int, int] = (30, 100)  # rare: fewer training photos; frequent: at least so many
