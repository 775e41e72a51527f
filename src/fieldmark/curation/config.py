"""Configuration and result of a check."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from fieldmark import models
from fieldmark.data.photos import PhotoTable
from fieldmark.utils.choices import EngineName
from fieldmark.utils.errors import RejectReason

DROP_REASONS = {
    "duplicates": RejectReason.DUPLICATE,
    "near-duplicates": RejectReason.NEAR_DUPLICATE,
    "leaks": RejectReason.LEAK,
    "labels": RejectReason.SUSPECT_LABEL,
    "dark": RejectReason.DARK,
    "blurred": RejectReason.BLURRED,
    "tiny": RejectReason.TINY,
    "rotated": RejectReason.ROTATED,
}
"""The names of `--drop`, and the reason with which the photos are rejected."""


@dataclass(frozen=True)
class CheckConfig:
    """Configuration of a check.

    Attributes:
        backbone, weights, weights_dir, engine: The network whose features are compared.
        drop: Which photos to reject in the written table, names of `DROP_REASONS`.
        split: The split whose parts are searched for leaks; None: the source's own parts.
        names: A table of accepted names, see `fieldmark.data.synonyms`; None: labels stay as they are.
        dark: A photo is dark if 95 % of its pixels are darker than this; 0 black, 1 white.
        blurred: A photo is blurred from this value of `image_stats.blur` on.
        tiny: A photo is tiny if its shorter side has fewer pixels.
        rotated: A photo is rotated from this log-odds in nats on, see `curation.orientation`.
        folds: The number of folds of the out-of-fold predictions for labels.
        seed: The seed of the folds.
    """

    backbone: str = models.DEFAULT
    weights: str = "pretrained"
    weights_dir: Path | None = None
    engine: EngineName = "auto"
    drop: tuple[str, ...] = ()
    split: Path | None = None
    names: Path | None = None
    dark: float = 0.25
    blurred: float = 0.7
    tiny: int = 64
    rotated: float = 6.0
    folds: int = 5
    seed: int = 0


@dataclass(frozen=True)
class CheckSummary:
    """Counts of photos.

    Attributes:
        photos, labelled: All photos checked; those with a label.
        drops: For each name of `DROP_REASONS`, how many photos it would reject.
        twins_with_other_labels: Near-duplicates with different labels.
        leaking: Photos with near-duplicates, or photos of their group, in another part.
    """

    photos: int
    labelled: int
    drops: dict[str, int]
    twins_with_other_labels: int
    leaking: int

    def to_dict(self) -> dict[str, int]:
        """Return the counts as in `findings.json`."""
        first = {"photos": self.photos, "labelled": self.labelled} | self.drops
        return first | {"twins_with_other_labels": self.twins_with_other_labels, "leaking": self.leaking}


@dataclass(frozen=True)
class CheckResult:
    """Result of a check.

    Attributes:
        table: The photos; near-duplicates share a `group`, and dropped photos are rejected.
        findings: One row per photo checked, see docs/check.md for the columns.
        summary: Counts of photos.
    """

    table: PhotoTable
    findings: pl.DataFrame
    summary: CheckSummary
