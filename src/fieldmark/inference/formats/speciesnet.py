"""JSON in the form of SpeciesNet's predictions, for the tools that read those.

A taxon is a text of seven parts in lower case, `uuid;class;order;family;genus;species;common name`,
with empty parts for missing ranks. The identifiers are computed from the names, except for the few that
stand for no taxon.
"""

from __future__ import annotations

import json
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from fieldmark.data.detections import NUMBERS
from fieldmark.data.taxonomy import NO_ANIMAL, Taxon
from fieldmark.inference.formats.answer import answer_of
from fieldmark.inference.formats.base import FormatOptions, Writer
from fieldmark.inference.record import Record

_PARTS = ("class", "order", "family", "genus")
_FIXED = {
    "blank": "f1856211-cfb7-4a5b-9158-c0f72fd09ee6;;;;;;blank",
    "vehicle": "e2895ed5-780b-48f6-8a11-9e27cb594511;;;;;;vehicle",
    "human": "990ae9dd-7a59-4344-afcb-1b7b21368000;mammalia;primates;hominidae;homo;sapiens;human",
    "unknown": "f2efdae9-efb8-48fb-8a91-eccf79ab4ffb;" + ";".join(["no cv result"] * 6),
}
_NAMES = uuid.UUID("6ba7b810-9dad-11d1-80b4-00c04fd430c8")  # RFC 9562: names that are DNS names


def label(ranks: Mapping[str, str], common_name: str) -> str:
    """Return the seven parts of a taxon."""
    genus, _, epithet = ranks.get("species", "").partition(" ")
    parts = [ranks.get(rank, "") for rank in _PARTS]
    parts[-1] = parts[-1] or genus
    lower = [part.lower().replace(";", ",") for part in (*parts, epithet, common_name)]
    return ";".join([str(uuid.uuid5(_NAMES, "fieldmark:" + ";".join(lower))), *lower])


def _label_of(taxon: Taxon) -> str:
    if kind := NO_ANIMAL.get(taxon.name.lower()):
        return _FIXED[kind]
    ranks = dict(taxon.ranks)
    if taxon.rank == "species" and " " in taxon.name:
        ranks.setdefault("species", taxon.name)
    return label(ranks, taxon.common_name or taxon.name)


def _lines(records: Iterable[Record], options: FormatOptions) -> Iterator[str]:
    yield '{"predictions": ['
    last = ""
    for record in _one_a_photo(records) if options.boxes is not None else records:
        if last:
            yield f"{last},"
        last = json.dumps(_prediction(record, options), ensure_ascii=False)
    if last:
        yield last
    yield "]}"


def _one_a_photo(records: Iterable[Record]) -> Iterator[Record]:
    """Return of each photo the record of its most confident box, with all boxes."""
    photos: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        photos[record["file_name"]].append(record)
    for found in photos.values():
        boxes = [each["detection"] for each in found if "detection" in each]
        others = [box for each in found for box in each.get("others", ())]
        yield found[0] | {"others": sorted([*boxes, *others], key=lambda box: -box["confidence"])}


def _detections(record: Record) -> list[dict[str, object]]:
    return [
        {
            "category": NUMBERS[box["category"]],
            "label": box["category"],
            "conf": box["confidence"],
            "bbox": box["box"],
        }
        for box in record.get("others", ())
    ]


def _prediction(record: Record, options: FormatOptions) -> dict[str, object]:
    answer = answer_of(record, options.taxonomy)
    value: dict[str, object] = {"filepath": record["file_name"], "model_version": options.by}
    if options.boxes is not None:
        value["detections"] = _detections(record)
    if "kind" in record:
        score = 1.0 if answer.score is None else answer.score
        shown = {"prediction": _FIXED[answer.kind], "prediction_score": score}
        return value | shown | {"prediction_source": "detector"}
    if answer.kind == "unclassified":
        return value | {"failures": ["CLASSIFIER"]}
    labels = record["labels"]
    value["classifications"] = {
        "classes": [_label_of(options.taxonomy[each["taxon_id"]]) for each in labels],
        "scores": [each["score"] for each in labels],
    }
    name = answer.common_name or answer.name
    rolled_up = answer.rank and not record["sure"]  # "unknown" has the source "classifier" as well
    return value | {
        "prediction": _FIXED.get(answer.kind) or label(dict(answer.ranks), name),
        "prediction_score": answer.score if answer.score is not None else labels[0]["score"],
        "prediction_source": f"classifier+rollup_to_{answer.rank}" if rolled_up else "classifier",
    }


SPECIESNET = Writer.of_lines("speciesnet", ".speciesnet.json", _lines)
