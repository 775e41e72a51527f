"""What is said of an ensemble: what its members contribute, its cost, and its first network alone."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fieldmark import models
from fieldmark.evaluation import ensemble
from fieldmark.evaluation.comparison import Difference, difference
from fieldmark.evaluation.ensemble import MemberContribution
from fieldmark.evaluation.results import Evaluation
from fieldmark.inference.classifier import Classifier, stacked
from fieldmark.training.stages import Outcome
from fieldmark.utils.languages import number, say
from fieldmark.utils.typing import FloatArray

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MemberFacts:
    """A member of an ensemble.

    Attributes:
        name, weight: of the member.
        weights: the pretrained weights, one line.
        giga_macs: multiply-adds for one photo, in thousands of millions.
        contribution: measured on the test part; None where it cannot be measured.
    """

    name: str
    weight: float
    weights: str
    giga_macs: float
    contribution: MemberContribution | None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        value = asdict(self)
        del value["contribution"]
        value["verdict"] = verdict(self.contribution)
        if self.contribution is None:
            return value
        return value | {"worth": self.contribution.loss, "worth_interval": list(self.contribution.interval)}


@dataclass(frozen=True)
class Cost:
    """The cost of one photo: multiply-adds, and milliseconds without decoding."""

    giga_macs: float
    times_default: float
    milliseconds: float

    @property
    def said(self) -> str:
        """A sentence."""
        return say(
            "{cost} giga-MACs a photo, {times} times the default network's; {milliseconds} ms on the "
            "computer that trained it.",
            cost=number(self.giga_macs, 2),
            times=number(self.times_default, 1),
            milliseconds=number(self.milliseconds),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values, with a sentence."""
        return asdict(self) | {"said": self.said}


@dataclass(frozen=True)
class ReferenceComparison:
    """The classifier compared with the first candidate alone, on the test part.

    Attributes:
        name: of the first candidate.
        error: its error.
        difference: the classifier's error minus that, paired.
    """

    name: str
    error: float
    difference: Difference

    @property
    def said(self) -> str:
        """A sentence."""
        low, high = self.difference.interval
        tie = ": a tie" if self.difference.tie else ""
        return (
            f"{self.name} alone has a top-1 error of {self.error:.1%} on the same photos; the "
            f"difference of the chosen classifier is {self.difference.value:+.1%} "
            f"({low:+.1%} to {high:+.1%}){tie}."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        found = self.difference
        interval = list(found.interval)
        value = {"name": self.name, "value": found.value, "interval": interval, "tie": found.tie}
        return value | {"said": self.said}


def facts(
    outcome: Outcome, names: Sequence[str], first: str, alone: Evaluation | None, seed: int
) -> dict[str, Any]:
    """Describe the members, the cost of a photo, and what the first candidate alone came to.

    Args:
        outcome: what was measured.
        names: of the members.
        first: the name of the first candidate.
        alone: its scores on the same photos; None: it is the classifier.
        seed: of the bootstrap.
    """
    members = member_facts(outcome, names, seed)
    runs = {(m.backbone.key, m.member.preprocess): m.backbone for m in outcome.fitted.members}
    cost = _cost(outcome.classifier, sum(each.architecture.giga_macs for each in runs.values()))
    details: dict[str, Any] = {
        "ensemble": {"members": [each.to_dict() for each in members], "cost": cost.to_dict()}
    }
    if alone is not None and alone.kept_N.any():
        error = float(alone.wrong_N()[alone.kept_N].mean())
        compared = ReferenceComparison(first, error, difference(outcome.evaluation, alone, seed=seed))
        details["beside"] = compared.to_dict()
        logger.info(compared.said)
    return details


def member_facts(outcome: Outcome, names: Sequence[str], seed: int) -> list[MemberFacts]:
    """Describe the members, with their contributions on the photos that are measured."""
    contributions = _contributions(outcome, seed)
    return [
        MemberFacts(
            name,
            each.member.weight,
            each.backbone.weights_info.line,
            each.backbone.architecture.giga_macs,
            contribution,
        )
        for each, name, contribution in zip(outcome.fitted.members, names, contributions, strict=True)
    ]


def measured_logits(outcome: Outcome) -> Sequence[FloatArray]:
    """Return each member's logits of the photos that are measured, divided by its temperature."""
    folds = outcome.fitted.folds
    if folds is None or len(outcome.splits.test):
        return outcome.test_logits
    order_N = np.concatenate([each.numbers_M for each in folds]).argsort()
    members = zip(*(each.logits_MNC for each in folds), strict=True)
    return [np.concatenate(each)[order_N] for each in members]


def _contributions(outcome: Outcome, seed: int) -> list[MemberContribution | None]:
    measured, logits = outcome.evaluation, measured_logits(outcome)
    known = measured.labels_N >= 0
    if len(logits) < 2 or not known.any():
        return [None] * len(logits)
    rows = [ensemble.label_probabilities(each[known], measured.labels_N[known]) for each in logits]
    groups = [g for g, k in zip(measured.groups, known, strict=True) if k]
    weights = np.array([member.weight for member in outcome.classifier.members])
    return list(ensemble.contributions(np.stack(rows), weights, groups, seed=seed))


def _cost(classifier: Classifier, giga_macs: float, rounds: int = 5) -> Cost:
    """Time one photo whose crops are in memory."""
    crops = stacked([classifier.crop(np.zeros((256, 256, 3), np.uint8))])
    classifier.outputs(crops)  # loads the networks
    begin = time.perf_counter()
    for _ in range(rounds):
        classifier.outputs(crops)
    milliseconds = 1000 * (time.perf_counter() - begin) / rounds
    return Cost(giga_macs, giga_macs / models.architecture(models.DEFAULT).giga_macs, milliseconds)


def verdict(contribution: MemberContribution | None) -> str:
    """Return whether a member improves the ensemble, in words."""
    if contribution is None:
        return say("not measured")
    low, high = (number(each, 3) for each in contribution.interval)
    values = {"loss": number(contribution.loss, 3), "low": low, "high": high}
    if contribution.improves:
        return say(
            "improves the ensemble (without it the log-loss rises by {loss}, {low} to {high})", **values
        )
    return say(
        "a tie on the photos that are measured (without it the log-loss rises by {loss}, {low} to {high})",
        **values,
    )
