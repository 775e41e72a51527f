"""The configuration of a study."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fieldmark.experiments.runs import Options
from fieldmark.utils.checks import check_choices
from fieldmark.utils.choices import Compute, DecodingTier, EngineName, Grouping, Language, SplitMethod


@dataclass(frozen=True)
class StudyConfig:
    """The configuration of a study.

    Attributes:
        options: the options of the recipe.
        only: run only these tables; empty: all.
        limit: use at most so many photos; None: all.
        names: a table of accepted names, see `fieldmark.data.synonyms`; None: labels as they are.
        boxes: a file of boxes, see `fieldmark.data.readers.box_files`: photos are cut to them; None: whole.
        box_threshold: from which confidence on a box counts; None: measured, or that of the file.
        weights_dir: a folder of weights, searched before anything is downloaded.
        skip_missing: leave out networks whose weights are not available; otherwise they run from random
            weights, and every table marks them.
        prune_below: classes with fewer training photos are pruned; None: the paper's 100, or, where
            less than two thirds of the classes have as many, the number that prunes the same
            share of the classes as in the paper.
        split: how photos are divided.
        groups: `auto`: bursts and near-duplicates form groups before photos are divided; None: `auto`, and
            for the recipe `paper`, whose split is the paper's, `none`.
        val, test: the shares held out; `test` is not used where the source has its own test part.
        engine: what runs the networks; `auto` measures which is fastest.
        precision: the data type of training all layers.
        compute: how precisely frozen networks compute; `int8` sets its ranges by training photos, and `auto`
            chooses for each network, as for `TrainConfig.compute`.
        tier: how photos are decoded, `exact` or `fast`.
        bands: classes with fewer training photos than the first number are rare (the tail), those with
            at least the second are frequent (the head).
        language: of the report.
    """

    options: Options = field(default_factory=Options)
    only: tuple[str, ...] = ()
    limit: int | None = None
    names: Path | None = None
    boxes: Path | None = None
    box_threshold: float | None = None
    weights_dir: Path | None = None
    skip_missing: bool = False
    prune_below: int | None = None
    split: SplitMethod = "stratified"
    groups: Grouping | None = None
    val: float = 0.1
    test: float = 0.1
    engine: EngineName = "auto"
    precision: Literal["float32", "bfloat16"] = "float32"
    compute: Compute = "exact"
    tier: DecodingTier = "exact"
    bands: tuple[int, int] = (30, 100)
    language: Language = "en"

    def __post_init__(self) -> None:
        check_choices(self)
