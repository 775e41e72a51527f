"""The sentences of a classifier's record, said anew in the language of a page; the record stays English."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from fieldmark.evaluation.ensemble import MemberContribution
from fieldmark.training import logit_adjustment, out_of_distribution
from fieldmark.training.strategies import members
from fieldmark.training.summary import Measurement


def in_words(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Return a provenance with its sentences in the language of this context.

    Those about what `--quality best` tried are not said anew: they stay in English.
    """
    made = {**provenance, "measured": {**provenance["measured"]}}
    measured = made["measured"]
    if found := measured.get("measurement"):
        measured["measurement"] = {**found, "said": Measurement.from_dict(found).in_words}
    if found := measured.get("unknown"):
        measured["unknown"] = {**found, "said": out_of_distribution.in_words(found)}
    if found := made.get("rare"):
        made["rare"] = {**found, "said": msgspec.convert(found, logit_adjustment.Chosen).said}
    if found := made.get("ensemble"):
        cost = msgspec.convert(found["cost"], members.Cost).said
        made["ensemble"] = {
            "members": [{**each, "verdict": _verdict(each)} for each in found["members"]],
            "cost": {**found["cost"], "said": cost},
        }
    return made


def _verdict(member: Mapping[str, Any]) -> str:
    measured = "worth" in member
    return members.verdict(
        MemberContribution(member["worth"], tuple(member["worth_interval"])) if measured else None
    )
