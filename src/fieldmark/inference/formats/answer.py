"""The answer for one photo in the terms that metadata standards share: name, rank, higher ranks."""

from __future__ import annotations

from dataclasses import dataclass

from fieldmark.data.taxonomy import NO_ANIMAL, RANKS, Taxonomy
from fieldmark.inference.record import Record


@dataclass(frozen=True)
class Answer:
    """A classifier's answer for one photo, at the rank that it is sure of."""

    name: str = ""  # scientific; empty where it is not sure at any rank, or the photo is no animal
    rank: str = ""  # one of `RANKS`, "unranked", or empty without a name
    ranks: tuple[tuple[str, str], ...] = ()  # the names at the ranks down to that one
    common_name: str = ""
    score: float | None = None  # the probability of the answer; None where there is none
    kind: str = "unclassified"  # Camtrap DP: animal, human, vehicle, blank, unknown or unclassified
    remark: str = ""  # the reason, or the next labels


def answer_of(record: Record, taxonomy: Taxonomy) -> Answer:
    """Return the answer in one photo's record."""
    if "kind" in record:  # of a classified photo too, for another box of it
        found = record.get("detection")
        remark = "no box of an animal" if record["kind"] == "blank" else "by its box"
        score = None if found is None else found["confidence"]
        human = ("Homo sapiens", "species") if record["kind"] == "human" else ("", "")
        return Answer(*human, score=score, kind=record["kind"], remark=remark)
    if "rejected" in record:
        return Answer(remark=f"the photo could not be used: {record['rejected']}")
    ranks = tuple((rank, record["ranks"][rank]) for rank in RANKS if rank in record["ranks"])
    note = [f"{record['note']} photo"] if "note" in record else []
    others = "; ".join(note + [f"{each['name']} {each['score']:.3f}" for each in record["labels"]])
    if record["sure"]:
        best = taxonomy[record["labels"][0]["taxon_id"]]
        kind = NO_ANIMAL.get(best.name.lower(), "animal")
        if kind in ("blank", "vehicle"):
            return Answer(common_name=best.name, score=record["score"], kind=kind, remark=others)
        score = record["labels"][0]["score"]
        return Answer(best.name, best.rank, ranks, best.common_name, score, kind, others)
    if record["name"]:  # rolled up
        return Answer(record["name"], record["rank"], ranks, "", record["score"], "animal", others)
    return Answer(kind="unknown", remark=f"{record['source']}: {others}")
