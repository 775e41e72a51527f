"""Words of the records in the language of the reader: reasons, ranks, parts, names of measures and ways."""

from __future__ import annotations

from fieldmark.utils.errors import RejectReason
from fieldmark.utils.languages import say, spoken, to_say

REASONS: dict[str, str] = {
    RejectReason.MISSING: to_say("missing"),
    RejectReason.UNREADABLE: to_say("unreadable"),
    RejectReason.EMPTY: to_say("empty file"),
    RejectReason.NOT_AN_IMAGE: to_say("not an image"),
    RejectReason.UNSUPPORTED: to_say("unsupported format"),
    RejectReason.TOO_LARGE: to_say("too large"),
    RejectReason.TRUNCATED: to_say("truncated"),
    RejectReason.CORRUPT: to_say("corrupt"),
    RejectReason.CHANGED: to_say("changed"),
    RejectReason.NO_LABEL: to_say("no label"),
    RejectReason.UNKNOWN_CATEGORY: to_say("unknown category"),
    RejectReason.AMBIGUOUS_LABEL: to_say("ambiguous label"),
    RejectReason.UNCERTAIN_LABEL: to_say("uncertain label"),
    RejectReason.MACHINE_LABEL: to_say("machine label"),
    RejectReason.DUPLICATE_ID: to_say("duplicate id"),
    RejectReason.DUPLICATE: to_say("duplicate"),
    RejectReason.NEAR_DUPLICATE: to_say("near-duplicate"),
    RejectReason.LEAK: to_say("leak"),
    RejectReason.SUSPECT_LABEL: to_say("suspect label"),
    RejectReason.DARK: to_say("dark"),
    RejectReason.BLURRED: to_say("blurred"),
    RejectReason.TINY: to_say("tiny"),
    RejectReason.ROTATED: to_say("rotated"),
    RejectReason.NO_ANIMAL: to_say("no animal"),
    RejectReason.NO_BOX: to_say("no box"),
    RejectReason.SIDE_FILE: to_say("side file"),
    RejectReason.OUTSIDE: to_say("outside the folder"),
    RejectReason.REPEATED_FOLDER: to_say("repeated folder"),
}
"""Why photos are rejected."""

RANKS: dict[str, str] = {
    "kingdom": to_say("kingdom"),
    "phylum": to_say("phylum"),
    "class": to_say("class"),
    "order": to_say("order"),
    "family": to_say("family"),
    "genus": to_say("genus"),
    "species": to_say("species"),
}

_OTHERS: dict[str, str] = {
    # parts, and ways of dividing photos
    "train": to_say("train"),
    "val": to_say("val"),
    "test": to_say("test"),
    "stratified": to_say("stratified"),
    "random": to_say("random"),
    "official": to_say("official"),
    "location": to_say("location"),
    "folds": to_say("folds"),
    # which photos an error is of
    "all": to_say("all"),
    "day": to_say("day"),
    "night": to_say("night"),
    "new places": to_say("new places"),
    "known places": to_say("known places"),
    # ways of combining the photos of an event
    "mean": to_say("mean"),
    "product": to_say("product"),
    "maximum": to_say("maximum"),
    "confidence": to_say("confidence"),
    # what an out-of-distribution flag compares photos with
    "class means": to_say("class means"),
    "nearest photos": to_say("nearest photos"),
    # what took time, and what was chosen
    "features": to_say("features"),
    "training": to_say("training"),
    "in all": to_say("in all"),
    "learning_rate": to_say("learning rate"),
    "weight_decay": to_say("weight decay"),
    # weights
    "random weights": to_say("random weights"),
    "partial weights": to_say("partial weights"),
    "from scratch": to_say("from scratch"),
}

_WORDS = REASONS | RANKS | _OTHERS


def word(value: str) -> str:
    """Say a word of the records in the language of the reader; in English, and if it is not known, itself."""
    return say(_WORDS[value]) if value in _WORDS and spoken() != "en" else value
