"""The prior of places and times: chosen and measured on the photos that the classifier was measured on."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fieldmark.data.locations import locations_of
from fieldmark.data.readers.occurrences import read_occurrences
from fieldmark.evaluation import location_prior, metrics
from fieldmark.evaluation.comparison import Difference
from fieldmark.evaluation.location_prior import FEWEST, LocationMeasure
from fieldmark.inference.classifier.location import LocationPrior
from fieldmark.training.config import TrainConfig
from fieldmark.training.prior_candidates import Candidate, Photos, of_table
from fieldmark.training.stages import Outcome
from fieldmark.training.summary import PriorSummary
from fieldmark.utils.errors import InputError
from fieldmark.utils.typing import FloatArray, IntArray

logger = logging.getLogger(__name__)

OWN = "own"
"""The value of `TrainConfig.prior` for the places of the training photos."""


def with_prior(outcome: Outcome, config: TrainConfig) -> tuple[Outcome, Mapping[str, Any], FloatArray]:
    """Add a prior to the classifier where it helps.

    Returns:
        The outcome; what the prior is worth, for the provenance; and calibrated log-probabilities of the
        photos that were measured, each with a prior that does not know it.

    Raises:
        InputError: fewer than 20 photos have a place, or the occurrences cannot be read.
    """
    evaluation, classifier = outcome.evaluation, outcome.classifier
    every_NC = metrics.log_softmax32(evaluation.scores_NC / np.float32(classifier.temperature))
    if config.prior is None:
        return outcome, {}, every_NC
    if outcome.summary.measurement.way != "folds":
        logger.warning("The prior is chosen in folds, and these photos are too many for that: there is none.")
        return outcome, {}, every_NC
    locations, names = locations_of(outcome.fitted.data.table, evaluation.photo_ids)
    rows = np.flatnonzero(locations.known_N & (evaluation.labels_N >= 0))
    if len(rows) < FEWEST:
        raise InputError(
            f"Only {len(rows):,} photos have a place: give their list the columns latitude and longitude, or "
            "leave --prior out (with grow: --prior none)."
        )
    places, here, y_N = [names[row] for row in rows], locations.where(rows), evaluation.labels_N[rows]
    log_p_NC = every_NC[rows]
    if config.prior == OWN:
        hard = set(outcome.fitted.data.table.hard)
        easy = np.array(
            [at for at, row in enumerate(rows) if evaluation.photo_ids[row] not in hard], np.int64
        )
        photos = Photos(here, y_N, places, easy, len(classifier.taxa), by_place=config.split == "location")
        candidates = photos.candidates(config.prior_kind, config.seed)
    else:
        occurrences = read_occurrences(Path(config.prior), classifier.taxa, config.checklist)
        candidates = of_table(*occurrences, len(classifier.taxa), here, config.prior_kind, config.seed)
    taken = _preferred(candidates, log_p_NC, y_N, places)
    known_NC, new_NC = taken.known_NC, taken.new_NC
    groups = [evaluation.groups[row] for row in rows]
    rule = location_prior.choose(
        log_p_NC, y_N, known_NC, places, classifier.taxonomy.levels, config.precision, groups
    )
    measures = {"new places": location_prior.measure(log_p_NC, y_N, known_NC, new_NC, places)}
    if known_NC is not new_NC:
        measures["known places"] = location_prior.measure(log_p_NC, y_N, known_NC, known_NC, places)
    prior = LocationPrior(taken.frequencies, rule)
    for where, measured in measures.items():
        logger.info(sentence(prior, where, measured))
    summary = PriorSummary(config.prior, taken.kind, rule.strength, measures)
    about = {"occurrences": taken.occurrences, **prior.to_json(), **summary.to_dict()}
    if config.checklist:
        about["checklist"] = str(config.checklist)
    outcome = replace(outcome, summary=replace(outcome.summary, prior=summary))
    if rule.strength:
        outcome = replace(outcome, classifier=replace(classifier, prior=prior))
        every_NC[rows] = metrics.log_softmax32(rule.logits(log_p_NC, known_NC))
    return outcome, {"prior": about}, every_NC


def _preferred(
    candidates: Sequence[Candidate], log_p_NC: FloatArray, y_N: IntArray, places: Sequence[str]
) -> Candidate:
    """Return the first candidate, or the other one where the log-loss at new places is lower, and no tie."""
    if len(candidates) == 1:
        return candidates[0]
    first, other = candidates
    pairs = [(each.known_NC, each.new_NC) for each in (other, first)]
    found = location_prior.compare(log_p_NC, y_N, pairs[0], pairs[1], places)
    taken = other if found.interval[1] < 0 else first
    logger.info(
        f"Prior: log-loss at new places of the {other.kind} less that of the {first.kind}: "
        f"{_against(found, '{:+.3f}')}; the {taken.kind} is taken."
    )
    return taken


def sentence(prior: LocationPrior, where: str, found: LocationMeasure) -> str:
    """Say what a prior is worth."""
    error, loss = _against(found.paired, "{:+.1%}"), _against(found.paired_loss, "{:+.3f}")
    rule = f"strength {prior.rule.strength:g}" if prior.rule.strength else "off, as it is not shown to help"
    return (
        f"Prior of places and times ({rule}), at {where}, {found.places:,} with {found.photos:,} photos: "
        f"error {found.error:.1%}, without it {found.without:.1%}, {error}; log-loss {found.log_loss:.3f}, "
        f"without it {found.log_loss_without:.3f}, {loss}."
    )


def _against(found: Difference, form: str) -> str:
    low, high = (form.format(each) for each in found.interval)
    return f"{'a tie' if found.tie else form.format(found.value)} ({low} to {high})"
