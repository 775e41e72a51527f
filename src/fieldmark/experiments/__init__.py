"""Experiments: studies that compare networks and ways of training, and the ranking of networks."""

from fieldmark.experiments.compact_models import Budget, compact
from fieldmark.experiments.model_ranking import RankConfig, rank
from fieldmark.experiments.own import OwnNetwork
from fieldmark.experiments.runs import Options, Recipe, Run
from fieldmark.experiments.study import StudyConfig, StudyResult, study

__all__ = [
    "Budget",
    "Options",
    "OwnNetwork",
    "RankConfig",
    "Recipe",
    "Run",
    "StudyConfig",
    "StudyResult",
    "compact",
    "rank",
    "study",
]
