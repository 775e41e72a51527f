"""The model card: front matter for the hub, then a description for people."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fieldmark.utils import io

if TYPE_CHECKING:
    from fieldmark.inference.classifier.model import Classifier


def card(classifier: Classifier) -> str:
    """Return the text of README.md in a classifier's folder."""
    try:
        body = [*_body(classifier)]
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):  # of another version, or hostile
        body = ["# A species classifier", "", "It is not known in this form how it was made.", ""]
    return "\n".join([*_front(), *body])


def _front() -> Iterator[str]:
    front = {
        "library_name": "fieldmark",
        "pipeline_tag": "image-classification",
        "license": "other",  # the hub knows no name for that of weights and of photos together
        "license_name": "of-weights-and-photos",
        "tags": ["species-classification", "biology", "fieldmark"],
    }
    yield from ("---", *(f"{key}: {json.dumps(value)}" for key, value in front.items()), "---", "")


def _body(classifier: Classifier) -> Iterator[str]:
    made = classifier.provenance
    yield from (f"# {made.get('name', 'A species classifier')}", "")
    yield from (f"A species classifier for photos; {len(classifier.taxa):,} classes.", "")
    if "test" in made:
        beside = made.get("beside", {}).get("said", "")
        yield from (f"**Error.** {made['test']} {beside}".rstrip(), "")
    if made.get("rare"):
        yield from (f"**Rare classes.** {made['rare']['said']}", "")
    if len(classifier.members) == 1:
        yield from (f"**Backbone.** {classifier.architecture}; {made.get('weights', 'weights unknown')}.", "")
    else:
        yield from _members(classifier)
    if "how" in made.get("chosen", {}):
        yield from _tried(made)
    if classifier.prior:
        strength = f"{classifier.prior.rule.strength:g}"
        yield f"**Places and times.** Where and when a photo was taken counts, with the strength {strength},"
        yield "where it is known. An exported ONNX file leaves this out: it answers as without a place."
        yield ""
    if classifier.favoured:
        yield from (f"**List of species.** {classifier.favoured.said}", "")
    licence = made.get("licence", "unknown")
    yield from (f"**Licence of the weights.** {licence}. The photos have their own licences.", "")
    yield from ("**Use.**", "", "```", "fieldmark predict FOLDER photo.jpg", "```", "")
    yield from ("**Provenance.**", "", "```json", io.to_json(dict(made)).strip(), "```", "")


def _members(classifier: Classifier) -> Iterator[str]:
    """The members of an ensemble, what each is worth, and the cost of a photo."""
    yield from (f"**Members.** The weighted mean of the probabilities of {len(classifier.members)}:", "")
    known = classifier.provenance.get("ensemble", {})
    told = known.get("members") or [None] * len(classifier.members)
    for member, about in zip(classifier.members, told, strict=True):
        more = f"; {about['weights']}; {about['verdict']}" if about else ""
        yield f"- {member.weight:.2f} x {member.name}{more}"
    yield ""
    if "cost" in known:
        yield from (f"**Cost.** {known['cost']['said']}", "")


def _tried(made: Mapping[str, Any]) -> Iterator[str]:
    """What was tried, and why this one was chosen."""
    yield f"**Choice.** {made['chosen']['how']} Out-of-fold predictions on training and validation photos;"
    yield from ("differences are paired with the first candidate, the default of `train`.", "")
    yield from _options(made["tried"])
    if made.get("tuned"):
        count = made["tuned"][0]["photos"]
        yield f"Fine-tuned networks, on the {count:,} photos of one fold that they were not trained on;"
        yield from ("differences are paired with the best without fine-tuning.", "")
        yield from _options(made["tuned"])
    yield from (f"- {line}." for line in made.get("passed_over", []))
    yield ""


def _options(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The error of each option, as a table."""
    yield "| | error | difference from the reference | cost, times the default network | why |"
    yield "|---|---|---|---|---|"
    for row in rows:
        low, high = row["interval"]
        apart = "the reference"
        if row["apart"] is not None:
            least, most = row["apart_interval"]
            tie = ", a tie" if least <= 0 <= most else ""
            apart = f"{row['apart']:+.3f} ({least:+.3f} to {most:+.3f}){tie}"
        name = f"**{row['name']}**" if row["taken"] else row["name"]
        error = f"{row['error']:.3f} ({low:.3f} to {high:.3f})"
        # Older classifiers have no reason.
        yield f"| {name} | {error} | {apart} | {row['times_default']:.1f} | {row.get('why', '')} |"
    yield ""
