"""Fill a document with the options that `fieldmark train --quality best` compared.

    fieldmark train PHOTOS --out MODEL --quality best --budget 30m --weights-dir WEIGHTS
    python scripts/best_table.py MODEL/classifier.json --into docs/better.md

The tables replace the text between `<!-- best:begin -->` and `<!-- best:end -->`. The results are
stored in best.json beside the document, and a test compares the two; `--again` renews the document from
that file.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from study_table import fill, rounded

from fieldmark.utils import io
from fieldmark.utils.errors import FieldmarkError

_KEYS = ("budget_seconds", "chosen", "photos", "classes", "seconds", "test", "passed_over", "tried")


def stored(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a classifier's provenance that the tables show."""
    # Without the folders of one machine.
    words = provenance["command"].split()[1:]
    command = " ".join(["fieldmark", *(Path(w).name if "/" in w else w for w in words)])
    found = {"command": command, **{name: provenance[name] for name in _KEYS}}
    more = {name: provenance[name] for name in ("tuned", "beside") if name in provenance}
    found: dict[str, Any] = rounded({"tuned": []} | found | more)
    return found


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """Return the lines about one run."""
    minutes = found["seconds"]["in all"] / 60
    yield f"`{found['command']}`: {minutes:.1f} minutes, {found['classes']:,} classes."
    beside = found.get("beside", {}).get("said", "")
    yield f"{found['chosen']['how']} {found['test']} {beside}".rstrip()
    yield ""
    yield from _options(found["tried"], "the first candidate, the default of `train`")
    if found["tuned"]:
        yield from _options(found["tuned"], "the best option without fine-tuned networks")
    yield f"Not tried: {len(found['passed_over'])}."
    yield ""
    yield from (f"- {why}" for why in found["passed_over"])
    yield ""
    yield "Rows of `tried` and `tuned` in `MODEL/classifier.json`; `MODEL/report.html` shows them too."


def _options(rows: list[Mapping[str, Any]], reference: str) -> Iterator[str]:
    yield f"On {rows[0]['photos']:,} photos; reference: {reference}."
    yield ""
    yield "| | log-loss | top-1 error | difference to the reference | cost per photo | reason |"
    yield "|---|---|---|---|---|---|"
    for row in rows:
        error = "{:.3f} ({:.3f} to {:.3f})".format(row["error"], *row["interval"])
        apart = "the reference"
        if row["apart"] is not None:
            low, high = row["apart_interval"]
            apart = f"{row['apart']:+.3f} ({low:+.3f} to {high:+.3f})"
            apart += ", a tie" if low <= 0 <= high else ""
        name = f"**{row['name']}**" if row["taken"] else row["name"]
        cost = f"{row['times_default']:.1f}"
        yield f"| {name} | {row['log_loss']:.3f} | {error} | {apart} | {cost} | {row['why']} |"
    yield ""


def filled(document: str, found: Mapping[str, Any], name: str) -> str:
    """Return the document with the tables renewed from the stored results."""
    text = "\n".join(lines(found)) + "\n"
    return fill(document, text, name, "<!-- best:begin -->", "<!-- best:end -->")


def main() -> None:
    """Parse the arguments and fill the document."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    given_as = parser.add_mutually_exclusive_group(required=True)
    given_as.add_argument("classifier", type=Path, nargs="?", help="MODEL/classifier.json")
    given_as.add_argument("--again", action="store_true", help="from the results stored beside it")
    parser.add_argument("--into", type=Path, required=True, help="a Markdown file with comments")
    given = parser.parse_args()
    beside = given.into.with_name("best.json")
    try:
        if given.classifier is not None:
            io.write_json(beside, stored(io.read_json(given.classifier)["provenance"]))
        document = given.into.read_text(encoding="utf-8")
        io.write_text(given.into, filled(document, io.read_json(beside), str(given.into)))
    except FieldmarkError as problem:
        sys.exit(str(problem))


if __name__ == "__main__":
    main()
