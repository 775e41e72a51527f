"""Fill the tables of a document from the output of `fieldmark study` and `fieldmark rank`.

    fieldmark rank PHOTOS --against STUDY/study.json --json > ranking.json
    python scripts/better_table.py STUDY/study.json --ranking ranking.json --into docs/better.md
    python scripts/better_table.py STUDY/study.json --into docs/finetune.md

Each table of the study replaces the text between `<!-- TABLE:begin -->` and `<!-- TABLE:end -->`, the
answer to its question (`fieldmark.experiments.answers`) the text between `<!-- TABLE-answer:begin -->`
and its end. The results are stored beside the document (docs/better.json), and a test compares the two.
`--again` renews the document from that file.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from study_table import error, fill, rounded, typed

from fieldmark.experiments import answers
from fieldmark.experiments.records import StudyRecord, StudyRow
from fieldmark.utils import io
from fieldmark.utils.errors import FieldmarkError

Row = Mapping[str, Any]

COLUMNS: dict[str, tuple[str, ...]] = {
    "heads": ("error", "macro", "all", "cost"),
    "views": ("error", "macro", "all", "cost"),
    "tail": ("error", "macro", "tail", "medium", "head", "all", "tail-difference"),
    "tail-test": ("error", "macro", "tail", "medium", "head", "all", "tail-difference"),
    "prune": ("classes", "error", "every", "kept", "all"),
    "epochs": ("passes", "least", "error", "macro", "all"),
    "networks": ("weights", "error", "macro", "all", "cost"),
    "together": ("weights", "members", "error", "macro", "all", "cost"),
    "tuned": ("error", "macro", "loss", "all"),
    "parts": ("error", "macro", "loss", "all"),
}
"""The columns of each table, in order."""

TITLES = {
    "error": "top-1 error",
    "macro": "macro error",
    "every": "top-1 error, all photos",
    "tail": "rare classes",
    "medium": "medium classes",
    "head": "frequent classes",
    "all": "difference to the reference, all photos",
    "kept": "difference to the reference, kept classes",
    "tail-difference": "difference to the reference, rare classes",
    "cost": "giga-MACs, ms per photo",
    "weights": "weights",
    "members": "weight of each",
    "classes": "classes",
    "passes": "epochs run",
    "least": "lowest loss, after epoch; at the end",
    "loss": "log-loss",
}

ANSWERED = ("tail", "tail-test", "prune", "epochs", "tuned", "parts")
"""The tables with an answer in sentences."""

_KEYS = (
    *("id", "table", "label", "part", "photos", "classes", "epochs", "bands", "giga_macs", "photo_ms"),
    *("weights_short", "member_weights", "settings", "stopped", "val_log_loss"),
    *("val_top1_error", "val_top1_error_interval", "val_macro_error", "val_macro_error_interval"),
    *("val_top1_error_all_classes", "val_top1_error_all_classes_interval"),
)
"""The keys of a row that the tables show."""


def stored(study: Row, ranking: Row | None) -> Row:
    """Return the results that the tables of a document show."""
    # The line below each table names the table.
    words = typed(study).split()
    words = [w for at, w in enumerate(words) if "--only" not in (w, words[at - 1])]
    names = {row["id"] for row in study["rows"] if row["table"] in COLUMNS}
    differences = [
        {name: each[name] for name in ("row", "over", "value", "interval", "tie")}
        for each in study["differences"]
        if each["row"] in names and each["over"] in ("all", "kept", "tail")
    ]
    rows = [
        {name: row[name] for name in _KEYS if name in row} | _losses(row)
        for row in study["rows"]
        if row["id"] in names
    ]
    found = {
        "command": " ".join(words),
        "data": {"name": study["data"]["name"]},
        "cores": study["machine"]["cores"],
        "rows": rows,
        "differences": differences,
    }
    return rounded({"study": found} | ({"ranking": ranking} if ranking else {}))


def _losses(row: Row) -> Row:
    """Return the lowest and the last validation loss of a learning curve."""
    if row["table"] != "epochs":
        return {}
    least = min(row["curve"], key=lambda each: each["val_loss"])
    return {"curve": [least, row["curve"][-1]]}


def write(found: Row, path: Path) -> None:
    """Write the results, one row per line, so that a change of one row changes one line."""
    study = found["study"]
    parts = {name: study[name] for name in ("command", "data", "cores")}
    lists = (
        f'"{name}": [\n' + ",\n".join(json.dumps(each) for each in study[name]) + "\n]"
        for name in ("rows", "differences")
    )
    text = f'{{"study": {json.dumps(parts)[:-1]},\n{",".join(lists)}}}'
    if "ranking" in found:
        text += f',\n"ranking": {json.dumps(found["ranking"])}'
    io.write_text(path, text + "}\n")


def band(row: Row, name: str) -> str:
    """Format the error over a band of classes with its interval."""
    found = row["bands"][name]
    if found["error"] is None:
        return "–"
    low, high = found["interval"]
    return f"{found['error']:.3f} ({low:.3f} to {high:.3f})"


def less(study: Row, row: Row, over: str) -> str:
    """Format the paired difference to the table's reference, and whether it is a tie."""
    compared = any(each["row"] == row["id"] for each in study["differences"])
    record, own = StudyRecord.from_dict(study), StudyRow(id=row["id"])
    return answers.difference(record, own, over) or ("–" if compared else "the reference")


def passes(row: Row) -> str:
    """Format the number of epochs; after early stopping the mean over folds and their range."""
    run = [each["epochs"] for each in row.get("stopped", ())] or [row["epochs"]]
    return f"{sum(run) / len(run):.0f}" + (f" ({min(run)} to {max(run)})" if len(run) > 1 else "")


