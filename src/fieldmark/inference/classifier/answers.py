"""What a classifier says of a photo: labels with scores, wider ranks, and why.

The answer given is the first label where it is sure enough, else the narrowest wider rank that is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fieldmark.data.taxonomy import Level, Taxon
from fieldmark.evaluation.calibration import Threshold
from fieldmark.utils.typing import FloatArray

Source = Literal["species", "rolled up", "not sure"]


@dataclass(frozen=True)
class Answer:
    """One label with its score.

    Attributes:
        taxon: what the label stands for.
        score: its probability, calibrated, 0 to 1.
    """

    taxon: Taxon
    score: float


@dataclass(frozen=True)
class HigherTaxon:
    """The likeliest taxon at a rank above the labels.

    Attributes:
        rank: "genus", "family", … "kingdom".
        ranks: the names of the taxon, the widest rank first and its own last.
        score: the sum of the probabilities of its labels, 0 to 1.
        without: the sum of those labels that have no such rank, and took no part.
    """

    rank: str
    ranks: Mapping[str, str]
    score: float
    without: float = 0.0

    @property
    def name(self) -> str:
        """The taxon's name."""
        return self.ranks[self.rank]


@dataclass(frozen=True)
class Prediction:
    """What a classifier says of one photo.

    The answer given is the first label where it is sure enough, else the narrowest wider rank that
    is (the species is in doubt, the genus is not), else "not sure".

    Attributes:
        answers: the labels with the highest scores, sorted by confidence (Section 4.2 of the paper).
        sure: whether the first score reaches the threshold.
        rolled: the wider rank that is given as the answer, None where none is.
        wider: the likeliest genus, family … kingdom, each with its score.
        reason: why this is the answer, in plain words.
        unknown: whether the photo may well be of none of the labels; None where that is not judged.
    """

    answers: tuple[Answer, ...]
    sure: bool
    rolled: HigherTaxon | None = None
    wider: tuple[HigherTaxon, ...] = ()
    reason: str = ""
    unknown: bool | None = None

    @property
    def best(self) -> Answer:
        """The label with the highest score."""
        return self.answers[0]

    @property
    def source(self) -> Source:
        """How the answer came about: "species" is the first label itself, whatever its rank."""
        if self.sure:
            return "species"
        return "rolled up" if self.rolled else "not sure"

    @property
    def rank(self) -> str:
        """The rank of the answer given, see `Taxon.rank`; "none" where there is none."""
        if self.sure:
            return self.best.taxon.rank
        return self.rolled.rank if self.rolled else "none"

    @property
    def name(self) -> str:
        """The name of the answer given; empty where there is none."""
        if self.sure:
            return self.best.taxon.name
        return self.rolled.name if self.rolled else ""

    @property
    def ranks(self) -> Mapping[str, str]:
        """The name at each rank down to the answer given, widest first; empty where there is none."""
        if self.sure:
            return self.best.taxon.lineage
        return self.rolled.ranks if self.rolled else {}

    @property
    def score(self) -> float:
        """The probability of the answer given; where there is none, of the best label."""
        return self.rolled.score if self.rolled and not self.sure else self.best.score


def ranked(
    p_C: FloatArray,
    taxa: Sequence[Taxon],
    levels: Sequence[Level],
    thresholds: Mapping[str, Threshold],
    top: int,
    unknown: bool | None,
) -> Prediction:
    """What to say of one photo's probabilities; see `Classifier.rank`."""
    best = np.argsort(-p_C, kind="stable")[:top]
    answers = tuple(Answer(taxa[number], float(p_C[number])) for number in best)
    threshold = thresholds.get("species")
    sure = threshold is None or answers[0].score >= threshold.score
    wider = tuple(_wider(level, p_C) for level in levels)
    reached = (one for one in wider if one.score >= _needed(thresholds, one.rank))
    rolled = None if sure else next(reached, None)
    reason = _reason(answers[0], rolled, wider, thresholds)
    if unknown:
        reason += f"; but the photo is unlike those of the {len(taxa):,} names it knows"
    return Prediction(answers, sure, rolled, wider, reason, unknown)


def _needed(thresholds: Mapping[str, Threshold], rank: str) -> float:
    threshold = thresholds.get(rank)
    return threshold.score if threshold else np.inf


def _reason(
    best: Answer,
    rolled: HigherTaxon | None,
    wider: Sequence[HigherTaxon],
    thresholds: Mapping[str, Threshold],
) -> str:
    """Why the answer is what it is."""
    what = f"the {best.taxon.rank} {best.taxon.name}".replace("the unranked", "the name")
    if "species" not in thresholds:
        return f"{what} is the likeliest; no threshold was set"
    needed = thresholds["species"].score
    if best.score >= needed:
        return f"{what} is sure enough ({_against(best.score, needed)})"
    said = f"{what} is not sure enough ({_against(best.score, needed)})"
    if rolled is not None:
        said += f"; the {rolled.rank} {rolled.name} is ({_decimal(rolled.score)})"
        return said + _left_out(rolled)
    asked = [one for one in wider if one.rank in thresholds]
    if not asked:
        return said
    top = max(asked, key=lambda one: one.score)
    against = _against(top.score, _needed(thresholds, top.rank))
    return f"{said}, and no wider rank is: the {top.rank} {top.name} has {against}" + (
        _left_out(top)
    )


def _wider(level: Level, p_C: FloatArray) -> HigherTaxon:
    """The likeliest group of a level."""
    sums_G = level.sums(p_C[None])[0]
    best = int(sums_G.argmax())
    return HigherTaxon(level.rank, level.groups[best], float(sums_G[best]), level.without(p_C))


def _left_out(wider: HigherTaxon) -> str:
    if wider.without < 0.005:
        return ""
    return f"; names without a {wider.rank} have {_decimal(wider.without)}"


def _decimal(value: float) -> str:
    return f"{value:.2f}"


def _against(score: float, needed: float) -> str:
    """A score beside its threshold, with as many digits as tell them apart."""
    if needed > 1:
        return f"{_decimal(score)}; no score is high enough"
    digits = 2
    while digits < 6 and round(score, digits) == round(needed, digits):
        digits += 1
    sign = ">=" if score >= needed else "<"
    return f"{score:.{digits}f} {sign} {needed:.{digits}f}"
