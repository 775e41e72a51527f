"""The photos of a study: how they are divided, and which classes are learned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from fieldmark.data.photos import PhotoTable
from fieldmark.data.split import Split, split_photos
from fieldmark.data.stats import stats
from fieldmark.data.subset import DataSplits, LabelledPhotos
from fieldmark.experiments.recipes import Run
from fieldmark.experiments.study.config import StudyConfig
from fieldmark.utils.errors import ImageRejected, InputError

PAPER_THRESHOLD = 100
PAPER_PRUNED_SHARE = 208 / 1010
"""The paper dropped the 208 of 1,010 classes that have fewer than 100 photos (Section 4.4.1)."""


class Data:
    """Photos, their split, and the classes that are kept after pruning."""

    def __init__(
        self, table: PhotoTable, config: StudyConfig, name: str, split: Split | None = None
    ) -> None:
        self.table, self.config, self.name = table, config, name
        self.split = split or split_photos(
            table,
            val=config.val,
            test=0.0 if table.has_test or config.split == "official" else config.test,
            seed=config.options.seed,
            way=config.split,
        )

    def without(self, rejected: Mapping[str, ImageRejected]) -> Data:
        """Return the same data without photos that could not be decoded."""
        return Data(self.table.reject_files(rejected), self.config, self.name, self.split)

    @cached_property
    def parts(self) -> DataSplits:
        """The three parts of the split, and the classes."""
        return DataSplits.of(self.table, self.split)

    @cached_property
    def prune_below(self) -> int:
        """The number of training photos under which a class is pruned."""
        if self.config.prune_below is not None:
            return self.config.prune_below
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
        """The classes that a run answers."""
        if not run.pruned:
            return self.parts.classes
        return self.kept if run.prune_below is None else self._kept(run.prune_below)

    @staticmethod
    def all_of(run: Run) -> Run:
        """The run without pruning."""
        return replace(run, pruned=False, prune_below=None)

    def measured_on(self, run: Run) -> LabelledPhotos:
        """The photos that a run is measured on."""
        photos = self.parts.test if run.part == "test" else self.parts.val
        if not len(photos):
            raise InputError(f"{self.name} has no {run.part} part: give a share with --{run.part}.")
        return photos

    @cached_property
    def summary(self) -> dict[str, Any]:
        """What `study.json` says of the photos."""
        split, parts = self.split, self.parts
        return {
            "name": self.name,
            "source": self.table.source,
            "digest": self.table.digest(),
            "photos": self.table.kept.height,
            "classes": len(parts.classes),
            "rejected": self.table.reasons(),
            "stats": stats(self.table),
            "split": {
                "way": split.way,
                "seed": split.seed,
                "digest": split.digest,
                "train": len(parts.train),
                "val": len(parts.val),
                "test": len(parts.test),
            },
            "prune_below": self.prune_below,
            "kept_classes": len(self.kept),
        }
