"""Callbacks: functions of yours that are called while a classifier is trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fieldmark.heads.softmax import Epoch
from fieldmark.utils.errors import InputError


class Callback:
    """Called on progress, epochs and the final measures; override the methods that you need.

    What a method raises ends the training, and reaches the caller of `train`.
    """

    def on_progress(self, stage: str, done: int, total: int | None) -> None:
        """React to progress within a stage, such as `decoding`.

        Args:
            stage: what is under way.
            done: how many photos, epochs or folds are done.
            total: of how many; None where that is unknown.
        """

    def on_epoch(self, epoch: Epoch) -> None:
        """React to the end of an epoch; losses are mean cross-entropies in nats, errors shares."""

    def on_end(self, summary: Mapping[str, Any]) -> None:
        """React to the measures on the test part; see `Evaluation.summary` for the keys."""


class TensorBoardCallback(Callback):
    """Writes losses, errors and final measures for TensorBoard (`fieldmark[tensorboard]`).

    Args:
        folder: where TensorBoard looks for runs.

    Raises:
        InputError: TensorBoard is not installed.
    """

    def __init__(self, folder: str | Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise InputError("TensorBoard is not installed: pip install 'fieldmark[tensorboard]'.") from error
        self._writer = SummaryWriter(str(folder))

    def on_epoch(self, epoch: Epoch) -> None:
        """Write the losses and the error of an epoch."""
        for name, value in epoch.to_dict().items():
            if name != "epoch" and value is not None:
                self._writer.add_scalar(name, value, epoch.epoch)

    def on_end(self, summary: Mapping[str, Any]) -> None:
        """Write the measures, and close the file."""
        for name, value in _numbers(summary).items():
            self._writer.add_scalar(f"test/{name}", value)
        self._writer.close()


class MLflowCallback(Callback):
    """Logs losses, errors and final measures to the active MLflow run (`fieldmark[mlflow]`).

    Raises:
        InputError: MLflow is not installed.
    """

    def __init__(self) -> None:
        try:
            import mlflow
        except ImportError as error:
            raise InputError("MLflow is not installed: pip install 'fieldmark[mlflow]'.") from error
        self._log = mlflow.log_metrics

    def on_epoch(self, epoch: Epoch) -> None:
        """Log the losses and the error of an epoch."""
        told = {name: value for name, value in epoch.to_dict().items() if value is not None}
        step = int(told.pop("epoch"))
        self._log(told, step=step)

    def on_end(self, summary: Mapping[str, Any]) -> None:
        """Log the measures."""
        self._log({f"test_{name}": value for name, value in _numbers(summary).items()})


def _numbers(summary: Mapping[str, Any]) -> dict[str, float]:
    """The measures that are one number each."""
    return {
        name: float(value)
        for name, value in summary.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
