"""Configuration and result of a check."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from fieldmark import models
from fieldmark.data.photos import PhotoTable
from fieldmark.utils.checks import check_choices
from fieldmark.utils.choices import EngineName, Language
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
    """Configuration of a check; the network's features are compared."""

    backbone: str = models.DEFAULT
    weights: str = "pretrained"
    weights_dir: Path | None = None
    engine: EngineName = "auto"
    drop: tuple[str, ...] = ()  # photos to reject in the written table: names of `DROP_REASONS`
    split: Path | None = None  # its parts are searched for leaks; None: the source's own parts
    names: Path | None = None  # accepted names, see `data.synonyms`; None: labels stay as they are
    boxes: Path | None = None  # a file of boxes, which are checked in place of the photos; None: whole photos
    box_threshold: float | None = None  # from which confidence on a box counts; None: measured, or the file's
    dark: float = 0.25  # 95 % of a dark photo's pixels are darker than this; 0 black, 1 white
    blurred: float = 0.7  # a photo is blurred from this value of `image_stats.blur` on
    tiny: int = 64  # the shorter side of a tiny photo has fewer pixels
    rotated: float = 6.0  # a photo is rotated from these log-odds in nats on, see `orientation`
    label_precision: float = 0.8  # so large a share of the labels marked as suspect should be wrong
    folds: int = 5  # of the out-of-fold predictions for labels
    seed: int = 0  # of the folds
    language: Language = "en"  # of the report

    def __post_init__(self) -> None:
        check_choices(self)


@dataclass(frozen=True)
class CheckSummary:
    """Counts of photos."""

    photos: int
    labelled: int
    drops: dict[str, int]  # for each name of `DROP_REASONS`, how many photos it would reject
    twins_with_other_labels: int  # near-duplicates with different labels
    to_review: int  # labels worth a review, those marked as suspect among them
    label_precision: float | None  # the estimated share of wrong ones among the suspect labels; None: no such
    leaking: int  # near-duplicates, or photos of their group, are in another part
    clock: int  # their time cannot be right

    def to_dict(self) -> dict[str, Any]:
        """Return the counts as in `findings.json`."""
        first = {"photos": self.photos, "labelled": self.labelled} | self.drops
        names = ("twins_with_other_labels", "to_review", "label_precision", "leaking", "clock")
        return first | {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class CheckResult:
    """Result of a check."""

    table: PhotoTable  # near-duplicates share a `group`, and dropped photos are rejected
    findings: pl.DataFrame  # one row per photo checked, with the columns of docs/check.md
    summary: CheckSummary
