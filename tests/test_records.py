"""Records are written as JSON and read back without a change."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from msgspec import UNSET

from fieldmark.evaluation.results import Band, Evaluation, EvaluationSummary
from fieldmark.experiments.records import (
    CurvePoint,
    EarlyStop,
    Finding,
    PairedDifference,
    StudyRecord,
    StudyRow,
)
from fieldmark.utils.errors import InputError
from fieldmark.utils.records import Record

ROW = StudyRow(
    id="a",
    table="t",
    label="A",
    curve=(CurvePoint(1, 0.5, None, 0.25),),
    bands={"tail": Band(1, 1, 2, 0.5, (0.25, 0.75))},
    val_top1_error=0.25,
    val_top1_error_interval=(0.125, 0.5),
    stopped=(EarlyStop(1e-3, 4, 2),),
)
STUDY = StudyRecord(
    recipe="own",
    rows=(ROW,),
    differences=(PairedDifference("t", "b", "a", "all", -0.25, (-0.5, 0.125), 8, True),),
    findings=(Finding("Why?", "So.", "not said"),),
)


@pytest.mark.parametrize("record", [ROW, STUDY, replace(STUDY, findings=UNSET)])
def test_what_is_written_is_what_is_read(record: Record) -> None:
    text = json.dumps(record.to_dict(), allow_nan=False)
    assert type(record).from_dict(json.loads(text)) == record


def test_a_value_that_is_not_set_has_no_key() -> None:
    assert "settings" not in ROW.to_dict()
    assert "findings" not in replace(STUDY, findings=UNSET).to_dict()
    assert ROW["stopped"][0].epochs == 4
    for name in ("settings", "no such key"):
        with pytest.raises(KeyError, match=name):
            ROW[name]


def test_tuples_are_lists_in_json() -> None:
    told = ROW.to_dict()
    assert told["val_top1_error_interval"] == [0.125, 0.5]
    assert told["bands"]["tail"]["interval"] == [0.25, 0.75]
    assert told["curve"] == [{"epoch": 1, "train_loss": 0.5, "val_loss": None, "val_error": 0.25}]


def test_a_summary_is_read_back_from_its_file() -> None:
    scores, labels = np.eye(4, dtype=np.float32), np.array([0, 1, 2, 2])
    one = Evaluation(scores, labels, tuple("abcd"), tuple("wxyz"), (None,) * 4, ("Birds",) * 4)
    for counts in (None, {"w": 3}):
        summary = one.summary(train_counts=counts)
        back = EvaluationSummary.from_dict(json.loads(json.dumps(summary.to_dict())))
        assert back == summary
        assert ("train_photos" in summary.to_dict()["per_class"][0]) == bool(counts)


def test_values_of_another_type_are_one_sentence() -> None:
    with pytest.raises(InputError, match=r"rows/a\.json is not a StudyRow .*photos.*: delete it"):
        StudyRow.from_dict({"photos": "many"}, Path("rows/a.json"))
    with pytest.raises(InputError, match="EvaluationSummary that fieldmark wrote"):
        EvaluationSummary.from_dict({})