def lowest(row: Row) -> str:
    """Format the lowest and the last validation loss of the mean curve."""
    least, last = row["curve"]
    return f"{least['val_loss']:.3f}, {least['epoch']}; {last['val_loss']:.3f}"


def cost(row: Row) -> str:
    """Format the cost of one prediction."""
    milliseconds = "–" if row["photo_ms"] is None else f"{row['photo_ms']:.1f}"
    return f"{row['giga_macs']:.2f}, {milliseconds}"


def cell(study: Row, row: Row, column: str) -> str:
    """Format one cell."""
    if column in ("tail", "medium", "head"):
        return band(row, column)
    if column in ("all", "kept"):
        return less(study, row, column)
    if column == "tail-difference":
        return less(study, row, "tail")
    if column == "members":
        return ", ".join(f"{name} {w:.2f}" for name, w in row["member_weights"].items() if w)
    ways = {
        "error": lambda: error(row),
        "macro": lambda: error(row, "val_macro_error"),
        "every": lambda: error(row, "val_top1_error_all_classes"),
        "weights": lambda: row["weights_short"] or "complete",
        "classes": lambda: str(row["classes"]),
        "cost": lambda: cost(row),
        "passes": lambda: passes(row),
        "least": lambda: lowest(row),
        "loss": lambda: f"{row['val_log_loss']:.3f}",
    }
    return ways[column]()


def table(study: Row, name: str) -> str:
    """Return one table of the study, with the photos it was measured on, as Markdown."""
    rows = [row for row in study["rows"] if row["table"] == name]
    columns = COLUMNS[name]
    lines = [f"| | {' | '.join(TITLES[each] for each in columns)} | row |", "|---" * (len(columns) + 2) + "|"]
    for row in rows:
        cells = [cell(study, row, each) for each in columns]
        lines.append(f"| {row['label']} | {' | '.join(cells)} | `{row['id']}` |")
    return "\n".join([*lines, "", about(study, rows)]) + "\n"


def about(study: Row, rows: Sequence[Row]) -> str:
    """Describe the photos of a table, and give the command."""
    first, bands = rows[0], rows[0]["bands"]
    part = {"cross": "training and validation photos, out-of-fold predictions", "test": "test photos"}
    counts = ", ".join(
        f"{bands[each]['classes']} {word} ({bands[each]['photos']:,} photos)"
        for each, word in (("tail", "rare"), ("medium", "medium"), ("head", "frequent"))
    )
    return (
        f"{study['data']['name']}, {first['photos']:,} {part[first['part']]}; classes: {counts}. "
        f"`{study['command']} --only {first['table']}`, rows of `study.json`."
    )


def ranking(found: Row) -> str:
    """Return the output of `fieldmark rank --json` as Markdown."""
    lines = [
        "| network | weights | ridge | nearest class mean | giga-MACs | seconds |",
        "|---|---|---|---|---|---|",
    ]
    for row in found["networks"]:
        low, high = row["ridge"]["interval"]
        cells = [
            f"`{row['backbone']}`",
            "complete" if row["weights_complete"] else "(partly) random",
            f"{row['ridge']['error']:.3f} ({low:.3f} to {high:.3f})"
            + (", a tie with the first" if row["tie"] else ""),
            f"{row['ncm']['error']:.3f}",
            f"{row['giga_macs']:.2f}",
            f"{row['seconds']:.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    agreement = found["agreement"]
    lines += [
        "",
        f"{found['photos']:,} photos of {found['classes']} classes, features cached before. Spearman's "
        f"correlation with the trained heads of {agreement['networks']} networks: ridge "
        f"{agreement['ridge']:.2f}, class means {agreement['ncm']:.2f}. So few networks, with such "
        "large differences, show that the order is not wrong, and no more.",
    ]
    return "\n".join(lines) + "\n"


def filled(document: str, found: Row, name: str) -> str:
    """Return the document with all tables and answers renewed from the stored results."""
    study = found["study"]
    tables = {row["table"] for row in study["rows"]}
    texts = {table_: table(study, table_) for table_ in COLUMNS if table_ in tables}
    texts |= {
        f"{each}-answer": answers.of(StudyRecord.from_dict(study), each) + "\n"
        for each in ANSWERED
        if each in tables
    }
    if "ranking" in found:
        texts["ranking"] = ranking(found["ranking"])
    for part, text in texts.items():
        document = fill(document, text, name, f"<!-- {part}:begin -->", f"<!-- {part}:end -->")
    return document


def main() -> None:
    """Parse the arguments and fill the document."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    given_as = parser.add_mutually_exclusive_group(required=True)
    given_as.add_argument("study", type=Path, nargs="?", help="a study.json of `better` or `tuned`")
    given_as.add_argument("--again", action="store_true", help="from the results stored beside the document")
    parser.add_argument("--ranking", type=Path, help="the output of rank --json")
    parser.add_argument("--into", type=Path, required=True, help="a Markdown file with comments")
    given = parser.parse_args()
    try:
        beside = given.into.with_suffix(".json")
        if given.study is not None:
            ranked = io.read_json(given.ranking) if given.ranking is not None else None
            write(stored(io.read_json(given.study), ranked), beside)
        document = given.into.read_text(encoding="utf-8")
        io.write_text(given.into, filled(document, io.read_json(beside), str(given.into)))
    except FieldmarkError as problem:
        sys.exit(str(problem))


if __name__ == "__main__":
    main()
