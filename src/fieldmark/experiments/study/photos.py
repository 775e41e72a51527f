"""The photos of a study: how they are divided, and which classes are learned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from fieldmark.data.dataset import Dataset
from fieldmark.data.stats import stats
from fieldmark.data.subset import DataSplits, LabelledPhotos
from fieldmark.experiments.records import DataFacts, SplitFacts
from fieldmark.experiments.runs import Run
from fieldmark.utils.errors import ImageRejected, InputError

PAPER_THRESHOLD = 100
PAPER_PRUNED_SHARE = 208 / 1010
"""The paper dropped the 208 of 1,010 classes that have fewer than 100 photos (Section 4.4.1)."""


@dataclass(frozen=True)
class StudyPhotos:
    """Photos, their split, and the classes that are left after pruning."""

    dataset: Dataset
    threshold: int | None = None  # classes with fewer training photos are pruned; see `StudyConfig`

    def without(self, rejected: Mapping[str, ImageRejected]) -> StudyPhotos:
        """Return the same data without photos that cannot be decoded."""
        table = self.dataset.table.reject_files(rejected)
        return replace(self, dataset=replace(self.dataset, table=table))

    @property
    def parts(self) -> DataSplits:
        """The three parts of the split, and the classes."""
        return self.dataset.splits

    @cached_property
    def prune_below(self) -> int:
        """The number of training photos below which a class is pruned."""
        if self.threshold is not None:
            return self.threshold
        counts = np.sort(list(self.parts.train_counts().values()))
        if (counts >= PAPER_THRESHOLD).mean() >= 2 / 3:
            return PAPER_THRESHOLD
        return int(counts[int(PAPER_PRUNED_SHARE * len(counts))])

    @cached_property
    def kept(self) -> tuple[str, ...]:
        """The classes that are left after pruning."""
        return self._kept(self.prune_below)

    def _kept(self, below: int) -> tuple[str, ...]:
        counts = self.parts.train_counts()
        return tuple(taxon_id for taxon_id in self.parts.classes if counts[taxon_id] >= below)

    def classes(self, run: Run) -> tuple[str, ...]:
        """Return the classes that a run learns."""
        if not run.pruned:
            return self.parts.classes
        return self.kept if run.prune_below is None else self._kept(run.prune_below)

    def measured_on(self, run: Run) -> LabelledPhotos:
        """Return the photos that a run is measured on; raises InputError if there are none."""
        photos = self.parts.test if run.part == "test" else self.parts.val
        if not len(photos):
            raise InputError(f"{self.dataset.name} has no {run.part} part: give a share with --{run.part}.")
        return photos

    @cached_property
    def facts(self) -> DataFacts:
        """The content of `data` in `study.json`."""
        table, split, parts = self.dataset.table, self.dataset.split, self.parts
        sizes = len(parts.train), len(parts.val), len(parts.test)
        return DataFacts(
            name=self.dataset.name,
            source=table.source,
            digest=table.digest(),
            photos=table.kept.height,
            classes=len(parts.classes),
            rejected=table.reasons(),
            stats=stats(table),
            split=SplitFacts(split.way, split.seed, split.digest, *sizes),
            prune_below=self.prune_below,
            kept_classes=len(self.kept),
        )
