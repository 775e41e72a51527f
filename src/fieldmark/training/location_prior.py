"""The prior of places and times: chosen and measured on the photos that the classifier was measured on."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fieldmark.data.locations import Locations, locations_of
from fieldmark.data.readers.occurrences import read_occurrences
from fieldmark.evaluation import intervals, location_prior, metrics
from fieldmark.evaluation.comparison import Difference
from fieldmark.evaluation.location_prior import FEWEST, KernelPrior, LocationMeasure
from fieldmark.inference.classifier.location import LocationPrior
from fieldmark.training.config import TrainConfig
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
        by_place = config.split == "location"
        learned = _of_photos(here, y_N, places, easy, len(classifier.taxa), config.seed, by_place=by_place)
    else:
        occurrences = read_occurrences(Path(config.prior), classifier.taxa, config.checklist)
        learned = _of_table(*occurrences, len(classifier.taxa), here, config.seed)
    known_NC, new_NC = learned.known_NC, learned.new_NC
    groups = [evaluation.groups[row] for row in rows]
    rule = location_prior.choose(
        log_p_NC, y_N, known_NC, places, classifier.taxonomy.levels, config.precision, groups
    )
    measures = {"new places": location_prior.measure(log_p_NC, y_N, known_NC, new_NC, places)}
    if known_NC is not new_NC:
        measures["known places"] = location_prior.measure(log_p_NC, y_N, known_NC, known_NC, places)
    prior = LocationPrior(learned.kernel, rule)
    for where, measured in measures.items():
        logger.info(sentence(prior, where, measured))
    summary = PriorSummary(config.prior, rule.strength, measures)
    about = {"occurrences": learned.occurrences, **prior.to_json(), **summary.to_dict()}
    if config.checklist:
        about["checklist"] = str(config.checklist)
    outcome = replace(outcome, summary=replace(outcome.summary, prior=summary))
    if rule.strength:
        outcome = replace(outcome, classifier=replace(classifier, prior=prior))
        every_NC[rows] = metrics.log_softmax32(rule.logits(log_p_NC, known_NC))
    return outcome, {"prior": about}, every_NC


@dataclass(frozen=True, eq=False)
class _Learned:
    """A kernel, and its ratios (see `KernelPrior.log_ratios`) for the photos that are measured.

    Attributes:
        kernel: learned from all occurrences.
        occurrences: how many.
        known_NC: without those of the photo's place and day.
        new_NC: without those of the photo's place; the same array where both are.
    """

    kernel: KernelPrior
    occurrences: int
    known_NC: FloatArray
    new_NC: FloatArray


def _of_photos(
    here: Locations,
    y_N: IntArray,
    places: Sequence[str],
    easy_E: IntArray,
    classes: int,
    seed: int,
    *,
    by_place: bool,
) -> _Learned:
    """Learn from photos, which it is measured on too.

    With `by_place` no fold knows the place of a photo, and then the prior does not either.
    """
    rows = easy_E[location_prior.distinct(here.where(easy_E), y_N[easy_E], seed)]
    days = [f"{place} {day}" for place, day in zip(places, here.day_N, strict=True)]
    asked = places if by_place else days
    names = [asked[row] for row in rows]
    kernel = KernelPrior.fit(here.where(rows), y_N[rows], classes, names, seed)
    new_NC = _ratios(kernel, here, places, rows)
    known_NC = new_NC if by_place else _ratios(kernel, here, asked, rows)
    return _Learned(kernel, len(rows), known_NC, new_NC)


def _of_table(
    occurrences: Locations, class_M: IntArray, classes: int, here: Locations, seed: int
) -> _Learned:
    """Learn from the occurrences of a table."""
    rows = location_prior.distinct(occurrences, class_M, seed)
    at = occurrences.where(rows)
    cells = [f"{a:.1f},{b:.1f}" for a, b in zip(at.latitude_N, at.longitude_N, strict=True)]
    kernel = KernelPrior.fit(at, class_M[rows], classes, cells, seed)
    ratio_NC = _ratios(kernel, here)
    return _Learned(kernel, len(rows), ratio_NC, ratio_NC)


def _ratios(
    kernel: KernelPrior, here: Locations, names: Sequence[str] | None = None, rows: IntArray | None = None
) -> FloatArray:
    """Compute the ratios of photos, each without those of its name; the kernel has the photos `rows`."""
    unit_N = np.zeros(len(here), np.int64) if names is None else intervals.units(names, len(here))
    keys_N4 = np.stack([here.latitude_N, here.longitude_N, here.day_N, unit_N], 1)
    _, first_Q, back_N = np.unique(keys_N4, axis=0, return_index=True, return_inverse=True)
    units = None if rows is None else (unit_N[first_Q], unit_N[rows])
    return kernel.log_ratios(here.where(first_Q), units)[back_N.reshape(-1)]


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
