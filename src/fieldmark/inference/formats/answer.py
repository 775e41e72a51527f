"""The one answer of an entry in the terms that standards share: a name, its rank, its higher ranks."""

from __future__ import annotations

from dataclasses import dataclass

from fieldmark.data.taxonomy import NO_ANIMAL, RANKS, Taxonomy
from fieldmark.inference.record import Record


@dataclass(frozen=True)
class Answer:
    """What a classifier says of one photo, at the rank that it is sure of.

    Attributes:
        name: the scientific name; "" where it is not sure at any rank, or the photo is no animal.
        rank: one of `RANKS`, "unranked", or "" without a name.
        ranks: the names at the ranks down to that one.
        common_name: the everyday name, or "".
        score: the probability of the answer; None where there is no answer.
        kind: what Camtrap DP calls it: animal, human, vehicle, blank, unknown or unclassified.
        remark: what else there is to say: the reason, the next candidates.
    """

    name: str = ""
    rank: str = ""
    ranks: tuple[tuple[str, str], ...] = ()
    common_name: str = ""
    score: float | None = None
    kind: str = "unclassified"
    remark: str = ""


def answer_of(value: Record, taxonomy: Taxonomy) -> Answer:
    """The answer of one photo's entry."""
    if "rejected" in value:
        return Answer(remark=f"the photo could not be used: {value['rejected']}")
    ranks = tuple((rank, value["ranks"][rank]) for rank in RANKS if rank in value["ranks"])
    others = "; ".join(f"{each['name']} {each['score']:.3f}" for each in value["labels"])
    if value["sure"]:
        best = taxonomy[value["labels"][0]["taxon_id"]]
        kind = NO_ANIMAL.get(best.name.lower(), "animal")
        if kind in ("blank", "vehicle"):
            return Answer(common_name=best.name, score=value["score"], kind=kind, remark=others)
        score = value["labels"][0]["score"]
        return Answer(best.name, best.rank, ranks, best.common_name, score, kind, others)
    if value["name"]:  # rolled up
        return Answer(value["name"], value["rank"], ranks, "", value["score"], "animal", others)
    return Answer(kind="unknown", remark=f"not sure: {others}")
