"""The state of a study that is running: its inputs, and the rows that are known."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fieldmark.data.transforms import Preprocess
from fieldmark.evaluation.results import Evaluation
from fieldmark.experiments.recipes import Run
from fieldmark.experiments.records import StudyRow
from fieldmark.experiments.study.config import StudyConfig
from fieldmark.experiments.study.networks import Networks
from fieldmark.experiments.study.photos import StudyPhotos
from fieldmark.features.extractor import FeatureExtractor
from fieldmark.utils.errors import InputError

if TYPE_CHECKING:
    from fieldmark.experiments.study.rare_classes import Trials
    from fieldmark.heads.class_imbalance import ImbalanceTrial

SweepKey = tuple[str, int, tuple[str, ...]]
"""Network, epochs and classes: rows that have all three in common share the heads of one sweep."""

View = Literal["whole", "mirrored", "centre"]


def viewed(preprocess: Preprocess, view: str) -> Preprocess:
    """Return the crop of another view of a photo.

    Raises:
        InputError: there is no such view.
    """
    views: dict[View, Preprocess] = {
        "whole": preprocess,
        "mirrored": replace(preprocess, flip=True),
        "centre": replace(preprocess, fit="crop"),
    }
    for name, crop in views.items():
        if name == view:
            return crop
    raise InputError(f"There is no view {view!r} of a photo: choose from {', '.join(views)}.")


@dataclass
class StudyContext:
    """The inputs of all runs, and the rows that are known so far.

    Attributes:
        runs: the runs of the study, in the order of the recipe.
        config: the configuration.
        networks: the networks of all runs.
        data: the photos.
        extractor: computes and caches features.
        out: the folder of the study.
        rows: the rows that are known, by their ids.
        trials: out-of-fold results of all methods for rare classes, which several rows share.
        candidates: the heads of all methods trained on all photos, which several rows share.
    """

    runs: list[Run]
    config: StudyConfig
    networks: Networks
    data: StudyPhotos
    extractor: FeatureExtractor
    out: Path
    rows: dict[str, StudyRow] = field(default_factory=dict)
    trials: dict[SweepKey, Trials] = field(default_factory=dict)
    candidates: dict[SweepKey, list[ImbalanceTrial]] = field(default_factory=dict)

    @property
    def seed(self) -> int:
        """The seed of the split, of the order of training and of the bootstrap."""
        return self.config.options.seed

    def view(self, name: str) -> FeatureExtractor:
        """Return the extractor of another view of the photos."""
        crop = viewed(self.extractor.preprocess, name)
        same = crop == self.extractor.preprocess
        return self.extractor if same else self.extractor.with_view(crop)

    def sweep_key(self, run: Run) -> SweepKey:
        """Return what a run has in common with all runs whose heads come from one sweep."""
        return run.backbone, run.epochs, self.data.classes(run)

    def table(self, name: str) -> list[StudyRow]:
        """Return the known rows of one table in the order of the recipe."""
        known = (self.rows[run.id] for run in self.runs if run.id in self.rows)
        return [row for row in known if row.table == name]

    def evaluation(self, row_id: str) -> Evaluation:
        """Return the saved scores of a row."""
        return Evaluation.load(self.out / self.rows[row_id].scores)
