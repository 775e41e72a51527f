"""The networks of a study, loaded first so that missing weights are reported at once."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from fieldmark import models
from fieldmark.experiments import own
from fieldmark.experiments.records import SkippedNetwork
from fieldmark.experiments.runs import Run
from fieldmark.experiments.study.config import StudyConfig
from fieldmark.models import Backbone, runtime
from fieldmark.training import compute
from fieldmark.training.config import TrainConfig
from fieldmark.training.stages import Prepared
from fieldmark.utils.errors import InputError, WeightsUnavailable

logger = logging.getLogger(__name__)

_CHOSEN = ("int8", "auto")  # made by the photos of the study


@dataclass(frozen=True)
class Networks:
    """The networks of a study by name: pretrained where possible, and those of random weights."""

    pretrained: dict[str, Backbone]
    random: dict[str, Backbone]
    skipped: list[SkippedNetwork]
    _sized: dict[tuple[str, int], Backbone] = field(default_factory=dict)  # by native key and side

    def of(self, run: Run) -> Backbone:
        """Return the network of a run, for crops of its size; raises InputError if it takes none such."""
        found = (self.random if run.transfer == "scratch" else self.pretrained)[run.backbone]
        if run.size is None:
            return found
        key = found.key, run.size
        if key not in self._sized:
            self._sized[key] = found.exact.at(run.size).computed(found.tier)
        return self._sized[key]

    def can_run(self, run: Run, runs: Sequence[Run]) -> bool:
        """Return whether its network is there or, for a run that is made from rows, one of theirs is."""
        if run.backbone:
            return run.backbone in self.pretrained
        needed = run.members or run.best_of
        return any(other.table == needed and other.backbone in self.pretrained for other in runs)


def load(runs: Sequence[Run], config: StudyConfig) -> Networks:
    """Load every network that the runs name, or build it where it is the user's own.

    Raises:
        InputError: two different networks have one name, or one cannot be built.
    """
    found, tier = Networks({}, {}, []), runtime.HALF if config.compute == "half" else runtime.EXACT
    seed = config.options.seed
    if config.compute in _CHOSEN and any(run.size for run in runs):
        raise InputError(
            "A row has a size of its own, and int8 is made for the network's: use --compute half."
        )
    for name in dict.fromkeys(run.backbone for run in runs if run.backbone):
        sharing = [run for run in runs if run.backbone == name]
        if sharing[0].own is not None:
            found.pretrained[name] = found.random[name] = _own(sharing, seed).computed(tier)
            continue
        if any(run.transfer == "scratch" for run in sharing):
            found.random[name] = models.load(name, weights="random", seed=seed)
        try:
            network = models.load(name, weights_dir=config.weights_dir, seed=seed)
        except WeightsUnavailable as error:
            if config.skip_missing:
                logger.info(f"{name} is left out: {error}")
                found.skipped.append(SkippedNetwork(name, str(error)))
                continue
            network = random_network(name, seed, error)
        logger.info(f"Network: {network.summary}")
        found.pretrained[name] = network.computed(tier)
    for run in runs:  # a size that cannot be is refused at once
        if run.backbone in found.pretrained:
            found.of(run)
    return found


def in_tiers(networks: Networks, names: Collection[str], data: Prepared, config: StudyConfig) -> Networks:
    """Return the networks, those with these names in the tiers that `int8` and `auto` choose.

    Ranges, speeds and what becomes of the error are measured on training photos of the study.

    Raises:
        InputError: a network cannot be quantised, or nothing here runs it.
    """
    if config.compute not in _CHOSEN:
        return networks
    how = TrainConfig(compute=config.compute, engine=config.engine, seed=config.options.seed)
    chosen = {name: compute.choose(data, networks.pretrained[name], how).backbone for name in names}
    return replace(networks, pretrained=networks.pretrained | chosen, _sized={})


def random_network(name: str, seed: int, error: WeightsUnavailable, size: int | None = None) -> Backbone:
    """Return a network with random weights, and log a warning with the reason."""
    logger.warning(f"Warning: {name} has randomly initialised weights: {error}")
    return models.load(name, weights="random", seed=seed, size=size)


def _own(runs: Sequence[Run], seed: int) -> Backbone:
    """The user's own network, which all runs with its name share."""
    first = runs[0].own
    if first is None or any(run.own is None or run.own.key != first.key for run in runs):
        raise InputError(
            f"Two different networks are called {runs[0].backbone!r}: give each run of one of them "
            "another `backbone`."
        )
    return own.backbone(first, runs[0].backbone, seed)
