"""JSON as SpeciesNet writes its predictions, for the tools that read those.

A taxon is a text of seven parts in small letters, `uuid;class;order;family;genus;species;common name`,
with empty parts for ranks that are not said. The identifiers are made from the names, except for the
few that stand for no taxon.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from fieldmark.data.taxonomy import NO_ANIMAL, Taxon
from fieldmark.inference.formats.answer import answer_of
from fieldmark.inference.formats.base import FormatOptions, Writer, write_lines
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
    """The seven parts of a taxon."""
    genus, _, epithet = ranks.get("species", "").partition(" ")
    parts = [ranks.get(rank, "") for rank in _PARTS]
    parts[-1] = parts[-1] or genus
    told = [part.lower().replace(";", ",") for part in (*parts, epithet, common_name)]
    return ";".join([str(uuid.uuid5(_NAMES, "fieldmark:" + ";".join(told))), *told])


def _label_of(taxon: Taxon) -> str:
    kind = NO_ANIMAL.get(taxon.name.lower())
    if kind:
        return _FIXED[kind]
    ranks = dict(taxon.ranks)
    if taxon.rank == "species" and " " in taxon.name:
        ranks.setdefault("species", taxon.name)
    return label(ranks, taxon.common_name or taxon.name)


def _rows(entries: Iterable[Record], form: FormatOptions) -> Iterator[str]:
    yield '{"predictions": ['
    last = None
    for value in entries:
        if last is not None:
            yield f"{last},"
        last = json.dumps(_one(value, form), ensure_ascii=False)
    if last is not None:
        yield last
    yield "]}"


def _one(value: Record, form: FormatOptions) -> dict[str, object]:
    found = answer_of(value, form.taxonomy)
    one: dict[str, object] = {"filepath": value["file_name"], "model_version": form.by}
    if found.kind == "unclassified":
        return one | {"failures": ["CLASSIFIER"]}
    one["classifications"] = {
        "classes": [_label_of(form.taxonomy[each["taxon_id"]]) for each in value["labels"]],
        "scores": [each["score"] for each in value["labels"]],
    }
    said = _FIXED.get(found.kind) or label(dict(found.ranks), found.common_name or found.name)
    score = found.score if found.score is not None else value["labels"][0]["score"]
    rolled = (
        found.rank and not value["sure"]
    )  # SpeciesNet's own "unknown" is of the classifier as well
    source = f"classifier+rollup_to_{found.rank}" if rolled else "classifier"
    return one | {"prediction": said, "prediction_score": score, "prediction_source": source}


def _write(path: Path, entries: Iterable[Record], form: FormatOptions) -> None:
    write_lines(path, _rows(entries, form), "\n")


SPECIESNET = Writer("speciesnet", ".speciesnet.json", wide=False, write=_write, lines=_rows)
