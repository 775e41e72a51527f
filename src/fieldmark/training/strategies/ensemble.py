"""`fieldmark train` with several candidates: an ensemble, or what does best within a budget.

What is tried and chosen is in `fieldmark.training.automl`; this brings it to a classifier's folder, measured on
the test part once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from fieldmark import models
from fieldmark.data.dataset import Dataset
from fieldmark.data.subset import DataSplits
from fieldmark.evaluation import ensemble
from fieldmark.evaluation.comparison import difference
from fieldmark.evaluation.ensemble import WEIGHTINGS, MemberContribution
from fieldmark.evaluation.results import Evaluation
from fieldmark.features.extraction import Extraction
from fieldmark.features.extractor import PAPER_CROP, FeatureExtractor
from fieldmark.heads.softmax import Fit, Hyperparameters
from fieldmark.inference.classifier import Classifier, Member, Network, stacked
from fieldmark.training import automl
from fieldmark.training.automl import Search, TrialResult, selection
from fieldmark.training.automl.selection import EnsembleOption
from fieldmark.training.automl.summary import lines, table
from fieldmark.training.config import TrainConfig
from fieldmark.training.finetune import join_processes
from fieldmark.training.pipeline import CalibrationSet, Fitted, FittedMember, Outcome, Prepared
from fieldmark.utils.typing import FloatArray, IntArray

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SearchOutcome:
    """What a search came to.

    Attributes:
        option: what is taken.
        account: what is said of it, as JSON values: `chosen`, `tried`, `tuned`, `passed_over`.
        tried: the candidates that were learned, those with trained networks last.
        extraction: the features that were computed on the way.
    """

    option: EnsembleOption
    account: dict[str, Any]
    tried: list[TrialResult]
    extraction: Extraction

    @property
    def used(self) -> list[tuple[TrialResult, float]]:
        """The candidates that have a weight, the largest first; the weights sum to 1."""
        pairs = [(t, float(w)) for t, w in zip(self.tried, self.option.weights_M, strict=True) if w]
        total = sum(weight for _, weight in pairs)
        return sorted(((t, w / total) for t, w in pairs), key=lambda pair: -pair[1])

    def held_out(self, parts: DataSplits) -> tuple[list[FloatArray], IntArray]:
        """Each used candidate's logits of the photos that none of them saw, and these photos' labels."""
        photos = automl.training_and_validation(parts)
        every = np.ones(len(photos), np.bool_)
        rows = [every if each.rows_N is None else each.rows_N for each, _ in self.used]
        shared_N = np.logical_and.reduce(rows)
        logits = [t.logits_NC[shared_N[own]] for (t, _), own in zip(self.used, rows, strict=True)]
        return logits, photos.labels(parts.classes)[shared_N]


@dataclass(frozen=True)
class EnsembleStrategy:
    """Train several candidates, and take an ensemble of them or what is best within a budget.

    Attributes:
        dataset: the photos and their split.
        config: every choice.
        budget: how long the search may take; it runs from now on.
    """

    dataset: Dataset
    config: TrainConfig
    budget: automl.Budget

    @classmethod
    def of(cls, dataset: Dataset, config: TrainConfig) -> EnsembleStrategy:
        """Start the budget, and name the first network."""
        names = _names(config)
        named = replace(config, backbone=names[0], also=tuple(names[1:]))
        return cls(dataset, named, automl.Budget(config.budget))

    @cached_property
    def networks(self) -> list[models.Backbone]:
        """The networks to try, with their pretrained weights."""
        names = (self.config.network, *self.config.also)
        return automl.load_all(names, self.config.weights_dir, self.config.seed)

    def prepare(self) -> Prepared:
        """Compute the features of the first network."""
        join_processes("last")
        first = self.networks[0]
        view = replace(PAPER_CROP, tier=self.config.tier)
        data = Prepared(self.dataset, FeatureExtractor(view, engine=self.config.engine))
        return data.compute({first.architecture.name: first})

    def fit(self, data: Prepared) -> Fitted:
        """Try the candidates, and take what does best on photos that it was not trained on."""
        chosen = run_search(data, self.networks, self.config, self.budget)
        splits = data.splits
        members = tuple(
            FittedMember(member, each.candidate.backbone, each.candidate.extractor)
            for member, (each, _) in zip(_members(chosen), chosen.used, strict=True)
        )
        logits, labels_N = chosen.held_out(splits)
        scaled = [member.scaled(each) for each, member in zip(logits, members, strict=True)]
        fit = Fit(Hyperparameters(), members[0].member.head, scaled_loss=chosen.option.loss)
        return Fitted(
            members,
            replace(data, extraction=data.extraction.merged(chosen.extraction)),
            (fit,),
            sum(each.seconds for each in chosen.tried),
            CalibrationSet(scaled, labels_N),
            # A network that was trained on all classes tells nothing of photos of others.
            unseen_classes=chosen.used[0][0].rows_N is None,
            details={
                **chosen.account,
                "quality": self.config.quality,
                "budget_seconds": self.config.budget,
            },
            compare=lambda outcome: self._compare(chosen, outcome),
        )

    def _compare(self, chosen: SearchOutcome, outcome: Outcome) -> Mapping[str, Any]:
        """What each member is worth, and what was taken beside the first candidate."""
        seed = self.config.seed
        found = {"ensemble": ensemble_facts(outcome, chosen, seed)}
        if compared := _beside_first(chosen, outcome, seed):
            found["beside"] = compared
            logger.info(compared["said"])
        return found


def _names(config: TrainConfig) -> tuple[str, ...]:
    """The networks to try: those that were named, else all that are at hand, the default first."""
    if config.backbone:
        return (config.backbone, *config.also)
    at_hand = models.available(config.weights_dir)
    cheap = sorted(at_hand, key=lambda name: models.architecture(name).giga_macs)
    return tuple(dict.fromkeys((models.DEFAULT, *cheap)))


def run_search(
    data: Prepared,
    networks: Sequence[models.Backbone],
    config: TrainConfig,
    budget: automl.Budget,
) -> SearchOutcome:
    """Try what there is room for, and take what is best on photos that it never saw."""
    best, parts = config.quality == "best", data.splits
    doing = Search(parts, config.seed, budget)
    wanted = automl.candidates(networks, data.extractor, all_views=best)
    if best:
        doing.try_best(wanted, stream=config.stream, bfloat16=config.bfloat16)
        ways = selection.WEIGHTINGS
    else:
        doing.try_all(wanted, "softmax")
        ways = {config.ensemble or "weights": WEIGHTINGS[config.ensemble or "weights"]}
    made, groups = (
        selection.options(doing.results, parts, config.seed, ways),
        selection.groups_of(parts),
    )
    rise = selection.loss_differences(made, groups, config.seed)
    if best:
        option, why = selection.choose_option(made, rise)
    else:
        option = next(each for each in made if each.name in ways)
        why = f"An ensemble by {option.name} was asked for."
    first = next(each for each in made if each.name == doing.results[0].name)
    told = {"tried": table(made, rise, option, first, doing.results, groups, config.seed)}
    if doing.tuned:
        option, and_then, told["tuned"] = _beside_tuned(option, doing, parts, config.seed)
        why = f"{why} {and_then}"
    for name, rows in told.items():
        if name == "tuned":
            logger.info(f"On {rows[0]['photos']:,} photos of one fold, beside trained networks:")
        for line in lines(rows):
            logger.info(line)
    logger.info(why)
    account = {"chosen": {"how": why}, **told, "passed_over": doing.skipped}
    return SearchOutcome(option, account, [*doing.results, *doing.tuned], doing.extraction)


def _beside_tuned(
    taken: EnsembleOption, doing: Search, parts: DataSplits, seed: int
) -> tuple[EnsembleOption, str, list[dict[str, Any]]]:
    """What is taken where networks were trained as well, why, and the table of that."""
    made = selection.options_with_fine_tuned(taken, doing.results, doing.tuned, parts, seed)
    groups = selection.groups_of(parts, doing.tuned)
    rise = selection.loss_differences(made, groups, seed)
    option, why = selection.choose_option(made, rise)
    first = next(each for each in made if each.name == taken.name)
    every = [*doing.results, *doing.tuned]
    rows = table(made, rise, option, first, every, groups, seed)
    which = f"Beside networks that were trained, on the {len(groups):,} photos of one fold: "
    return option, which + why, rows


def _members(chosen: SearchOutcome) -> tuple[Member, ...]:
    networks = {t.candidate.backbone.key: Network.of(t.candidate.backbone) for t, _ in chosen.used}
    alone = len(chosen.used) == 1
    return tuple(
        Member(
            networks[each.candidate.backbone.key],
            each.candidate.view,
            each.head,
            1.0 if alone else each.temperature,
            weight,
        )
        for each, weight in chosen.used
    )


def _beside_first(chosen: SearchOutcome, outcome: Outcome, seed: int) -> dict[str, Any]:
    """What is taken beside the first candidate on the test part, photo by photo; no choice sees it.

    Empty where there is nothing to compare: the first was taken, or no photo has a known class.
    """
    first, parts, evaluation = chosen.tried[0], outcome.splits, outcome.evaluation
    if [each for each, _ in chosen.used] == [first] or not evaluation.kept_N.any():
        return {}
    test = first.candidate.extractor.features(first.candidate.backbone, parts.test, parts.classes)
    alone = Evaluation.of(parts.test, first.head.logits_of(test.features), parts.classes)
    found = difference(evaluation, alone, seed=seed)
    low, high = found.interval
    wrong = alone.wrong_N()[alone.kept_N].mean()
    said = (
        f"{first.name} by itself is wrong for {wrong:.1%} of the same photos; the difference of what "
        f"was taken is {found.value:+.1%} ({low:+.1%} to {high:+.1%}){': a tie' if found.tie else ''}."
    )
    return {
        "name": first.name,
        "value": found.value,
        "interval": [low, high],
        "tie": found.tie,
        "said": said,
    }


def ensemble_facts(outcome: Outcome, chosen: SearchOutcome, seed: int) -> dict[str, Any]:
    """What the members are, what each is worth on the test part, and what a photo costs."""
    facts = []
    worths = _worths(outcome, seed)
    for (each, weight), worth in zip(chosen.used, worths, strict=True):
        one: dict[str, Any] = {
            "name": each.name,
            "weight": weight,
            "weights": each.candidate.backbone.account.line,
            "giga_macs": each.candidate.backbone.architecture.giga_macs,
            "verdict": "not measured" if worth is None else verdict(worth),
        }
        if worth is not None:
            one |= {"worth": worth.loss, "worth_interval": list(worth.interval)}
        facts.append(one)
    return {"members": facts, "cost": _cost(outcome.classifier, chosen.option.giga_macs)}


def _worths(outcome: Outcome, seed: int) -> list[MemberContribution | None]:
    classifier, test, parts = outcome.classifier, outcome.test_logits, outcome.splits
    labels_N = parts.test.labels(parts.classes)
    known = labels_N >= 0
    if len(test) < 2 or not known.any():
        return [None] * len(test)
    rows = [ensemble.label_probabilities(each[known], labels_N[known]) for each in test]
    groups = [g for g, k in zip(parts.test.groups, known, strict=True) if k]
    weights = np.array([member.weight for member in classifier.members])
    return list(ensemble.worth(np.stack(rows), weights, groups, seed=seed))


def _cost(classifier: Classifier, macs: float, rounds: int = 5) -> dict[str, Any]:
    """Giga-MACs, and the time for one photo whose crops are there already."""
    usual = models.architecture(models.DEFAULT).giga_macs
    crops = stacked([classifier.crop(np.zeros((256, 256, 3), np.uint8))])
    classifier.outputs(crops)  # the networks are loaded
    begin = time.perf_counter()
    for _ in range(rounds):
        classifier.outputs(crops)
    spent = 1000 * (time.perf_counter() - begin) / rounds
    said = (
        f"{macs:.2f} giga-MACs a photo, {macs / usual:.1f} times the default network's; "
        f"{spent:.0f} ms on the machine that it was made on."
    )
    return {"giga_macs": macs, "times_default": macs / usual, "milliseconds": spent, "said": said}


def verdict(worth: MemberContribution) -> str:
    """Whether a member earns its place, in words."""
    low, high = worth.interval
    told = "earns its place" if worth.earns else "a tie: the test photos cannot tell that it helps"
    return f"{told} (without it the log-loss rises by {worth.loss:.3f}, {low:.3f} to {high:.3f})"
