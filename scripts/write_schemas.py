"""Write the JSON schemas of classifier.json, evaluation.json and study.json from the records.

    python scripts/write_schemas.py            # to docs/schemas

A schema is what the program writes today: every key that is always there is required, and unknown keys
are not allowed, but for the provenance, to which some ways of training add keys.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from inspect import cleandoc, getsource
from pathlib import Path
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from fieldmark.data.taxonomy import Taxon
from fieldmark.data.transforms import Preprocess
from fieldmark.evaluation.calibration import Threshold
from fieldmark.experiments.records import StudyRecord
from fieldmark.training.provenance import Provenance
from fieldmark.training.summary import ClassifierSummary
from fieldmark.utils import io
from fieldmark.utils.choices import Decision
from fieldmark.utils.records import Record

FOLDER = Path(__file__).parent.parent / "docs/schemas"
_DIALECT = "https://json-schema.org/draft/2020-12/schema"


@dataclass(frozen=True)
class MemberRecord:
    """A member of a classifier.

    Attributes:
        architecture: the name of its network.
        backbone_key: a digest of the network's weights.
        preprocess: how a photo becomes the crop of its view.
        side: the side of the network's crops in pixels, where it is not the one of its weights.
        trained_at: the side that its weights were trained for, where it is not the published one.
        temperature: its logits are divided by it.
        weight: of its probabilities in the average of all members.
    """

    architecture: str
    backbone_key: str
    preprocess: Preprocess
    temperature: float
    weight: float
    side: int | UnsetType = UNSET
    trained_at: int | UnsetType = UNSET


@dataclass(frozen=True)
class ClassifierRecord:
    """The content of `classifier.json`.

    Attributes:
        format: the version of this format.
        members: one network with its head, or several of an ensemble, the largest weight first.
        temperature: logits are divided by it.
        thresholds: when an answer is given, for each rank.
        known_from: the score below which a photo is flagged as out-of-distribution; null: none is.
        ood: that score's `kind` and `threshold`; null: no photo is flagged.
        taxonomy: the classes, in the order of the scores.
        files: the SHA-256 of each file beside this one.
        provenance: how the classifier was made.
        decision: the rule for the first label, where it is not the highest probability.
        digest: the SHA-256 of the other values, as compact JSON with sorted keys; older ones have none.
    """

    format: str
    members: tuple[MemberRecord, ...]
    temperature: float
    thresholds: Mapping[str, Threshold]
    known_from: float | None
    ood: Mapping[str, Any] | None
    taxonomy: tuple[Taxon, ...]
    files: Mapping[str, str]
    provenance: Provenance
    decision: Decision | UnsetType = UNSET
    digest: str | UnsetType = UNSET


RECORDS: dict[str, type] = {
    "classifier": ClassifierRecord,
    "evaluation": ClassifierSummary,
    "study": StudyRecord,
}


def schema(name: str) -> dict[str, Any]:
    """Return the schema of one file."""
    record = RECORDS[name]
    (_,), parts = msgspec.json.schema_components([record], ref_template="#/$defs/{name}")
    comments = {each.__name__: _comments(each) for each in _all(Record)}
    for part_name, part in parts.items():
        _finish(part, comments.get(part_name, {}))
    if provenance := parts.get("Provenance"):
        del provenance["properties"]["details"]
        provenance["additionalProperties"] = True
        seconds = parts["Seconds"]
        seconds["properties"]["in all"] = seconds["properties"].pop("total")
        seconds["required"] = list(seconds["properties"])
    top = parts.pop(record.__name__)
    found = {"$schema": _DIALECT, **top, "title": f"{name}.json"}
    return found | ({"$defs": dict(sorted(parts.items()))} if parts else {})


def _all(record: type) -> Iterator[type]:
    """The classes of records, at any depth."""
    for each in record.__subclasses__():
        yield from (each, *_all(each))


def _comments(record: type) -> dict[str, str]:
    """The comments beside the fields of a class."""
    return dict(re.findall(r"^    (\w+): .*  # (.+)$", getsource(record), re.M))


def _finish(part: dict[str, Any], comments: Mapping[str, str]) -> None:
    """Require the keys that are always written; describe each by its comment or line in the docstring."""
    about, _, attributes = cleandoc(part.pop("description", "")).partition("\n\nAttributes:\n")
    part["description"] = " ".join(about.split())
    always = set(part["required"])
    for name, value in part["properties"].items():
        if "default" in value:  # a key that may be absent has none
            del value["default"]
            always.add(name)
        if name in comments:
            value["description"] = f"{comments[name]}."
    part["required"] = [name for name in part["properties"] if name in always]
    part["additionalProperties"] = False
    for names, text in re.findall(r"^    ([\w, ]+): ((?:.|\n(?!    \w))+)", attributes, re.M):
        for name in names.split(", "):
            if name in part["properties"]:
                part["properties"][name]["description"] = " ".join(text.split())


def main() -> None:
    """Write all schemas."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    for name in RECORDS:
        io.write_text(folder / f"{name}.schema.json", text(name))


def text(name: str) -> str:
    """Return the schema as it is written."""
    return msgspec.json.format(msgspec.json.encode(schema(name)), indent=1).decode() + "\n"


if __name__ == "__main__":
    main()
