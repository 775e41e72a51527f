"""Print the results of studies as Markdown beside the paper's, or put them into a document.

    python scripts/study_table.py STUDY/study.json
    python scripts/study_table.py STUDY/study.json SMALL/study.json --into docs/paper.md

With `--into` the text replaces what stands between the comments `<!-- study:begin -->` and `<!--
study:end -->`. The results that it shows are stored in docs/paper.json, and a test compares the two;
`--again` renews the document from that file. Only the first study shows Table 3.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fieldmark.experiments import paper
from fieldmark.utils import io
from fieldmark.utils.errors import FieldmarkError, InputError

BEGIN, END = "<!-- study:begin -->", "<!-- study:end -->"

Row = Mapping[str, Any]

STORED = Path(__file__).parent.parent / "docs/paper.json"

_ROW = (
    *("id", "table", "label", "backbone", "transfer", "mode", "pruned", "epochs"),
    *("weights_short", "weights_complete", "val_log_loss"),
    *("val_top1_error", "val_top1_error_interval"),
    *("val_top1_error_all_classes", "val_top1_error_all_classes_interval"),
)
"""The keys of a row that the tables show."""

_OTHERS = {
    "table2": "Table 2",
    "figure4": "Figure 4",
    "test": "test photos",
    "ensemble": "future work",
    "epochs": "future work",
    "literal": "run literally",
}


def weights(row: Row) -> str:
    """Return the state of a row's initial weights: complete, partly random or random."""
    if row["transfer"] == "scratch":
        return "random (meant)"
    if row["mode"] == "ensemble" and not row["weights_complete"]:
        return "some members (partly) random"
    return str(row["weights_short"]).removesuffix(" weights") or "complete"


def error(row: Row, key: str = "val_top1_error") -> str:
    """Format an error with its interval: `0.149 (0.109 to 0.189)`."""
    if row[key] is None:
        return "–"
    low, high = row[f"{key}_interval"]
    return f"{row[key]:.3f} ({low:.3f} to {high:.3f})"


def networks(rows: Iterable[Row]) -> list[str]:
    """Return Table 3, one line per network, in the paper's order: random weights are not ranked."""
    lines = [
        "| Network | weights | our error, kept classes | our error, all classes | paper | row |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        theirs = paper.table_3(row["backbone"])
        cells = [
            f"{row['label']} (`{row['backbone']}`)",
            weights(row),
            error(row),
            error(row, "val_top1_error_all_classes"),
            f"{theirs:.2f}" if theirs is not None else "–",
            f"`{row['id']}`",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def others(rows: Iterable[Row]) -> list[str]:
    """Return all other rows of the study, in the order of the paper's tables."""
    places = list(_OTHERS)
    wanted = sorted((r for r in rows if r["table"] in places), key=lambda r: places.index(r["table"]))
    if not wanted:
        return []
    lines = [
        "| Part of the study | what | weights | our error, classes learned | all classes | log-loss "
        "| paper | row |",
        "|---" * 8 + "|",
    ]
    for row in wanted:
        cells = [
            _OTHERS[row["table"]],
            row["label"] + (f", {row['epochs']} epochs" if row["epochs"] else ""),
            weights(row),
            error(row),
            error(row, "val_top1_error_all_classes"),
            f"{row['val_log_loss']:.3f}",
            _paper(row),
            f"`{row['id']}`",
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
    """Describe the photos of a study and the pruning."""
    data, split = study["data"], study["data"]["split"]
    return (
        f"{data['name']}: {data['photos']:,} photos of {data['classes']} classes; {split['train']:,} "
        f"training, {split['val']:,} validation and {split['test']:,} test photos ({split['way']} "
        f"split, seed {split['seed']}). Pruned: classes with fewer than {data['prune_below']} training "
        f"photos; {data['kept_classes']} of {data['classes']} are kept. In parentheses: the 95 % CI. "
        f"The paper's errors are for {paper.CLASSES:,} classes, so a lower error here is no "
        "improvement on it. A row with random weights shows that the method runs, not how good the "
        "network is."
    )


def render(study: Mapping[str, Any], *, first: bool = True) -> str:
    """Return the text of a study as Markdown."""
    rows = study["rows"]
    parts = [networks(row for row in rows if row["table"] == "table3")] if first else []
    parts.append(others(rows))
    if not study["finished"]:
        parts.insert(0, ["This study is not finished."])
    findings = [f"- {each['question']} {each['answer']}" for each in study.get("findings", ())]
    texts = ["\n".join(part) for part in parts if part] + [about(study), "\n".join(findings)]
    return "\n\n".join(text for text in texts if text) + "\n"


def typed(study: Row) -> str:
    """Return the command of a study without the folders of one machine."""
    return " ".join(Path(word).name if "/" in word else word for word in study["command"].split())


def stored(study: Row) -> Row:
    """Return the part of a study that its text shows."""
    about_data = ("name", "photos", "classes", "split", "prune_below", "kept_classes")
    rows = [{name: row[name] for name in _ROW} for row in study["rows"]]
    return {
        "command": typed(study),
        "finished": study["finished"],
        "data": {name: study["data"][name] for name in about_data},
        "rows": rounded(rows),
        "findings": study["findings"],
    }


def rounded(value: Any) -> Any:
    """Round all numbers to six digits."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list) else value


def filled(document: str, studies: Iterable[Row], name: str) -> str:
    """Return the document with the text of all studies renewed from the stored results."""
    texts = [f"`{study['command']}`:\n\n{render(study, first=at == 0)}" for at, study in enumerate(studies)]
    return fill(document, "\n".join(texts), name)


def fill(document: str, text: str, name: str, begin: str = BEGIN, end: str = END) -> str:
    """Return the document with the text between its two comments.

    Raises:
        InputError: the comments do not occur once each and in order.
    """
    if document.count(begin) != 1 or document.count(end) != 1:
        raise InputError(f"{name} must hold {begin} and {end} once each: add them.")
    before, _, rest = document.partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise InputError(f"{name} holds {end} before {begin}: put them in order.")
    return f"{before}{begin}\n\n{text}\n{end}{after}"


def main() -> None:
    """Parse the arguments; print the text or fill the document."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("study", type=Path, nargs="*", help="a study.json that `fieldmark study` wrote")
    parser.add_argument("--into", type=Path, help="a Markdown file with the two comments")
    parser.add_argument("--again", action="store_true", help="from the results stored in docs/paper.json")
    given = parser.parse_args()
    if given.again == bool(given.study):
        parser.error("name a study.json, or --again")
    try:
        if given.again:
            studies = io.read_json(STORED)["studies"]
        else:
            studies = [stored(io.read_json(path)) for path in given.study]
        if given.into is None:
            sys.stdout.write("\n".join(render(each) for each in studies))
            return
        document = given.into.read_text(encoding="utf-8")
        io.write_text(given.into, filled(document, studies, str(given.into)))
        io.write_text(STORED, json.dumps({"studies": studies}, indent=1, ensure_ascii=False) + "\n")
    except FieldmarkError as problem:
        sys.exit(str(problem))


if __name__ == "__main__":
    main()
