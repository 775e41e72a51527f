"""The records of a study: what `study.json` and `rows/ID.json` hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from msgspec import UNSET, UnsetType

from fieldmark.evaluation.intervals import Interval
from fieldmark.evaluation.results import Band
from fieldmark.utils.records import Record

OverPhotos = Literal["all", "kept", "macro", "tail"]


@dataclass(frozen=True)
class CurvePoint(Record):
    """One epoch of a learning curve: losses in nats, the error as a share; None where not finite."""

    epoch: int
    train_loss: float | None = None
    val_loss: float | None = None
    val_error: float | None = None


@dataclass(frozen=True)
class EarlyStop(Record):
    """When the training of one fold stopped.

    Attributes:
        learning_rate: the one that was chosen.
        epochs: how many were run.
        kept: the epoch whose weights were used.
    """

    learning_rate: float = 0.0
    epochs: int = 0
    kept: int | None = None


@dataclass(frozen=True)
class StudyRow(Record):
    """One row of a study: a run, its measures, and its cost.

    Attributes:
        id: the name of the row.
        table, label: its table, and its name in the table.
        backbone: the network; of an ensemble, all networks joined by `+`.
        weights: the file, its SHA-256 and the share of tensors that it filled, or `random`.
        weights_complete: whether no tensor was random, or random weights were intended.
        weights_short: empty, `partly random` or `random weights`.
        weights_account: which layers stayed random; absent for an ensemble.
        transfer, pruned, mode, part: as in the `Run`.
        epochs: None for a head in closed form and for an ensemble.
        classes: how many classes were learned.
        photos: how many photos the error was measured on.
        train_seconds, extract_seconds: of training, and of computing the features; None: unknown.
        curve: a point an epoch; in a cross-validation the mean of the folds.
        scores: the file of the saved scores.
        note: a sentence, or empty.
        giga_macs: multiply-adds of one answer, in thousands of millions.
        photo_ms: milliseconds that the network takes for one answer, without decoding.
        bands: errors over rare (`tail`), `medium` and frequent (`head`) classes.
        val_top1_error, val_macro_error, val_top5_error: over photos of the learned classes.
        val_top1_error_all_classes: over all photos, where one of a pruned class counts as wrong.
        val_log_loss: in nats.
        settings: for mode `tail`: the learning rates and strengths that were chosen.
        stopped: for mode `early`: when each fold stopped.
        member_weights: for an ensemble: the weight of each member by its label.
        key: a digest of everything that the row depends on.
    """

    id: str = ""
    table: str = ""
    label: str = ""
    backbone: str = ""
    weights: str = ""
    weights_complete: bool = True
    weights_short: str = ""
    weights_account: str | UnsetType = UNSET
    transfer: str = "last"
    pruned: bool = True
    epochs: int | None = None
    mode: str = "cached"
    part: str = "val"
    classes: int = 0
    photos: int = 0
    train_seconds: float | None = None
    extract_seconds: float | None = None
    curve: tuple[CurvePoint, ...] = ()
    scores: str = ""
    note: str = ""
    giga_macs: float | None = None
    photo_ms: float | None = None
    bands: Mapping[str, Band] | None = None
    val_top1_error: float | None = None
    val_top1_error_all_classes: float | None = None
    val_macro_error: float | None = None
    val_top1_error_interval: Interval | None = None
    val_top1_error_all_classes_interval: Interval | None = None
    val_macro_error_interval: Interval | None = None
    val_top5_error: float | None = None
    val_log_loss: float | None = None
    settings: tuple[tuple[float, ...], ...] | UnsetType = UNSET
    stopped: tuple[EarlyStop, ...] | UnsetType = UNSET
    member_weights: Mapping[str, float] | UnsetType = UNSET
    key: str = ""

    @property
    def badge(self) -> str:
        """What must be shown beside the row about its weights; empty where they are complete."""
        if self.transfer == "scratch":
            return "from scratch"
        if self.weights == "random":
            return "random weights"
        return "" if self.weights_complete else "partial weights"

    @property
    def tail(self) -> Band:
        """The error over rare classes."""
        return (self.bands or {}).get("tail", Band())


@dataclass(frozen=True)
class PairedDifference(Record):
    """The error of one row minus that of its table's reference, on the same photos.

    Attributes:
        table, row, reference: the table, and the ids of the two rows.
        over: `all` photos; photos of `kept` classes; `macro`: the same, each class counting the same;
            `tail`: rare classes, each class counting the same.
        value: negative where the row has the lower error.
        interval: the 95 % CI.
        photos: how many photos were compared.
        tie: whether the interval contains zero.
    """

    table: str = ""
    row: str = ""
    reference: str = ""
    over: OverPhotos = "all"
    value: float = 0.0
    interval: Interval = (0.0, 0.0)
    photos: int = 0
    tie: bool = True


@dataclass(frozen=True)
class Finding(Record):
    """A question, what the study answers, and what the paper answers."""

    question: str
    answer: str
    paper: str


@dataclass(frozen=True)
class SkippedNetwork(Record):
    """A network that was left out, and why."""

    backbone: str
    why: str


@dataclass(frozen=True)
class SplitFacts(Record):
    """How the photos were divided, and how many are in each part."""

    way: str = ""
    seed: int = 0
    digest: str = ""
    train: int = 0
    val: int = 0
    test: int = 0


@dataclass(frozen=True)
class DataFacts(Record):
    """The photos of a study.

    Attributes:
        name, source, digest: of the data set.
        photos, classes: how many.
        rejected: how many photos were rejected for each reason.
        stats: as `fieldmark stats --json` prints it.
        split: how the photos were divided.
        prune_below: classes with fewer training photos are pruned.
        kept_classes: how many classes are left after pruning.
    """

    name: str = ""
    source: str = ""
    digest: str = ""
    photos: int = 0
    classes: int = 0
    rejected: Mapping[str, int] | None = None
    stats: Mapping[str, Any] | None = None
    split: SplitFacts = SplitFacts()
    prune_below: int | None = None
    kept_classes: int = 0


@dataclass(frozen=True)
class StudyRecord(Record):
    """The content of `study.json`.

    Attributes:
        recipe, title: which recipe.
        command: what was typed; empty from Python.
        commit_or_version: the version of fieldmark.
        created: the time in UTC, ISO 8601.
        finished: whether all rows are there.
        seconds: how long the study took; None until it is finished.
        machine: cores, processor, system.
        versions: of the libraries that the numbers depend on.
        data: the photos.
        rows: in the order of the recipe.
        skipped: networks that were left out.
        differences: of each row to the reference of its table; empty until the study is finished.
        findings: answers to the questions of the paper; absent until the study is finished.
    """

    recipe: str = ""
    title: str = ""
    command: str = ""
    commit_or_version: str = ""
    created: str = ""
    finished: bool = True
    seconds: float | None = None
    machine: Mapping[str, str | int] | None = None
    versions: Mapping[str, str] | None = None
    data: DataFacts = DataFacts()
    rows: tuple[StudyRow, ...] = ()
    skipped: tuple[SkippedNetwork, ...] = ()
    differences: tuple[PairedDifference, ...] = ()
    findings: tuple[Finding, ...] | UnsetType = UNSET

    def table(self, name: str) -> list[StudyRow]:
        """Return the rows of one table."""
        return [row for row in self.rows if row.table == name]

    def difference(self, row_id: str, over: OverPhotos) -> PairedDifference | None:
        """Return the difference of a row to its reference; None where nothing was compared."""
        found = (each for each in self.differences if (each.row, each.over) == (row_id, over))
        return next(found, None)
