"""Fill a document with what `fieldmark train --quality best` tried: no number is typed.

    fieldmark train PHOTOS --out MODEL --quality best --budget 30m --weights-dir WEIGHTS
    python scripts/best_table.py MODEL/classifier.json --into docs/better.md

The tables replace what stands between `<!-- best:begin -->` and `<!-- best:end -->`. What they are made
from is kept in best.json beside the document, and a test compares the two; `--again` renews the
document from that file.
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

_KEPT = ("budget_seconds", "chosen", "photos", "classes", "seconds", "test", "passed_over", "tried")


def kept(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """What the tables are made from, of a classifier's provenance."""
    # Where photos and weights lay is one machine's business.
    words = provenance["command"].split()[1:]
    command = " ".join(["fieldmark", *(Path(w).name if "/" in w else w for w in words)])
    found = {"command": command, **{name: provenance[name] for name in _KEPT}}
    more = {name: provenance[name] for name in ("tuned", "beside") if name in provenance}
    found: dict[str, Any] = rounded({"tuned": []} | found | more)
    return found


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """All that is said of the run."""
    minutes = found["seconds"]["in all"] / 60
    yield f"`{found['command']}`: {minutes:.1f} minutes in all, {found['classes']:,} classes."
    beside = found.get("beside", {}).get("said", "")
    yield f"{found['chosen']['how']} {found['test']} {beside}".rstrip()
    yield ""
    yield from _options(found["tried"], "the first candidate, what `train` does by default")
    if found["tuned"]:
        yield from _options(found["tuned"], "what is best without trained networks")
    yield f"Passed over: {len(found['passed_over'])}."
    yield ""
    yield from (f"- {why}" for why in found["passed_over"])
    yield ""
    yield "Rows of `tried` and `tuned` in `MODEL/classifier.json`; `MODEL/report.html` has them too."


def _options(rows: list[Mapping[str, Any]], reference: str) -> Iterator[str]:
    yield f"On {rows[0]['photos']:,} photos; the reference is {reference}."
    yield ""
    yield "| | log-loss | error | less the reference | cost of a photo | why |"
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
    """The document with the tables made anew from what is kept."""
    text = "\n".join(lines(found)) + "\n"
    return fill(document, text, name, "<!-- best:begin -->", "<!-- best:end -->")


def main() -> None:
    """Read what was typed, and fill in."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    given_as = parser.add_mutually_exclusive_group(required=True)
    given_as.add_argument("classifier", type=Path, nargs="?", help="MODEL/classifier.json")
    given_as.add_argument("--again", action="store_true", help="from what is kept beside it")
    parser.add_argument("--into", type=Path, required=True, help="a Markdown file with comments")
    given = parser.parse_args()
    beside = given.into.with_name("best.json")
    try:
        if given.classifier is not None:
            io.write_json(beside, kept(io.read_json(given.classifier)["provenance"]))
        document = given.into.read_text(encoding="utf-8")
        io.write_text(given.into, filled(document, io.read_json(beside), str(given.into)))
    except FieldmarkError as problem:
        sys.exit(str(problem))


if __name__ == "__main__":
    main()
