"""Train several candidates: an ensemble, or what does best within a time budget.

`fieldmark.training.automl` tries and chooses the candidates; this makes members of a classifier of them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from fieldmark import models
from fieldmark.data.dataset import Dataset
from fieldmark.data.subset import DataSplits
from fieldmark.evaluation.ensemble import WEIGHTINGS
from fieldmark.evaluation.results import Evaluation
from fieldmark.features.extraction import Extraction
from fieldmark.features.extractor import extractor_of
from fieldmark.heads.softmax import Fit, Hyperparameters
from fieldmark.inference.classifier import Member, Network
from fieldmark.training import automl
from fieldmark.training.automl import Search, TrialResult, selection
from fieldmark.training.automl.selection import EnsembleOption
from fieldmark.training.automl.summary import OptionRow, lines, table
from fieldmark.training.config import TrainConfig
from fieldmark.training.finetune import join_processes
from fieldmark.training.stages import CalibrationSet, Fitted, FittedMember, Outcome, Prepared
from fieldmark.training.strategies import folds
from fieldmark.training.strategies.members import facts, measured_logits
from fieldmark.utils.typing import FloatArray, IntArray

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SearchOutcome:
    """The result of a search.

    Attributes:
        option: the chosen one.
        why: the reason, a sentence.
        tried: the options with last layers, a row each.
        tuned: the options with fine-tuned networks; empty where none was fine-tuned.
        skipped: for each candidate that was not tried, a sentence with the reason.
        trials: the trained candidates, the fine-tuned ones last.
        extraction: the features that were computed on the way.
    """

    option: EnsembleOption
    why: str
    tried: list[OptionRow]
    tuned: list[OptionRow]
    skipped: list[str]
    trials: list[TrialResult]
    extraction: Extraction

    @property
    def used(self) -> list[tuple[TrialResult, float]]:
        """The candidates with a weight, the largest first; the weights sum to 1."""
        pairs = [(t, float(w)) for t, w in zip(self.trials, self.option.weights_M, strict=True) if w]
        total = sum(weight for _, weight in pairs)
        return sorted(((t, w / total) for t, w in pairs), key=lambda pair: -pair[1])

    def held_out(self, parts: DataSplits) -> tuple[list[FloatArray], IntArray]:
        """Return each used candidate's logits of photos that none was trained on, and their labels."""
        photos = automl.training_and_validation(parts)
        every = np.ones(len(photos), np.bool_)
        rows = [every if each.rows_N is None else each.rows_N for each, _ in self.used]
        shared_N = np.logical_and.reduce(rows)
        logits = [t.logits_NC[shared_N[own]] for (t, _), own in zip(self.used, rows, strict=True)]
        return logits, photos.labels(parts.classes)[shared_N]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        tuned = {"tuned": [row.to_dict() for row in self.tuned]} if self.tuned else {}
        return {
            "chosen": {"how": self.why},
            "tried": [row.to_dict() for row in self.tried],
            **tuned,
            "passed_over": self.skipped,
        }


@dataclass(frozen=True)
class EnsembleStrategy:
    """Train several candidates, and take an ensemble of them or what does best within a budget.

    Attributes:
        dataset: the photos and their split.
        config: every choice.
        budget: the time for the search, which runs from now on.
        divided: whether the user divided the photos.
    """

    dataset: Dataset
    config: TrainConfig
    budget: automl.Budget
    divided: bool = False

    @classmethod
    def of(cls, dataset: Dataset, config: TrainConfig, *, divided: bool = False) -> EnsembleStrategy:
        """Start the budget, and name the networks in the configuration."""
        names = _names(config)
        named = replace(config, backbone=names[0], also=tuple(names[1:]))
        return cls(dataset, named, automl.Budget(config.budget), divided)

    @cached_property
    def networks(self) -> list[models.Backbone]:
        """The networks to try, with their pretrained weights."""
        names = (self.config.network, *self.config.also)
        return automl.load_all(names, self.config.weights_dir, self.config.seed, self.config.size)

    def prepare(self) -> Prepared:
        """Compute the features of the first network; in folds, of all."""
        join_processes("last")
        wanted = self.networks if self.config.in_folds else self.networks[:1]
        data = Prepared(self.dataset, extractor_of(self.config))
        data = data.compute({each.architecture.name: each for each in wanted})
        return folds.divided(data, wanted, self.config, by_user=self.divided)

    def fit(self, data: Prepared) -> Fitted:
        """Try the candidates, and take what does best on photos that it was not trained on; in folds nothing
        is chosen, all networks have equal weights."""
        if data.split.way == "folds":
            found = folds.cross_fitted(data, self.networks, self.config)
            return replace(found, compare=self._compare_in_folds)
        outcome = run_search(data, self.networks, self.config, self.budget)
        members = tuple(
            FittedMember(member, each.candidate.backbone, each.candidate.extractor)
            for member, (each, _) in zip(_members(outcome), outcome.used, strict=True)
        )
        logits, labels_N = outcome.held_out(data.splits)
        scaled = [member.scaled(each) for each, member in zip(logits, members, strict=True)]
        fit = Fit(Hyperparameters(), members[0].member.head, scaled_loss=outcome.option.loss)
        again = self.config.learns_from_all
        return Fitted(
            members,
            replace(data, extraction=data.extraction.merged(outcome.extraction)),
            (fit,),
            sum(each.seconds for each in outcome.trials),
            CalibrationSet(scaled, labels_N),
            # A fine-tuned network has seen all classes, so other heads on it tell nothing about others.
            unseen_classes=outcome.used[0][0].rows_N is None,
            learned=data.labelled(divided=self.divided or not again),
            refit=(lambda photos: [each.fit_on(photos) for each, _ in outcome.used]) if again else None,
            details={
                **outcome.to_dict(),
                "quality": self.config.quality,
                "budget_seconds": self.config.budget,
            },
            compare=lambda measured: self._compare(outcome, measured),
        )

    def _compare(self, search: SearchOutcome, outcome: Outcome) -> Mapping[str, Any]:
        """Measure each member's contribution, and compare the classifier with the first candidate."""
        first = search.trials[0]
        alone = None if [each for each, _ in search.used] == [first] else _alone(first, outcome)
        return facts(outcome, [each.name for each, _ in search.used], first.name, alone, self.config.seed)

    def _compare_in_folds(self, outcome: Outcome) -> Mapping[str, Any]:
        """The same for networks among which nothing was chosen."""
        names = [each.member.name for each in outcome.fitted.members]
        alone = replace(outcome.evaluation, scores_NC=measured_logits(outcome)[0])
        return facts(outcome, names, names[0], alone, self.config.seed)


