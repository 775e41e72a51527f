"""One answer for an event: the records of its photos and boxes, combined.

An event without an animal is blank, or shows a person or a vehicle, as most of its photos do. A further
species is named where two boxes at least are sure of it, and not of the first one.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np

from fieldmark.data.events import GAP, Shot, number_events, place_of, seconds_of
from fieldmark.data.locations import OF_CAMERA
from fieldmark.evaluation import metrics
from fieldmark.evaluation.events import EventRule
from fieldmark.inference.classifier import Classifier, Prediction
from fieldmark.inference.record import AlsoRecord, EventRecord, Record, prediction_record
from fieldmark.utils.typing import FloatArray

_SURE_BOXES = 2  # of a further species


def rule_of(classifier: Classifier) -> EventRule:
    """Return how the photos of an event are combined: as was measured in training, or their mean."""
    known = classifier.provenance.get("events")
    return msgspec.convert(known["rule"], EventRule) if isinstance(known, Mapping) else EventRule()


def event_records(
    records: Iterable[Record], classifier: Classifier, *, top: int = 5, gap: float = GAP
) -> Iterator[Record]:
    """Return a record for each event, in the order of their first photos.

    Args:
        records: of photos and boxes, with the scores of all labels.
        classifier: that made them.
        top: the number of labels of each event.
        gap: seconds without a photo at a place after which the next one begins an event.
    """
    found = list(records)
    rule = rule_of(classifier)
    named = named_by(classifier, rule)
    events: dict[int, list[Record]] = defaultdict(list)
    for record, event in zip(found, number_events([_shot(each) for each in found], gap), strict=True):
        events[event].append(record)
    for rows in events.values():
        yield _event(sorted(rows, key=_time), named, rule, top)


def _shot(record: Record) -> Shot:
    taken, sequence = record.get("taken"), record.get("sequence")
    if sequence is None and seconds_of(taken) is None:
        sequence = record["file_name"]  # the boxes of a photo without a time are of one event
    return Shot(_place(record), taken, sequence)


def _place(record: Record) -> str:
    return place_of(record.get("deployment"), record.get("location"), record["file_name"])


def _time(record: Record) -> tuple[float, str]:
    return seconds_of(record.get("taken")) or 0.0, record["file_name"]


def _event(rows: Sequence[Record], classifier: Classifier, rule: EventRule, top: int) -> Record:
    photos = list(dict.fromkeys(each["file_name"] for each in rows))
    times = [each["taken"] for each in rows if seconds_of(each.get("taken")) is not None]
    about: EventRecord = {
        "photos": photos,
        "start": times[0] if times else "",
        "end": times[-1] if times else "",
        "place": _place(rows[0]),
        "count": 0,
        "also": [],
    }
    record: Record = {"file_name": photos[0], "event": about}
    if any("note" in each for each in rows):
        record["note"] = "truncated"
    if "deployment" in rows[0]:
        record["deployment"] = rows[0]["deployment"]
    if times:
        record["taken"] = times[0]
    if placed := next((each for each in rows if "latitude" in each), None):
        record |= {"latitude": placed["latitude"], "longitude": placed["longitude"]}
    for name in OF_CAMERA:
        if first := next((each for each in rows if name in each), None):
            record[name] = first[name]  # type: ignore[literal-required]  # names of a record
    scored = [each for each in rows if "scores" in each]
    if not scored:
        kinds = Counter(each["kind"] for each in rows if "kind" in each)
        if not kinds:
            return record | {"rejected": rows[0].get("rejected", "")}
        animals_first = sorted(kinds, key=lambda kind: (kind == "blank", -kinds[kind]))
        return record | {"kind": animals_first[0]}
    found = combine(scored, classifier, rule, top)
    about["also"], about["count"] = found.also, found.count
    return record | prediction_record(found.prediction, len(classifier.taxonomy))


@dataclass(frozen=True)
class Combined:
    """One answer for several photos, frames or boxes; `p_C` are the probabilities of all labels."""

    prediction: Prediction
    p_C: FloatArray
    count: int
    also: list[AlsoRecord]


def combine(scored: Sequence[Record], classifier: Classifier, rule: EventRule, top: int) -> Combined:
    """Combine records with the scores of all labels, as was measured in training.

    A list of species counts once, not for each photo: no number of photos makes a label impossible.
    """
    log_p_NC = np.log(np.maximum(np.array([each["scores"] for each in scored], np.float32), 1e-7))
    favoured = classifier.favoured
    if favoured is not None:
        log_p_NC = favoured.without(log_p_NC)
    [p_C] = rule.probabilities(log_p_NC, np.zeros(len(scored), np.int64))
    if favoured is not None:
        p_C = np.exp(metrics.log_softmax32(favoured.logits(np.log(np.maximum(p_C, 1e-30))[None])))[0]
    prediction = classifier.rank(p_C, top, unknown=_is_unknown(scored))
    also = _further(scored, prediction.best.taxon.name)
    count = _most_at_once([each for each in scored if _sure_of(each) not in also])
    return Combined(prediction, p_C, count, [_also(name, scored) for name in also])


def _is_unknown(scored: Sequence[Record]) -> bool | None:
    """Whether most of the photos have the flag of other species; None where it was asked of none."""
    flags = [bool(each["unknown"]) for each in scored if each.get("unknown") is not None]
    return sum(flags) > len(flags) / 2 if flags else None


def named_by(classifier: Classifier, rule: EventRule) -> Classifier:
    """Return the classifier with the thresholds of events; their flag follows from those of the photos."""
    return replace(classifier, thresholds=rule.thresholds or classifier.thresholds, ood=None)


def _sure_of(record: Record) -> str | None:
    return record["labels"][0]["name"] if record["sure"] else None


def _further(rows: Sequence[Record], first: str) -> list[str]:
    sure = Counter(name for each in rows if (name := _sure_of(each)) not in (None, first))
    return [name for name, boxes in sure.most_common() if boxes >= _SURE_BOXES and name is not None]


def _also(name: str, rows: Sequence[Record]) -> AlsoRecord:
    return {"name": name, "count": _most_at_once([each for each in rows if _sure_of(each) == name])}


def _most_at_once(rows: Sequence[Mapping[str, Any]]) -> int:
    """Return the largest number of boxes in one photo, or frame; one without boxes counts as one."""
    in_clips = [each["clip"]["count"] for each in rows if "clip" in each]
    return max([*Counter(each["file_name"] for each in rows).values(), *in_clips], default=0)
