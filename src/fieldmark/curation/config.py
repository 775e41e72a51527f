"""What a check is told, and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from fieldmark import models
from fieldmark.data.photos import PhotoTable
from fieldmark.utils.choices import EngineName
from fieldmark.utils.errors import RejectReason

DROPS = {
    "duplicates": RejectReason.DUPLICATE,
    "near-duplicates": RejectReason.NEAR_DUPLICATE,
    "leaks": RejectReason.LEAK,
    "labels": RejectReason.SUSPECT_LABEL,
    "dark": RejectReason.DARK,
    "blurred": RejectReason.BLURRED,
    "tiny": RejectReason.TINY,
    "rotated": RejectReason.ROTATED,
}
"""What can be dropped, by the name of `--drop`, and the reason that the dropped photos get."""


@dataclass(frozen=True)
class CheckConfig:
    """What `fieldmark check` is told.

    Attributes:
        backbone, weights, weights_dir, engine: the network whose features are compared.
        drop: which photos to reject in the table that is written, names of `DROPS`.
        split: a split to look for leaks across; None: the source's own parts.
        names: a table of accepted names, see `fieldmark.data.synonyms`; None: labels are taken as they are.
        dark: a photo is dark where 95 % of it is darker than this, 0 black to 1 white.
        blurred: from this measure of blur on it is blurred, see `quality.looks.blur`.
        tiny: with a shorter side of fewer pixels it is tiny.
        rotated: from so many nats on, over four views, it lies on its side; see `check.sideways`.
        folds: in how many parts photos are divided, each judged by what the others teach.
        seed: of that division.
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
class Checked:
    """What came out.

    Attributes:
        table: the photos, with `group` so that twins stay together, and what was dropped rejected.
        findings: a row for each photo that was kept before, see docs/check.md for the columns.
        summary: how many photos each finding has.
    """

    table: PhotoTable
    findings: pl.DataFrame
    summary: dict[str, int]
