"""The one training pipeline: prepare, fit, calibrate, measure, and say what came of it.

What differs between training one network, an ensemble, the best within a budget and extending a
classifier is a `Strategy`: how the photos are prepared, and what is fitted. All else stands here once.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import Protocol

from fieldmark.training.config import TrainConfig
from fieldmark.training.event_rule import event_details
from fieldmark.training.location_prior import with_prior
from fieldmark.training.measuring import measure
from fieldmark.training.new_places import place_details
from fieldmark.training.provenance import Provenance, Seconds
from fieldmark.training.stages import Fitted, Outcome, Prepared
from fieldmark.training.summary import Changes, photo_line

logger = logging.getLogger(__name__)


class Strategy(Protocol):
    """How photos are prepared, and what is fitted on them.

    Attributes:
        config: every choice.
    """

    @property
    def config(self) -> TrainConfig:
        """Every choice, with the networks named."""

    def prepare(self) -> Prepared:
        """Read and divide the photos, and compute the features that fitting begins with."""

    def fit(self, data: Prepared) -> Fitted:
        """Fit the members."""


def run(strategy: Strategy, *, command: str = "") -> Outcome:
    """Train a classifier by a strategy; log what is done.

    Args:
        strategy: how photos are prepared, and what is fitted.
        command: what was typed, for the record.

    Raises:
        InputError: anything about the photos, the networks or the choices that stands in the way.
    """
    start = time.perf_counter()
    data = strategy.prepare()
    logger.info(photo_line(data.table, data.splits))
    fitted = strategy.fit(data)
    outcome = measure(fitted, strategy.config)
    outcome, prior, log_p_NC = with_prior(outcome, strategy.config)
    details = {
        **fitted.details,
        **fitted.compare(outcome),
        **event_details(outcome, strategy.config, log_p_NC),
        **place_details(outcome, strategy.config),
        **prior,
    }
    if "grown" in details:
        changes = Changes.from_dict(details["grown"])
        outcome = replace(outcome, summary=replace(outcome.summary, grown=changes))
    seconds = Seconds(
        sum(fitted.data.extraction.seconds.values()), fitted.seconds, time.perf_counter() - start
    )
    made = Provenance.of(outcome, strategy.config, seconds, command, details)
    members = outcome.classifier.members
    if fitted.refit and fitted.learned:
        logger.info(f"Training what was measured again, on all {len(fitted.learned):,} labelled photos.")
        heads = fitted.refit(fitted.learned)
        members = tuple(replace(each, head=head) for each, head in zip(members, heads, strict=True))
    classifier = replace(outcome.classifier, members=members, provenance=made.to_dict())
    return replace(outcome, classifier=classifier)
