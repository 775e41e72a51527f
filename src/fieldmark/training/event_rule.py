"""How photos of events are combined: chosen on the photos that the classifier was measured on."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from fieldmark.data.events import number_events, shots_of
from fieldmark.evaluation import events
from fieldmark.evaluation.events import EventMeasure
from fieldmark.training.config import TrainConfig
from fieldmark.training.stages import Outcome
from fieldmark.utils.typing import FloatArray

logger = logging.getLogger(__name__)


def event_details(outcome: Outcome, config: TrainConfig, log_p_NC: FloatArray) -> Mapping[str, Any]:
    """Return the rule for events and what it is worth, for the provenance; empty where it is not measured.

    The log-probabilities are those of the photos that were measured. It is in folds only. Times and places
    are those of the photos' list: without one no event is known.
    """
    if outcome.summary.measurement.way != "folds":
        return {}  # a test part is used by no choice
    evaluation, table = outcome.evaluation, outcome.fitted.data.table
    shots = shots_of(table, evaluation.photo_ids)
    if not any(each.sequence or each.taken for each in shots):
        return {}
    found = events.choose(
        log_p_NC,
        evaluation.labels_N,
        np.array(number_events(shots), np.int64),
        outcome.classifier.taxonomy.levels,
        config.precision,
        [each.place for each in shots],
    )
    if found is None:
        return {}
    logger.info(sentence(found))
    return {"events": msgspec.to_builtins(found)}


def sentence(found: EventMeasure) -> str:
    """Say what combining the photos of events is worth."""
    return (
        f"Events: {found.events:,}, {found.several:,} of them with several photos. One answer an event "
        f"({found.rule.way}): error {found.error:.1%}; photo by photo {found.photo_error:.1%}, "
        f"{found.paired.percents}."
    )
