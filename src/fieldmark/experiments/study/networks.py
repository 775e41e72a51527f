"""The networks of a study: loaded before any long work, so that what is missing is said at once."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from fieldmark import models
from fieldmark.experiments.recipes import Run
from fieldmark.experiments.study.config import StudyConfig
from fieldmark.models import Backbone
from fieldmark.utils.errors import WeightsUnavailable

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Networks:
    """The networks of a study by name, pretrained where that can be had, and random ones."""

    pretrained: dict[str, Backbone]
    random: dict[str, Backbone]
    skipped: list[dict[str, str]]

    def of(self, run: Run) -> Backbone:
        """The network that a run needs."""
        return (self.random if run.transfer == "scratch" else self.pretrained)[run.backbone]

    def can_run(self, run: Run, runs: Sequence[Run]) -> bool:
        """Whether its network is there, or, where it is made from other rows, one of theirs is."""
        if run.backbone:
            return run.backbone in self.pretrained
        needed = run.members or run.best_of
        rows = (other for other in runs if other.table == needed and other.backbone)
        return any(self.can_run(other, runs) for other in rows)


def load(runs: Sequence[Run], config: StudyConfig) -> Networks:
    """Load every network that the runs name."""
    found = Networks({}, {}, [])
    seed = config.options.seed
    for name in dict.fromkeys(run.backbone for run in runs if run.backbone):
        if any(run.backbone == name and run.transfer == "scratch" for run in runs):
            found.random[name] = models.load(name, weights="random", seed=seed)
        try:
            network = models.load(name, weights_dir=config.weights_dir, seed=seed)
        except WeightsUnavailable as error:
            if config.skip_missing:
                logger.info(f"{name} is skipped: {error}")
                found.skipped.append({"backbone": name, "why": str(error)})
                continue
            logger.warning(
                f"Warning: randomly initialised weights (none found for {name}). {error}"
            )
            network = models.load(name, weights="random", seed=seed)
        logger.info(f"{name}: {network.weights_info.summary}")
        found.pretrained[name] = network
    return found
