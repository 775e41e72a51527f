"""Fill the tables of docs/better.md from what `fieldmark study better` wrote: no number is typed.

    fieldmark rank PHOTOS --against STUDY/study.json --json > ranking.json
    python scripts/better_table.py STUDY/study.json --ranking ranking.json --into docs/better.md

Each table of the study replaces what stands between `<!-- TABLE:begin -->` and `<!-- TABLE:end -->`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from study_table import error, fill

from fieldmark import files
from fieldmark.errors import FieldmarkError

Row = Mapping[str, Any]

COLUMNS: dict[str, tuple[str, ...]] = {
    "heads": ("error", "macro", "all", "cost"),
    "views": ("error", "macro", "all", "cost"),
    "tail": ("error", "macro", "tail", "medium", "head", "all", "tail-difference"),
    "tail-test": ("error", "macro", "tail", "all", "tail-difference"),
    "prune": ("classes", "error", "every", "kept", "all"),
    "epochs": ("error", "macro", "all"),
    "networks": ("weights", "error", "macro", "all", "cost"),
    "together": ("weights", "members", "error", "macro", "all", "cost"),
}
"""What a table shows of each row, in order."""

TITLES = {
    "error": "error",
    "macro": "error, classes alike",
    "every": "error over all photos",
    "tail": "rare classes",
    "medium": "classes between",
    "head": "frequent classes",
    "all": "less the reference, all photos",
    "kept": "less the reference, kept classes",
    "tail-difference": "less the reference, rare classes",
    "cost": "giga-MACs, ms a photo",
    "weights": "weights",
    "members": "weight of each",
    "classes": "classes",
}


def band(row: Row, name: str) -> str:
    """The error over a band of classes with its interval."""
    found = row["bands"][name]
    if found["error"] is None:
        return "–"
    low, high = found["interval"]
    return f"{found['error']:.3f} ({low:.3f} to {high:.3f})"


def less(study: Row, row: Row, over: str) -> str:
    """The paired difference to the table's reference; a tie is called one."""
    for each in study["differences"]:
        if each["row"] == row["id"] and each["over"] == over:
            low, high = each["interval"]
            word = ", a tie" if each["tie"] else ""
            return f"{each['value']:+.3f} ({low:+.3f} to {high:+.3f}){word}"
    return "the reference" if not any(d["row"] == row["id"] for d in study["differences"]) else "–"


def cost(row: Row) -> str:
    """What one answer costs."""
    milliseconds = "–" if row["photo_ms"] is None else f"{row['photo_ms']:.1f}"
    return f"{row['giga_macs']:.2f}, {milliseconds}"


def cell(study: Row, row: Row, column: str) -> str:
    """One cell."""
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
    }
    return ways[column]()


def table(study: Row, name: str) -> str:
    """One table of the study, and the photos that it speaks of, as Markdown."""
    rows = [row for row in study["rows"] if row["table"] == name]
    columns = COLUMNS[name]
    lines = [
        f"| | {' | '.join(TITLES[each] for each in columns)} | row |",
        "|---" * (len(columns) + 2) + "|",
    ]
    for row in rows:
        cells = [cell(study, row, each) for each in columns]
        lines.append(f"| {row['label']} | {' | '.join(cells)} | `{row['id']}` |")
    return "\n".join([*lines, "", about(study, rows)]) + "\n"


def about(study: Row, rows: Sequence[Row]) -> str:
    """Which photos, and the command."""
    first, bands = rows[0], rows[0]["bands"]
    part = {"cross": "training and validation photos, in folds", "test": "test photos"}
    counts = ", ".join(
        f"{bands[each]['classes']} {word} ({bands[each]['photos']:,} photos)"
        for each, word in (("tail", "rare"), ("medium", "between"), ("head", "frequent"))
    )
    return (
        f"{study['data']['name']}, {first['photos']:,} {part[first['part']]}; classes: {counts}. "
        f"`{study['command']} --only {first['table']}`, rows of `study.json`."
    )


def ranking(found: Row) -> str:
    """What `fieldmark rank --json` printed, as Markdown."""
    lines = [
        "| network | weights | ridge | nearest class mean | LogME | giga-MACs | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in found["networks"]:
        low, high = row["ridge"]["interval"]
        cells = [
            f"`{row['backbone']}`",
            "complete" if row["weights_complete"] else "(partly) random",
            f"{row['ridge']['error']:.3f} ({low:.3f} to {high:.3f})"
            + (", a tie with the first" if row["tie"] else ""),
            f"{row['ncm']['error']:.3f}",
            f"{row['logme']:.3f}",
            f"{row['giga_macs']:.2f}",
            f"{row['seconds']:.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    told = found["agreement"]
    lines += [
        "",
        f"{found['photos']:,} photos of {found['classes']} classes, features kept already. Spearman's "
        f"rank correlation with the trained heads of {told['networks']} networks: ridge "
        f"{told['ridge']:.2f}, means {told['ncm']:.2f}, LogME {told['logme']:.2f}. So few networks, as "
        "far apart as these, say that the order is not wrong, and no more.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Read what was typed, and fill in."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("study", type=Path, help="a study.json of the recipe `better`")
    parser.add_argument("--ranking", type=Path, help="what rank --json printed")
    parser.add_argument("--into", type=Path, required=True, help="a Markdown file with comments")
    given = parser.parse_args()
    try:
        study = files.read_json(given.study)
        # Where photos and weights lay is one machine's business.
        words = study["command"].split()
        # Which tables this run was asked for is said below each of them.
        words = [w for at, w in enumerate(words) if "--only" not in (w, words[at - 1])]
        plain = " ".join(Path(word).name if "/" in word else word for word in words)
        study = {**study, "command": plain}
        document = given.into.read_text(encoding="utf-8")
        found = {row["table"] for row in study["rows"]}
        for name in (name for name in COLUMNS if name in found):
            begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
            document = fill(document, table(study, name), str(given.into), begin, end)
        if given.ranking is not None:
            begin, end = "<!-- ranking:begin -->", "<!-- ranking:end -->"
            text = ranking(files.read_json(given.ranking))
            document = fill(document, text, str(given.into), begin, end)
        files.write_text(given.into, document)
    except FieldmarkError as problem:
        sys.exit(str(problem))


if __name__ == "__main__":
    main()
