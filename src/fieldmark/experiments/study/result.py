"""The result of a study, for use from Python."""

from __future__ import annotations

import shutil
import weakref
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldmark.evaluation.results import Evaluation
from fieldmark.experiments.records import PairedDifference, StudyRecord, StudyRow
from fieldmark.utils import io

if TYPE_CHECKING:
    import polars as pl

_COLUMNS = (
    *("table", "label", "id", "backbone", "weights", "weights_complete", "transfer"),
    *("mode", "part", "pruned", "epochs", "classes", "photos"),
)


class _Finalised:
    """An object whose end removes a folder."""


@dataclass(frozen=True)
class StudyResult:
    """The result of a study."""

    record: StudyRecord  # the content of `study.json`
    folder: Path  # of `study.json`, `report.html` and the saved scores
    _lifetime: _Finalised = field(default_factory=_Finalised, repr=False, compare=False)

    @classmethod
    def within(cls, folder: Path, *, temporary: bool) -> StudyResult:
        """Return an empty result; a temporary folder is removed with the last result in it."""
        result = cls(StudyRecord(), folder)
        if temporary:
            weakref.finalize(result._lifetime, shutil.rmtree, folder, ignore_errors=True)
        return result

    @classmethod
    def load(cls, folder: str | Path) -> StudyResult:
        """Read the folder of a study; raises InputError if there is none, or it is damaged."""
        path = Path(folder) / "study.json"
        return cls(StudyRecord.from_dict(io.read_json(path), path), Path(folder))

    @property
    def rows(self) -> tuple[StudyRow, ...]:
        """The rows in the order of the recipe."""
        return self.record.rows

    def row(self, row_id: str) -> StudyRow:
        """Return a row by its id."""
        return next(each for each in self.rows if each.id == row_id)

    @property
    def differences(self) -> tuple[PairedDifference, ...]:
        """Each row minus the reference of its table, on the same photos."""
        return self.record.differences

    def evaluation(self, row: StudyRow) -> Evaluation:
        """Return the saved scores of a row."""
        return Evaluation.load(self.folder / row.scores)

    def to_dict(self) -> dict[str, Any]:
        """Return the content of `study.json`."""
        return self.record.to_dict()

    def __getitem__(self, name: str) -> Any:
        """Return a value of `study.json` by its key."""
        return self.record[name]

    def to_frame(self) -> pl.DataFrame:
        """Return a Polars frame with one row for each run; null stands for what was not measured.

        Its columns: `table`, `label`, `id`, `backbone`, `weights`, `weights_complete`, `transfer`, `mode`,
        `part`, `pruned`, `epochs`, `classes`, `photos`; the shares `top1_error`, `top1_error_all_classes`,
        `macro_error` and `rare_error`, each with `_low` and `_high` (95 % CI), and `top5_error`;
        `log_loss_nats`; `height`, the mean height of the lowest common ancestor; `rare_classes`;
        `train_seconds`, `extract_seconds`, `giga_macs`, `photo_ms`; the row's `reference`, and the paired
        differences to it: `difference_all`, `difference_kept`, `difference_macro` and `difference_tail`,
        each with `_low`, `_high` and `_tie`.
        """
        import polars as pl

        return pl.DataFrame([self._flat(row) for row in self.rows], infer_schema_length=None)

    def _flat(self, row: StudyRow) -> dict[str, Any]:
        flat: dict[str, Any] = {name: row[name] for name in _COLUMNS}
        for name in ("top1_error", "top1_error_all_classes", "macro_error"):
            flat |= _interval(name, row[f"val_{name}"], row[f"val_{name}_interval"])
        flat |= {"top5_error": row.val_top5_error, "log_loss_nats": row.val_log_loss}
        flat["height"] = row.taxonomic.height if row.taxonomic else None
        flat |= _interval("rare_error", row.tail.error, row.tail.interval)
        flat["rare_classes"] = row.tail.classes
        for name in ("train_seconds", "extract_seconds", "giga_macs", "photo_ms"):
            flat[name] = row[name]
        found = {each.over: each for each in self.differences if each.row == row.id}
        flat["reference"] = next((each.reference for each in found.values()), None)
        for over in ("all", "kept", "macro", "tail"):
            each, name = found.get(over), f"difference_{over}"
            flat |= _interval(name, each.value, each.interval) if each else _interval(name, None, None)
            flat[f"{name}_tie"] = each.tie if each else None
        return flat


def _interval(
    name: str, value: float | None, interval: tuple[float, float] | None
) -> dict[str, float | None]:
    low, high = interval or (None, None)
    return {name: value, f"{name}_low": low, f"{name}_high": high}
