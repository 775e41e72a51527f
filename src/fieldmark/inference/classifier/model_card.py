"""The model card: front matter that the hub reads, then what a person wants to know."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fieldmark.utils import io

if TYPE_CHECKING:
    from fieldmark.inference.classifier.model import Classifier


def card(classifier: Classifier) -> str:
    """The text of README.md in a classifier's folder."""
    return "\n".join([*_front(), *_body(classifier)])


def _front() -> Iterator[str]:
    front = {
        "library_name": "fieldmark",
        "pipeline_tag": "image-classification",
        "license": "other",  # the hub knows no name for that of weights and of photos together
        "license_name": "of-weights-and-photos",
        "tags": ["species-classification", "biology", "fieldmark"],
    }
    yield "---"
    yield from (f"{key}: {json.dumps(value)}" for key, value in front.items())
    yield from ("---", "")


def _body(classifier: Classifier) -> Iterator[str]:
    made = classifier.provenance
    yield from (f"# {made.get('name', 'A species classifier')}", "")
    yield from (f"Names {len(classifier.taxa):,} kinds of living things from a photo. ", "")
    if "test" in made:
        beside = made.get("beside", {}).get("said", "")
        yield from (f"**How good it is.** {made['test']} {beside}".rstrip(), "")
    if made.get("rare"):
        yield from (f"**Rare kinds.** {made['rare']['said']}", "")
    if len(classifier.members) == 1:
        weights = made.get("weights", "weights unknown")
        yield from (f"**Backbone.** {classifier.architecture}; {weights}.", "")
    else:
        yield from _members(classifier)
    if "how" in made.get("chosen", {}):
        yield from _tried(made)
    licence = made.get("licence", "not known")
    yield from (
        f"**Licence of the weights.** {licence}. The photos have licences of their own.",
        "",
    )
    yield from ("**Use.**", "", "```", "fieldmark predict FOLDER photo.jpg", "```", "")
    yield from ("**How it was made.**", "", "```json", io.to_json(dict(made)).strip(), "```", "")


def _members(classifier: Classifier) -> Iterator[str]:
    """What an ensemble is made of, what that costs, and who earns its place."""
    made = classifier.provenance
    yield f"**Members.** The weighted mean of the probabilities of {len(classifier.members)}:"
    yield ""
    known = made.get("ensemble", {})
    told = known.get("members") or [None] * len(classifier.members)
    for member, about in zip(classifier.members, told, strict=True):
        line = f"- {member.weight:.2f} x {member.name}"
        if about:
            line += f"; {about['weights']}; {about['verdict']}"
        yield line
    yield ""
    if "cost" in known:
        yield from (f"**Cost.** {known['cost']['said']}", "")


def _tried(made: Mapping[str, Any]) -> Iterator[str]:
    """What was tried before this was taken, and why it was."""
    yield f"**Why this one.** {made['chosen']['how']} On training and validation photos, each named by"
    yield "heads that never saw it; differences are paired with the first candidate, `train`'s default."
    yield ""
    yield from _options(made["tried"])
    if made.get("tuned"):
        count = made["tuned"][0]["photos"]
        yield f"Beside networks that were trained themselves, on the {count:,} photos of one fold that"
        yield "these never saw; differences are paired with what is best without them."
        yield ""
        yield from _options(made["tuned"])
    for line in made.get("passed_over", []):
        yield f"- {line}."
    yield ""


def _options(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What each option reached, as a table."""
    yield "| | error | less the reference | times the default network's work | why |"
    yield "|---|---|---|---|---|"
    for row in rows:
        low, high = row["interval"]
        apart = "the reference"
        if row["apart"] is not None:
            least, most = row["apart_interval"]
            apart = f"{row['apart']:+.3f} ({least:+.3f} to {most:+.3f})"
            apart += ", a tie" if least <= 0 <= most else ""
        name = f"**{row['name']}**" if row["taken"] else row["name"]
        error = f"{row['error']:.3f} ({low:.3f} to {high:.3f})"
        # Older classifiers do not say why.
        yield f"| {name} | {error} | {apart} | {row['times_default']:.1f} | {row.get('why', '')} |"
    yield ""
