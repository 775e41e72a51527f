"""Make the best small model of a study an ordinary classifier: chosen by its validation error in a budget."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fieldmark import models
from fieldmark.data.dataset import Dataset
from fieldmark.data.photos import PhotoTable
from fieldmark.data.split import Split
from fieldmark.experiments.records import CurvePoint, StudyRow
from fieldmark.experiments.study import StudyResult, compacting
from fieldmark.features.extractor import extractor_of
from fieldmark.heads.softmax import Epoch, Fit, Hyperparameters
from fieldmark.models import Backbone
from fieldmark.models.architecture import WeightsInfo
from fieldmark.training import TrainConfig, Trained
from fieldmark.training.run import train_by
from fieldmark.training.stages import Fitted, Prepared
from fieldmark.training.strategies.single import fitted
from fieldmark.utils import io
from fieldmark.utils.errors import InputError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Budget:
    """What a model may take; None: anything.

    Attributes:
        megabytes: of its graph, in a file.
        rate: at least so many photos a second, one at a time, on one core of the machine of the study.
        memory_megabytes: that running it adds to a process.
    """

    megabytes: float | None = None
    rate: float | None = None
    memory_megabytes: float | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise InputError(f"{name} of the budget is {value:g}: it must be above 0.")

    def allows(self, model: _Model) -> bool:
        """Whether a model keeps within the budget."""
        memory = math.inf if model.memory_megabytes is None else model.memory_megabytes
        most = ((model.megabytes, self.megabytes), (memory, self.memory_megabytes))
        within = all(limit is None or value <= limit for value, limit in most)
        return within and (self.rate is None or model.rate >= self.rate)


@dataclass(frozen=True)
class _Model:
    """A row whose network is kept: its error on validation photos, and what it takes."""

    row: StudyRow
    error: float
    megabytes: float
    memory_megabytes: float | None
    rate: float

    @classmethod
    def of(cls, row: StudyRow) -> _Model | None:
        """Return the model of a row; None where it has none, or no validation photo was measured.

        The error is that after the last epoch: the test part is for the report alone.
        """
        error = row.curve[-1].val_error if row.curve else None
        if error is None or not isinstance(row.file_megabytes, float) or not isinstance(row.rate, float):
            return None
        memory = row.memory_megabytes if isinstance(row.memory_megabytes, float) else None
        return cls(row, error, row.file_megabytes, memory, row.rate)

    def __str__(self) -> str:
        size, rate = f"{self.megabytes:.1f} MB", f"{self.rate:.0f} photos a second on one core"
        return f"{self.row.label}: validation error {self.error:.1%}, {size}, {rate}"


def choose(rows: Sequence[StudyRow], budget: Budget) -> StudyRow:
    """Return the row with the lowest validation error in the budget; of equal ones the smallest file.

    Raises:
        InputError: no row has a kept network, or none keeps within the budget.
    """
    measured = [model for row in rows if (model := _Model.of(row))]
    if not measured:
        raise InputError("The study has no models to choose from: run fieldmark study compact.")
    within = [model for model in measured if budget.allows(model)]
    if not within:
        smallest = min(measured, key=lambda model: model.megabytes)
        fastest = max(measured, key=lambda model: model.rate)
        raise InputError(
            f"No model of the study keeps within this budget: the smallest file has "
            f"{smallest.megabytes:.1f} MB ({smallest.row.label}), and the fastest model does "
            f"{fastest.rate:.0f} photos a second ({fastest.row.label}): allow more, or add smaller networks "
            "to the study with --backbone."
        )
    chosen, best = (
        min(those, key=lambda model: (model.error, model.megabytes)) for those in (within, measured)
    )
    logger.info(str(chosen))
    if chosen is not best:
        logger.info(f"Without the budget: {best}")
    return chosen.row


@dataclass(frozen=True)
class KeptStrategy:
    """Make a classifier of the network that a row of a study kept: nothing is trained again.

    Attributes:
        study: the study.
        row: the row.
        config: the choices of the study that a classifier records.
    """

    study: StudyResult
    row: StudyRow
    config: TrainConfig

    def prepare(self) -> Prepared:
        """Read the photos and the split of the study."""
        folder = self.study.folder
        table, split = PhotoTable.read(folder / "photos.parquet"), Split.read(folder / "split.parquet")
        return Prepared(Dataset(table, split, self.study.record.data.name), extractor_of(self.config))

    def fit(self, data: Prepared) -> Fitted:
        """Take the network and its last layer as they were kept, in the precision of the row."""
        row, folder = self.row, self.study.folder
        backbone, kept = models.load(row.backbone, weights="random"), str(row.network)
        trained, head = compacting.trained(folder, kept, backbone, len(data.splits.classes))
        trained = replace(trained, weights_info=_account(backbone, compacting.kept(folder, kept)))
        if row.mode == "int8":
            trained = compacting.quantised(trained, data.extractor, data.splits.train)
        data = data.compute({row.backbone: trained})
        curve = tuple(_epoch(each) for each in self.study.row(kept).curve)
        found = fitted(data, trained, [Fit(Hyperparameters(), head, curve)], self.config)
        about = {"study": str(folder), "row": row.label, "started_from": row.weights}
        return replace(found, details={**found.details, "compact": about})


def _account(backbone: Backbone, path: Path) -> WeightsInfo:
    """Say where the weights of a kept network came from."""
    tensors = len(backbone.network.state_dict())
    return WeightsInfo(str(path), io.file_digest(path), tensors, tensors)


def _epoch(point: CurvePoint) -> Epoch:
    values = (point.train_loss, point.val_loss, point.val_error)
    return Epoch(point.epoch, *(math.nan if each is None else each for each in values))


def compact(
    study: str | Path, out: str | Path, budget: Budget | None = None, *, command: str = ""
) -> Trained:
    """Make a classifier of the model of a study with the lowest validation error within a budget.

    It is calibrated on the validation part of the study, and measured on its test part, as any other.

    Args:
        study: the folder that `study` wrote with the recipe `compact`.
        out: the folder to write the classifier to.
        budget: what it may take; None: anything.
        command: what was typed, for the report.

    Raises:
        InputError: no model keeps within the budget, a file of the study is missing or damaged, or its photos
            are not where they were.
    """
    found = StudyResult.load(study)
    row = choose(found.rows, budget or Budget())
    config = TrainConfig(
        backbone=row.backbone, transfer="all", epochs=row.epochs, seed=found.record.data.split.seed
    )
    return train_by(KeptStrategy(found, row, config), out, command=command)
