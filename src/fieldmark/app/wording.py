"""Words of other parts in the language of the reader: reasons, stages of jobs, actions, labels that are no
species."""

from __future__ import annotations

import re
from collections.abc import Mapping

from fieldmark.app.store import EMPTY
from fieldmark.utils import wording
from fieldmark.utils.languages import number, say, say_count, to_say

NOT_NAMED, UNKNOWN = "not named", "unknown"
"""What stands in the place of a species where there is none."""

REASONS = {**wording.REASONS, "not-a-file": to_say("not a file of this computer")}
"""Why photos are refused."""

STAGES = {
    "starting": to_say("starting"),
    "Checking photos": to_say("checking photos"),
    "Drawing photos": to_say("drawing photos"),
    "decoding": to_say("decoding"),
    "features of": to_say("features of {what}"),
    "training the last layer": to_say("training the last layer"),
    "adjusting for rare classes": to_say("adjusting for rare classes"),
    "new places": to_say("new places"),
    "network of places": to_say("network of places"),
    "thumbnails": to_say("thumbnails"),
    "predicting": to_say("predicting"),
    "measuring photos": to_say("measuring photos"),
    "rotating photos": to_say("rotating photos"),
    "checking labels": to_say("checking labels"),
}
"""The stages of the commands that are run as jobs, as they report them."""

_ACTIONS = (
    to_say("renamed {before} to {after}"),
    to_say("called {name}"),
    to_say("moved to {name}"),
    to_say("marked as unknown"),
    to_say("accepted"),
    to_say("left out"),
)
_LABELS = {
    **{NOT_NAMED: to_say("not named"), UNKNOWN: to_say("unknown"), EMPTY: to_say("empty")},
    **{"human": to_say("human"), "vehicle": to_say("vehicle")},
}


def reason(value: str) -> str:
    """Say why a photo is refused."""
    return say(REASONS[value]) if value in REASONS else value


def counted_reasons(counts: Mapping[str, int]) -> str:
    """Say how many photos are refused for which reasons."""
    return ", ".join(f"{number(count)} {reason(value)}" for value, count in counts.items())


def stage(label: str) -> str:
    """Say what a job does now; what is not known here stays in English."""
    if label in STAGES:
        return say(STAGES[label])
    found = next((each for each in STAGES if label.startswith(f"{each} ") and "{" in STAGES[each]), None)
    return say(STAGES[found], what=label.removeprefix(found).strip()) if found else label


def action(what: str) -> str:
    """Say what a person did; it is kept in English."""
    for each in _ACTIONS:
        if found := re.fullmatch(re.sub(r"{(\w+)}", r"(?P<\1>.+)", each), what):
            return say(each, **found.groupdict())
    return what


def photos(count: int) -> str:
    """Say how many photos."""
    return say_count("{count} photo", "{count} photos", count)


def photos_of_species(count: int, names: int) -> str:
    """Say how many photos of how many species."""
    several = say_count("{count} species", "{count} species", names)
    return say("{photos} of {species}", photos=photos(count), species=several)


def species(name: str) -> str:
    """Say what stands in the place of a species; a name stays as it is."""
    return say(_LABELS[name]) if name in _LABELS else name
