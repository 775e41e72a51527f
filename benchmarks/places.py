"""Priors of places and times, and lists of species, on occurrences and photos of drawn stations.

    python -m benchmarks places

- **What may be expected where.** Occurrences are those of the visits that stations are drawn from, and, in a
  fourth set, of species with ranges and seasons of many sizes at 200 places. In five folds of places a prior
  is learned from the others, all its settings included; the log-loss of the occurrences left out is compared:
  the kernel beside no prior (the overall frequencies), and a network (`benchmarks.place_network`) beside the
  kernel.
- **How much a list of species counts.** A classifier is trained on the boxes of the stations and measured at
  new places. The list of each region has the species that live there; or lacks a tenth or a quarter of them,
  by chance, as lists do. A label that is not on it is made so many times less likely, and the log-loss of
  all photos is compared with that without a list.

All differences are of the same occurrences or photos, with an interval over places. Nothing varies from run
to run, so there is one round.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import common, place_network
from benchmarks.common import Row
from benchmarks.stations import GUIDES, NETWORK, SMALL
from fieldmark.data.locations import Locations
from fieldmark.data.synthetic import draw_stations, station_plan
from fieldmark.evaluation import location_prior, metrics
from fieldmark.evaluation.comparison import Difference
from fieldmark.evaluation.location_prior import KernelPrior
from fieldmark.training import TrainConfig, train
from fieldmark.utils import random
from fieldmark.utils.typing import DoubleArray, FloatArray, IntArray

FOLDS = 5
FACTORS = (1, 5, 20, 100, 400)
"""How many times less likely a label is that is not on a list; 1: the list does not count."""
GAPS = (0.0, 0.1, 0.25)
"""The shares of a region's species that its list lacks."""
_LISTS = 20  # draws of what a list lacks
_TAKEN = 20  # the factor that is shown in a row; all are in its note


def run(
    quick: bool = False, guides: Sequence[Mapping[str, Any]] | None = None, network: str = NETWORK
) -> list[Row]:
    """Return two rows for each set of occurrences, and three for the lists of each set of stations."""
    chosen = guides or ((SMALL,) if quick else GUIDES)
    rows = []
    for about in chosen:
        name = f"{about['stations']} stations, {about['species']} species"
        rows += _priors(name, _visited(about))
        rows += _lists(name, about, network)
    if not quick and guides is None:
        rows += _priors("200 places, 40 species with ranges", _ranges(200, 40, seed=1))
    return rows


@dataclass(frozen=True, eq=False)
class Occurrences:
    """Where and when animals were seen, the class of each, and the names of the places."""

    here: Locations
    class_N: IntArray
    places: Sequence[str]
    classes: int


# Occurrences


def _visited(about: Mapping[str, Any]) -> Occurrences:
    """Return an occurrence for each animal of each visit of drawn stations."""
    stations = station_plan.stations(about["stations"], about["seed"])
    visits = station_plan.plan(stations, about["visits"], about["species"], about["seed"])
    rows, species, places = [], [], []
    for visit in visits:
        day = visit.taken.timetuple().tm_yday
        for number in {each.category - station_plan.FIRST_SPECIES for each in visit.passers}:
            if number >= 0:
                rows.append((visit.station.latitude, visit.station.longitude, day))
                species.append(number)
                places.append(visit.station.name)
    return Occurrences(Locations.of(rows), np.array(species), places, about["species"])


def _ranges(places: int, species: int, seed: int) -> Occurrences:
    """Draw occurrences of species whose ranges (50 to 1,500 km) and seasons differ in size."""
    rng = np.random.default_rng(seed)
    corner, sides = (42.0, -5.0), (14.0, 25.0)  # degrees
    centre_S2, home_P2 = (corner + rng.random((n, 2)) * sides for n in (species, places))
    reach_S, season_S = np.exp(rng.uniform(np.log(50), np.log(1500), species)), rng.integers(1, 366, species)
    width_S, share_S = rng.uniform(15, 120, species), np.exp(rng.normal(0, 1, species))
    rows, found, names = [], [], []
    for place, (latitude, longitude) in enumerate(home_P2):
        far_S2 = (centre_S2 - (latitude, longitude)) * (111.2, 111.2 * np.cos(np.radians(latitude)))
        near_S = share_S * np.exp(-0.5 * (far_S2**2).sum(axis=1) / reach_S**2)
        for _ in range(20):
            day = int(rng.integers(1, 366))
            late_S = np.minimum(abs(season_S - day), 365 - abs(season_S - day))
            chance_S = near_S * np.exp(-0.5 * (late_S / width_S) ** 2) + 1e-12
            rows.append((latitude, longitude, day))
            found.append(int(rng.choice(species, p=chance_S / chance_S.sum())))
            names.append(f"P{place}")
    return Occurrences(Locations.of(rows), np.array(found), names, species)


