"""The records of a study: what `study.json` and `rows/ID.json` hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from msgspec import UNSET, UnsetType

from fieldmark.evaluation.intervals import Interval
from fieldmark.evaluation.results import Band
from fieldmark.evaluation.taxonomic import TaxonomicError
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
    """When the training of one fold stopped."""

    learning_rate: float = 0.0  # the one that was chosen
    epochs: int = 0  # how many were run
    kept: int | None = None  # the epoch whose weights were used


@dataclass(frozen=True)
class StudyRow(Record):
    """One row of a study: a run, its measures, and its cost."""

    id: str = ""  # the name of the row
    table: str = ""  # its table
    label: str = ""  # its name in the table
    backbone: str = ""  # the network; of an ensemble, all networks joined by `+`
    weights: str = ""  # the file, its SHA-256 and the share of tensors that it filled, or `random`
    weights_complete: bool = True  # whether no tensor was random, or random weights were intended
    weights_short: str = ""  # empty, `partly random` or `random weights`
    weights_account: str | UnsetType = UNSET  # which layers stayed random; absent for an ensemble
    compute: str | UnsetType = UNSET  # how precisely the frozen network computed, where not `exact`
    transfer: str = "last"  # as in the `Run`
    pruned: bool = True  # as in the `Run`
    epochs: int | None = None  # None for a head in closed form and for an ensemble
    mode: str = "cached"  # as in the `Run`
    part: str = "val"  # as in the `Run`
    size: int | UnsetType = UNSET  # the side of the crops in pixels, where the `Run` has one
    crop: str | UnsetType = UNSET  # how they are made, where the `Run` says so
    each: int | UnsetType = UNSET  # the photos of a class that were learned from, where the `Run` limits them
    places: str | UnsetType = UNSET  # whether known or new locations are measured, where the `Run` says so
    classes: int = 0  # how many classes were learned
    photos: int = 0  # how many photos the error was measured on
    train_seconds: float | None = None  # of training; None: unknown
    extract_seconds: float | None = None  # of computing the features; None: unknown
    curve: tuple[CurvePoint, ...] = ()  # a point an epoch; in a cross-validation the mean of the folds
    scores: str = ""  # the file of the saved scores
    note: str = ""  # a sentence, or empty
    giga_macs: float | None = None  # multiply-adds of one answer, in thousands of millions
    photo_ms: float | None = None  # milliseconds that the network takes for one answer, without decoding
    sparsity: float | UnsetType = UNSET  # the share of weights that are zero, where the `Run` has one
    channels: float | UnsetType = UNSET  # the share of channels that were removed, where the `Run` has one
    megabytes: float | UnsetType = UNSET  # of a trained network's weights in a file, zeros left out
    network: str | UnsetType = UNSET  # the id of the row whose kept network this one is
    file_megabytes: float | UnsetType = UNSET  # of a kept network's graph, as it is exported
    memory_megabytes: float | UnsetType = UNSET  # that a kept network adds to a process that runs it
    rate: float | UnsetType = UNSET  # photos a second of a kept network, one at a time, on one core
    bands: Mapping[str, Band] | None = None  # errors over rare (`tail`), `medium`, frequent (`head`) classes
    val_top1_error: float | None = None  # over photos of the learned classes
    val_top1_error_all_classes: float | None = None  # over all; one of a pruned class counts as wrong
    val_macro_error: float | None = None  # over photos of the learned classes
    val_top1_error_interval: Interval | None = None
    val_top1_error_all_classes_interval: Interval | None = None
    val_macro_error_interval: Interval | None = None
    val_top5_error: float | None = None  # over photos of the learned classes
    val_log_loss: float | None = None  # in nats; None where scores are not logits
    taxonomic: TaxonomicError | None = None  # how far off mistakes are; None without taxonomic ranks
    settings: tuple[tuple[float, ...], ...] | UnsetType = UNSET  # for `tail`: chosen rates and strengths
    stopped: tuple[EarlyStop, ...] | UnsetType = UNSET  # for mode `early`: when each fold stopped
    member_weights: Mapping[str, float] | UnsetType = UNSET  # of each member of an ensemble by its label
    key: str = ""  # a digest of everything that the row depends on

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
        over: `all` photos; photos of `kept` classes; `macro`: the same, each class counting the same;
            `tail`: rare classes, each class counting the same.
    """

    table: str = ""  # of both rows
    row: str = ""  # its id
    reference: str = ""  # the id of the row that it is compared with
    over: OverPhotos = "all"
    value: float = 0.0  # negative where the row has the lower error
    interval: Interval = (0.0, 0.0)  # the 95 % CI
    photos: int = 0  # how many photos were compared
    tie: bool = True  # whether the interval contains zero


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
    """The photos of a study."""

    name: str = ""  # of the data set
    source: str = ""  # of the data set
    digest: str = ""  # of the data set
    photos: int = 0  # how many
    classes: int = 0  # how many
    rejected: Mapping[str, int] | None = None  # how many photos were rejected for each reason
    stats: Mapping[str, Any] | None = None  # as `fieldmark stats --json` prints it
    split: SplitFacts = SplitFacts()  # how the photos were divided
    prune_below: int | None = None  # classes with fewer training photos are pruned
    kept_classes: int = 0  # how many classes are left after pruning


@dataclass(frozen=True)
class StudyRecord(Record):
    """The content of `study.json`."""

    recipe: str = ""  # which recipe
    title: str = ""  # of the recipe
    command: str = ""  # what was typed; empty from Python
    commit_or_version: str = ""  # the version of fieldmark
    created: str = ""  # the time in UTC, ISO 8601
    finished: bool = True  # whether all rows are there
    seconds: float | None = None  # how long the study took; None until it is finished
    machine: Mapping[str, str | int] | None = None  # cores, processor, system
    versions: Mapping[str, str] | None = None  # of the libraries that the numbers depend on
    data: DataFacts = DataFacts()  # the photos
    rows: tuple[StudyRow, ...] = ()  # in the order of the recipe
    skipped: tuple[SkippedNetwork, ...] = ()  # networks that were left out
    differences: tuple[PairedDifference, ...] = ()  # of each row to its reference; empty until finished
    findings: tuple[Finding, ...] | UnsetType = UNSET  # answers to the paper's questions; once finished

    def table(self, name: str) -> list[StudyRow]:
        """Return the rows of one table."""
        return [row for row in self.rows if row.table == name]

    def difference(self, row_id: str, over: OverPhotos) -> PairedDifference | None:
        """Return the difference of a row to its reference; None where nothing was compared."""
        found = (each for each in self.differences if (each.row, each.over) == (row_id, over))
        return next(found, None)
