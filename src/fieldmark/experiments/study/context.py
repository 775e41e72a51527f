"""A study under way: what it is made of, and the rows that are known."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fieldmark.evaluation.results import Evaluation
from fieldmark.experiments.recipes import Run
from fieldmark.experiments.study.config import StudyConfig
from fieldmark.experiments.study.data import Data
from fieldmark.experiments.study.networks import Networks
from fieldmark.features.extractor import FeatureExtractor
from fieldmark.utils.errors import InputError

Row = dict[str, Any]


VIEWS: dict[str, dict[str, Any]] = {
    "whole": {},
    "mirrored": {"flip": True},
    "centre": {"fit": "crop"},
}
"""What a view of a photo changes about the study's crop."""


@dataclass
class Work:
    """What every run has at hand.

    Attributes:
        runs: those that are done, in the recipe's order.
        config: what the study was told.
        networks: the networks of all runs.
        data: the photos.
        bench: where features are computed and kept.
        out: the study's folder.
        rows: those that are known, by their ids.
        memo: what several rows share, for as long as the study runs.
    """

    runs: list[Run]
    config: StudyConfig
    networks: Networks
    data: Data
    extractor: FeatureExtractor
    out: Path
    rows: dict[str, Row] = field(default_factory=dict)
    memo: dict[Any, Any] = field(default_factory=dict)

    @property
    def seed(self) -> int:
        """Of the split, of the order of training and of the intervals."""
        return self.config.options.seed

    def view(self, name: str) -> FeatureExtractor:
        """Where the features of another view of the photos are kept; see `VIEWS`."""
        if name not in VIEWS:
            raise InputError(
                f"There is no view {name!r} of a photo: choose from {', '.join(VIEWS)}."
            )
        if not VIEWS[name]:
            return self.extractor
        crop = replace(self.extractor.preprocess, **VIEWS[name])
        return self.extractor.with_view(crop)

    def table(self, name: str) -> list[Row]:
        """The rows of one table that are known, in the recipe's order, whichever was done first."""
        known = (self.rows[run.id] for run in self.runs if run.id in self.rows)
        return [row for row in known if row["table"] == name]

    def evaluation(self, row_id: str) -> Evaluation:
        """The kept scores of a row."""
        return Evaluation.load(self.out / self.rows[row_id]["scores"])