def _names(config: TrainConfig) -> tuple[str, ...]:
    """Return the networks to try: those that are named, else all available, the default first."""
    if config.backbone:
        return (config.backbone, *config.also)
    available = models.available(config.weights_dir)
    cheap = sorted(available, key=lambda name: models.architecture(name).giga_macs)
    return tuple(dict.fromkeys((models.DEFAULT, *cheap)))


def run_search(
    data: Prepared, networks: Sequence[models.Backbone], config: TrainConfig, budget: automl.Budget
) -> SearchOutcome:
    """Try candidates within the budget, and choose by their out-of-fold predictions."""
    best, parts = config.quality == "best", data.splits
    search = Search(parts, config.seed, budget)
    wanted = automl.candidates(networks, data.extractor, all_views=best, sides=config.also_sizes)
    if best:
        search.try_best(wanted, stream=config.stream, bfloat16=config.bfloat16)
        ways = selection.WEIGHTINGS
    else:
        search.try_all(wanted, "softmax")
        ways = {config.ensemble or "weights": WEIGHTINGS[config.ensemble or "weights"]}
    made = selection.options(search.results, parts, config.seed, ways)
    groups = selection.groups_of(parts)
    rise = selection.loss_differences(made, groups, config.seed)
    if best:
        option, why = selection.choose_option(made, rise)
    else:
        option = next(each for each in made if each.without_FM is not None)
        why = f"A {option.name} was requested."
    first = next(each for each in made if each.name == search.results[0].name)
    tried = table(made, rise, option, first, search.results, groups, config.seed)
    tuned: list[OptionRow] = []
    for line in lines(tried):
        logger.info(line)
    if search.tuned:
        option, tuned_why, tuned = _compare_tuned(option, search, parts, config.seed)
        why = f"{why} {tuned_why}"
        logger.info(f"With fine-tuned networks, on {tuned[0].photos:,} photos of one fold:")
        for line in lines(tuned):
            logger.info(line)
    logger.info(why)
    trials = [*search.results, *search.tuned]
    return SearchOutcome(option, why, tried, tuned, search.skipped, trials, search.extraction)


def _compare_tuned(
    taken: EnsembleOption, search: Search, parts: DataSplits, seed: int
) -> tuple[EnsembleOption, str, list[OptionRow]]:
    """Choose between the option with last layers and the fine-tuned networks: option, reason, table."""
    made = selection.options_with_fine_tuned(taken, search.results, search.tuned, parts, seed)
    groups = selection.groups_of(parts, search.tuned)
    rise = selection.loss_differences(made, groups, seed)
    option, why = selection.choose_option(made, rise)
    first = next(each for each in made if each.name == taken.name)
    every = [*search.results, *search.tuned]
    rows = table(made, rise, option, first, every, groups, seed)
    return option, f"With fine-tuned networks, on {len(groups):,} photos of one fold: {why}", rows


def _members(search: SearchOutcome) -> tuple[Member, ...]:
    networks = {t.candidate.backbone.key: Network.of(t.candidate.backbone) for t, _ in search.used}
    alone = len(search.used) == 1
    return tuple(
        Member(
            networks[each.candidate.backbone.key],
            each.candidate.view,
            each.head,
            1.0 if alone else each.temperature,
            weight,
        )
        for each, weight in search.used
    )


def _alone(first: TrialResult, outcome: Outcome) -> Evaluation:
    """Return the scores of the first candidate on the test part; no choice uses it."""
    parts = outcome.splits
    test = first.candidate.extractor.features(first.candidate.backbone, parts.test, parts.classes)
    return Evaluation.of(parts.test, first.head.logits_of(test.features), parts.classes)
