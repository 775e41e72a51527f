"""The state of a study that is running: its inputs, and the rows that are known."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldmark.data.transforms import FITS, Preprocess
from fieldmark.evaluation.results import Evaluation
from fieldmark.experiments.records import StudyRow
from fieldmark.experiments.runs import Recipe, Run
from fieldmark.experiments.study.config import StudyConfig
from fieldmark.experiments.study.networks import Networks
from fieldmark.experiments.study.photos import StudyPhotos
from fieldmark.features.extractor import FeatureExtractor, View
from fieldmark.utils.errors import InputError

if TYPE_CHECKING:
    from fieldmark.experiments.study.rare_classes import Trials
    from fieldmark.heads.class_imbalance import ImbalanceTrial

SweepKey = tuple[str, int | None, str | None, int, tuple[str, ...]]
"""Network, crop, epochs and classes: rows that have all in common share the heads of one sweep."""

VIEWS: dict[str, dict[str, Any]] = {"whole": {}, "mirrored": {"flip": True}, "centre": {"fit": "crop"}}
"""The views of a photo, as changes of its crop."""


@dataclass
class StudyContext:
    """The inputs of all runs, and the rows that are known so far."""

    runs: list[Run]  # in the order of the recipe
    config: StudyConfig
    networks: Networks  # of all runs
    data: StudyPhotos
    extractor: FeatureExtractor
    out: Path  # the folder of the study
    recipe: Recipe
    command: str = ""  # what was typed, for the page
    rows: dict[str, StudyRow] = field(default_factory=dict)  # by their ids
    # What several rows share: the out-of-fold results of all methods for rare classes, and the heads of all
    # methods trained on all photos.
    trials: dict[SweepKey, Trials] = field(default_factory=dict)
    candidates: dict[SweepKey, list[ImbalanceTrial]] = field(default_factory=dict)
    extractors: dict[Preprocess | View, FeatureExtractor] = field(default_factory=dict)  # by their views

    @property
    def seed(self) -> int:
        """The seed of the split, of the order of training and of the bootstrap."""
        return self.config.options.seed

    def view(self, run: Run, name: str = "whole") -> FeatureExtractor:
        """Return the extractor of a run, or of another view of its photos.

        Raises:
            InputError: there is no such view.
        """
        if name not in VIEWS:
            raise InputError(f"There is no view {name!r} of a photo: choose from {', '.join(VIEWS)}.")
        own = {"fit": FITS[run.crop]} if run.crop else {}
        view, usual = replace(self.extractor.preprocess, **own | VIEWS[name]), self.extractor
        made = usual if view == usual.preprocess else usual.with_view(view)
        return self.extractors.setdefault(view, made)

    def sweep_key(self, run: Run) -> SweepKey:
        """Return what a run has in common with all runs whose heads come from one sweep."""
        return run.backbone, run.size, run.crop, run.epochs, self.data.classes(run)

    @property
    def known(self) -> tuple[StudyRow, ...]:
        """The rows that are known, in the order of the recipe."""
        return tuple(self.rows[run.id] for run in self.runs if run.id in self.rows)

    def table(self, name: str) -> list[StudyRow]:
        """Return the known rows of one table in the order of the recipe."""
        return [row for row in self.known if row.table == name]

    def evaluation(self, row_id: str) -> Evaluation:
        """Return the saved scores of a row."""
        return Evaluation.load(self.out / self.rows[row_id].scores)