def _priors(name: str, found: Occurrences) -> list[Row]:
    names = sorted(set(found.places))
    order = random.generator(0, "benchmark of places").permutation(len(names))
    fold = {each: int(order[number]) % FOLDS for number, each in enumerate(names)}
    fold_N = np.array([fold[each] for each in found.places])
    loss = {each: np.empty(len(fold_N)) for each in ("no prior", "kernel", "network")}
    for number in sorted(set(fold.values())):
        test_T, train_M = np.flatnonzero(fold_N == number), np.flatnonzero(fold_N != number)
        y_T, at = found.class_N[test_T], found.here.where(test_T)
        learned = train_M[location_prior.distinct(found.here.where(train_M), found.class_N[train_M])]
        places = [found.places[row] for row in learned]
        given = found.here.where(learned), found.class_N[learned], found.classes, places
        kernel = KernelPrior.fit(*given)
        p_TC = {
            "no prior": np.tile(kernel.overall_C, (len(y_T), 1)),
            "kernel": kernel.probabilities(at),
            "network": place_network.fitted(*given).probabilities(at),
        }
        for each, p_C in p_TC.items():
            loss[each][test_T] = -np.log(p_C[np.arange(len(y_T)), y_T])
    note = f"{len(fold_N):,} occurrences"
    return [
        _compared(f"{name}: {ours}, new places, log-loss", loss[ours], loss[peer], peer, found.places, note)
        for ours, peer in (("kernel", "no prior"), ("network", "kernel"))
    ]


def _compared(
    what: str,
    ours_N: DoubleArray,
    peer_N: DoubleArray,
    peer: str,
    places: Sequence[str],
    note: str,
    more: dict[str, Any] | None = None,
) -> Row:
    apart_N = ours_N - peer_N
    found = Difference.of(apart_N, places, most=max(float(np.abs(apart_N).max()), 1e-9))
    means = float(ours_N.mean()), float(peer_N.mean())
    return common.paired(what, *means, peer, (found.value, *found.interval), note=note, more=more)


# Lists of species


def _lists(name: str, about: Mapping[str, Any], network: str) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        drawn = Path(folder, "drawn")
        draw_stations(drawn, **about)
        config = TrainConfig(backbone=network, boxes=drawn / "boxes.json", split="location")
        made = train(drawn / "stations.json", config)
    evaluation, classifier = made.evaluation, made.classifier
    log_p_NC = metrics.log_softmax32(evaluation.scores_NC / np.float32(classifier.temperature))
    places = [each[:3] for each in evaluation.photo_ids]  # S01-0004-2#1: the station is first
    stations = {each.name: each.region for each in station_plan.stations(about["stations"], about["seed"])}
    region_N = np.array([stations[each] for each in places])
    lives_RC = _lives(about, [taxon.id for taxon in classifier.taxa])
    rows = []
    for gaps in GAPS:
        losses, errors = _with_lists(log_p_NC, evaluation.labels_N, region_N, lives_RC, gaps)
        said = ", ".join(f"{factor}: {losses[factor].mean():.3f}" for factor in FACTORS)
        apart_N = losses[_TAKEN] - losses[5]
        near = Difference.of(apart_N, places, most=max(float(np.abs(apart_N).max()), 1e-9))
        wrong = ", ".join(f"{factor}: {errors[factor]:.1%}" for factor in FACTORS)
        rows.append(
            _compared(
                f"{name}: list that lacks {gaps:.0%} of the species, log-loss",
                losses[_TAKEN],
                losses[1],
                "no list",
                places,
                f"log-loss by factor {said}; of {_TAKEN} less that of 5 {near.value:+.3f} "
                f"({near.interval[0]:+.3f} to {near.interval[1]:+.3f}); error {wrong}",
                {str(factor): float(losses[factor].mean()) for factor in FACTORS},
            )
        )
    return rows


def _lives(about: Mapping[str, Any], ids: Sequence[str]) -> Any:
    """Return which labels live in which region, (R, C); labels of no animal are everywhere."""
    habits = station_plan.habits(about["species"], about["seed"])
    numbers = [int(each) - station_plan.FIRST_SPECIES for each in ids]
    regions = range(len(station_plan.REGIONS))
    return np.array([[n < 0 or r in habits[n].regions for n in numbers] for r in regions])


def _with_lists(
    log_p_NC: FloatArray, y_N: Any, region_N: Any, lives_RC: Any, gaps: float
) -> tuple[dict[int, DoubleArray], dict[int, float]]:
    """Compute the log-loss of each photo, and the error, by factor: means over lists with other gaps."""
    rng = np.random.default_rng(0)
    losses = {factor: np.zeros(len(y_N)) for factor in FACTORS}
    errors = dict.fromkeys(FACTORS, 0.0)
    draws = _LISTS if gaps else 1
    animal_C = ~lives_RC.all(axis=0)  # no species lives in all regions
    for _ in range(draws):
        listed_RC = lives_RC & ~(animal_C & (rng.random(lives_RC.shape) < gaps))
        for factor in FACTORS:
            ratio_NC = np.where(listed_RC[region_N], 0, -np.log(factor)).astype(np.float32)
            with_NC = metrics.log_softmax32(log_p_NC + ratio_NC)
            losses[factor] -= with_NC[np.arange(len(y_N)), y_N] / draws
            errors[factor] += float((with_NC.argmax(axis=1) != y_N).mean()) / draws
    return losses, errors
