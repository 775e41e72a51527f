"""A study under way: what it is made of, and the rows that are known."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fieldmark.evaluate import Evaluation
from fieldmark.experiment import Bench
from fieldmark.recipes import Run
from fieldmark.study.config import StudyConfig
from fieldmark.study.data import Data
from fieldmark.study.networks import Networks

Row = dict[str, Any]


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
    bench: Bench
    out: Path
    rows: dict[str, Row] = field(default_factory=dict)
    memo: dict[Any, Any] = field(default_factory=dict)

    @property
    def seed(self) -> int:
        """Of the split, of the order of training and of the intervals."""
        return self.config.options.seed

    def table(self, name: str) -> list[Row]:
        """The rows of one table that are known, in the order in which they were done."""
        return [row for row in self.rows.values() if row["table"] == name]

    def evaluation(self, row_id: str) -> Evaluation:
        """The kept scores of a row."""
        return Evaluation.load(self.out / self.rows[row_id]["scores"])
