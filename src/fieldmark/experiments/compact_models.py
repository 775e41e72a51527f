"""Make the best small model of a study an ordinary classifier: chosen by its validation error in a budget."""

from __future__ import annotations

import logging
import math
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
from fieldmark.training.finetune import split_trained
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

    def allows(self, row: StudyRow) -> bool:
        """Whether a row was measured, and keeps within the budget."""
        most = ((row.file_megabytes, self.megabytes), (row.memory_megabytes, self.memory_megabytes))
        is_known = isinstance(row.rate, float) and _val_error(row) is not None
        within = all(limit is None or (isinstance(x, float) and x <= limit) for x, limit in most)
        return is_known and within and (self.rate is None or float(row.rate) >= self.rate)  # type: ignore[arg-type]


def _val_error(row: StudyRow) -> float | None:
    """The error on validation photos after the last epoch: the test part is for the report alone."""
    return row.curve[-1].val_error if row.curve else None


def choose(rows: tuple[StudyRow, ...], budget: Budget) -> StudyRow:
    """Return the row with the lowest validation error in the budget; of equal ones the smallest file.

    Raises:
        InputError: no row has a kept network, or none keeps within the budget.
    """
    measured = [row for row in rows if Budget().allows(row)]
    if not measured:
        raise InputError("The study has no models to choose from: run fieldmark study compact.")
    within = [row for row in measured if budget.allows(row)]
    if not within:
        smallest = min(measured, key=_megabytes)
        fastest = max(measured, key=lambda row: float(row.rate))  # type: ignore[arg-type]
        raise InputError(
            f"No model of the study keeps within this budget: the smallest file has "
            f"{_megabytes(smallest):.1f} MB ({smallest.label}), and the fastest model does "
            f"{fastest.rate:.0f} photos a second ({fastest.label}): allow "
            "more, or add smaller networks to the study with --backbone."
        )
    return min(within, key=lambda row: (_val_error(row), _megabytes(row)))


def _megabytes(row: StudyRow) -> float:
    return float(row.file_megabytes)  # type: ignore[arg-type]


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
        network = compacting.read(folder, kept, backbone, len(data.splits.classes))
        trained, head = split_trained(backbone, network)
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
    logger.info(
        f"{row.label}: validation error {_val_error(row):.1%}, {_megabytes(row):.1f} MB, "
        f"{row.rate:.0f} photos a second on one core"
    )
    config = TrainConfig(
        backbone=row.backbone, transfer="all", epochs=row.epochs, seed=found.record.data.split.seed
    )
    return train_by(KeptStrategy(found, row, config), out, command=command)
