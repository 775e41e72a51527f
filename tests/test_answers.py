"""The answers in words, from rows whose differences are known."""

from __future__ import annotations

from typing import Any

from fieldmark.experiments import answers
from fieldmark.experiments.records import StudyRecord


def answer(study: dict[str, Any], table: str) -> str:
    return answers.of(StudyRecord.from_dict(study), table)


def row(name: str, error: float, rare: float, **more: Any) -> dict[str, Any]:
    return {
        "id": name,
        "label": name,
        "table": more.pop("table", "tail"),
        "val_top1_error": error,
        "bands": {"tail": {"error": rare}},
        "classes": 10,
        "epochs": 10,
        **more,
    }


def compared(name: str, over: str, value: float, low: float, high: float) -> dict[str, Any]:
    tie = low <= 0 <= high
    return {"row": name, "over": over, "value": value, "interval": [low, high], "tie": tie}


def test_a_method_is_worth_it_where_it_helps_enough_and_costs_little() -> None:
    rows = [
        row("plain", 0.100, 0.40),
        row("good", 0.102, 0.36),
        row("dear", 0.103, 0.10),
        row("weak", 0.090, 0.37),
    ]
    said = answer({"rows": rows}, "tail")
    reached, _, rest = said.partition("Not reached")
    assert "good (-10.0% over rare classes, +2.0% over all photos)" in reached
    assert "dear" not in reached
    assert "weak" not in reached
    assert "dear (-75.0%" in rest
    assert "weak (-7.5%" in rest
    assert "by no method" in answer({"rows": [rows[0], rows[2]]}, "tail")


def test_pruning_is_answered_on_the_kept_classes_and_on_all_photos() -> None:
    rows = [row(name, 0.1, 0.4, table="prune") for name in ("All", "20", "30", "50")]
    differences = [
        compared("20", "kept", -0.01, -0.02, 0.01),
        compared("30", "kept", -0.02, -0.03, -0.01),
        compared("50", "kept", 0.02, 0.01, 0.03),
        compared("20", "all", 0.1, 0.0, 0.2),
        compared("50", "all", 0.3, 0.2, 0.4),
        compared("30", "all", 0.2, 0.1, 0.3),
    ]
    said = answer({"rows": rows, "differences": differences}, "prune")
    better = "1 of 3 rows are better than “All” (“30” -0.020 (-0.030 to -0.010));"
    worse = "2 of 3 are worse (“30” +0.200 (+0.100 to +0.300) to “50” +0.300 (+0.200 to +0.400))."
    assert better in said
    assert worse in said
    assert "0 of 3 rows are better than “All”;" in answer({"rows": rows}, "prune")


def test_stopping_early_is_set_beside_all_epochs() -> None:
    rows = [row(f"{epochs} epochs", 0.1, 0.4, table="epochs", epochs=epochs) for epochs in (10, 100)]
    early = row("Stopped", 0.1, 0.4, table="epochs", epochs=100)
    early["stopped"] = [{"epochs": 20, "kept": 15}, {"epochs": 31, "kept": 26}]
    differences = [
        compared("Stopped", "all", 0.01, -0.01, 0.02),
        compared("100 epochs", "all", -0.01, -0.02, -0.005),
    ]
    study = {"rows": [*rows, early], "differences": differences}
    said = answer(study, "epochs")
    assert "after 26 epochs on average (20 to 31) of at most 100" in said
    assert "“10 epochs” +0.010 (-0.010 to +0.020), a tie; all 100 epochs: -0.010" in said
    assert answer({"rows": rows, "differences": []}, "epochs") == ""


def test_a_table_without_a_question_or_without_rows_has_no_answer() -> None:
    assert answer({"rows": [row("a", 0.1, 0.4, table="heads")]}, "heads") == ""
    assert answer({"rows": [row("plain", 0.1, 0.4)]}, "tail") == ""
