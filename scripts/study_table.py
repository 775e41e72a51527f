"""Print a study's results as Markdown, beside what the paper prints; or put them into a document.

    python scripts/study_table.py DIR/study.json
    python scripts/study_table.py DIR/study.json --into README.md

With `--into` the text replaces what stands between the comments `<!-- study:begin -->` and
`<!-- study:end -->`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fieldmark import files
from fieldmark.errors import FieldmarkError, InputError
from fieldmark.report import paper

BEGIN, END = "<!-- study:begin -->", "<!-- study:end -->"

Row = Mapping[str, Any]

_OTHERS = {
    "table2": "Table 2",
    "figure4": "Figure 4",
    "test": "test photos",
    "ensemble": "future work",
    "epochs": "future work",
    "literal": "run literally",
}


def weights(row: Row) -> str:
    """What a row's network began from: complete, partly random or random."""
    if row["transfer"] == "scratch":
        return "random (meant)"
    if row["mode"] == "ensemble" and not row["weights_complete"]:
        return "some members (partly) random"
    return str(row["weights_short"]).removesuffix(" weights") or "complete"


def error(row: Row, key: str = "val_top1_error") -> str:
    """An error with its interval: `0.149 (0.109 to 0.189)`."""
    if row[key] is None:
        return "–"
    low, high = row[f"{key}_interval"]
    return f"{row[key]:.3f} ({low:.3f} to {high:.3f})"


def networks(rows: Iterable[Row]) -> list[str]:
    """Table 3: a line a network, in the paper's order: random weights are not ranked beside complete."""
    lines = [
        "| Network | weights | our error, kept classes | our error, all classes | paper |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        theirs = paper.table_3(row["backbone"])
        cells = [
            f"{row['label']} (`{row['backbone']}`)",
            weights(row),
            error(row),
            error(row, "val_top1_error_all_classes"),
            f"{theirs:.2f}" if theirs is not None else "–",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def others(rows: Iterable[Row]) -> list[str]:
    """Every other row of the study, in the order of the paper's tables."""
    places = list(_OTHERS)
    wanted = sorted(
        (r for r in rows if r["table"] in places), key=lambda r: places.index(r["table"])
    )
    if not wanted:
        return []
    lines = [
        "| Part of the study | what | weights | our error, classes learned | all classes | paper |",
        "|---|---|---|---|---|---|",
    ]
    for row in wanted:
        cells = [
            _OTHERS[row["table"]],
            f"{row['label']}, {row['epochs']} epochs",
            weights(row),
            error(row),
            error(row, "val_top1_error_all_classes"),
            _paper(row),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _paper(row: Row) -> str:
    if row["table"] == "table2":
        return f"{paper.TABLE_2['pruned' if row['pruned'] else 'complete']:.2f}"
    if row["table"] == "test":
        return f"{paper.TEST_ERROR:.2f} (ResNeXt)"
    return {"figure4": "a curve", "literal": "–"}.get(row["table"], "not run")


def about(study: Mapping[str, Any]) -> str:
    """One paragraph: on which photos, and what was pruned."""
    data, split = study["data"], study["data"]["split"]
    return (
        f"{data['name']}: {data['photos']:,} photos of {data['classes']} classes; {split['train']:,} to "
        f"train, {split['val']:,} to validate, {split['test']:,} to test ({split['way']}, seed "
        f"{split['seed']}). Pruned: classes with fewer than {data['prune_below']} training photos; "
        f"{data['kept_classes']} of {data['classes']} are kept. In parentheses the 95 % interval. The "
        f"paper's errors are for {paper.CLASSES:,} classes, so a lower error here is no improvement "
        "on it. A network with random weights shows that the way works, not how good the network is."
    )


def render(study: Mapping[str, Any]) -> str:
    """The whole text, as Markdown."""
    rows = study["rows"]
    parts = [networks(row for row in rows if row["table"] == "table3"), others(rows)]
    if not study["finished"]:
        parts.insert(0, ["This study is not finished."])
    return "\n\n".join(["\n".join(part) for part in parts if part] + [about(study)]) + "\n"


def fill(document: str, text: str, name: str, begin: str = BEGIN, end: str = END) -> str:
    """The document with the text between its two comments.

    Raises:
        InputError: the comments are not there once each and in order.
    """
    if document.count(begin) != 1 or document.count(end) != 1:
        raise InputError(f"{name} must hold {begin} and {end} once each: add them.")
    before, _, rest = document.partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise InputError(f"{name} holds {end} before {begin}: put them in order.")
    return f"{before}{begin}\n\n{text}\n{end}{after}"


def main() -> None:
    """Read what was typed, and print or fill in."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("study", type=Path, help="a study.json that `fieldmark study` wrote")
    parser.add_argument("--into", type=Path, help="a Markdown file with the two comments")
    given = parser.parse_args()
    try:
        text = render(files.read_json(given.study))
        if given.into is None:
            sys.stdout.write(text)
        else:
            document = given.into.read_text(encoding="utf-8")
            files.write_text(given.into, fill(document, text, str(given.into)))
    except FieldmarkError as problem:
        sys.exit(str(problem))


if __name__ == "__main__":
    main()
