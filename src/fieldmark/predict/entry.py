"""What came of one photo as a JSON object, from which every file is made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fieldmark.predict.naming import Named

Entry = Mapping[str, Any]


def entry(result: Named, among: int, *, wide: bool = False) -> dict[str, Any]:
    """What came of one photo as a JSON object; with `wide` with the scores of all labels.

    `among` is the number of labels that the scores are divided among.
    """
    value: dict[str, Any] = {"file_name": result.item.name}
    if result.item.id is not None:
        value["id"] = result.item.id
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
