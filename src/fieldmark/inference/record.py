"""What came of one photo as a JSON object, from which every file is made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fieldmark.data import images
from fieldmark.data.storage.places import Place
from fieldmark.inference.predictor import PhotoResult
from fieldmark.utils.errors import ImageRejected


def _taken(place: Place) -> str:
    """When a photo was taken by its EXIF data, in ISO 8601; "" where it does not say."""
    try:
        return images.taken(images.read_bytes(place))
    except ImageRejected:
        return ""


Record = Mapping[str, Any]


def to_record(
    result: PhotoResult, among: int, *, wide: bool = False, timed: bool = False
) -> dict[str, Any]:
    """What came of one photo as a JSON object.

    Args:
        result: what came of it.
        among: the number of labels that the scores are divided among.
        wide: with the scores of all labels.
        timed: with when it was taken, by its EXIF data where its list does not say.
    """
    item = result.item
    value: dict[str, Any] = {"file_name": item.name}
    known = {"id": item.id, "deployment": item.deployment, "taken": item.taken}
    if timed and ":" not in (known["taken"] or ""):  # a day alone is no time
        known["taken"] = _taken(item.path) or known["taken"]
    value |= {name: said for name, said in known.items() if said is not None}
    found = result.prediction
    if found is None:
        assert result.rejected is not None
        return {**value, "rejected": result.rejected.reason.value}
    value |= {
        "source": found.source,
        "rank": found.rank,
        "name": found.name,
        "score": round(found.score, 6),
        "sure": found.sure,
        "unknown": found.unknown,
        "reason": found.reason,
        "among": among,
        "ranks": dict(found.ranks),
        "wider": [
            {"rank": one.rank, "name": one.name, "score": round(one.score, 6)}
            for one in found.wider
        ],
        "labels": [
            {
                "taxon_id": answer.taxon.id,
                "name": answer.taxon.name,
                "common_name": answer.taxon.common_name,
                "rank": answer.taxon.rank,
                "score": round(answer.score, 6),
            }
            for answer in found.answers
        ],
    }
    if wide and result.scores is not None:
        value["scores"] = [round(float(score), 6) for score in result.scores]
    return value
