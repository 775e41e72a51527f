"""Predictions: labels with scores, higher taxa, and the answer with its reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from fieldmark.data.taxonomy import Level, Taxon, Taxonomy
from fieldmark.evaluation.calibration import Threshold
from fieldmark.evaluation.taxonomic import MOST_CLASSES
from fieldmark.utils.choices import Decision
from fieldmark.utils.errors import InputError
from fieldmark.utils.typing import FloatArray

Source = Literal["species", "rolled up", "not sure", "unknown"]


@dataclass(frozen=True)
class Answer:
    """One label with its score, the calibrated probability, 0 to 1."""

    taxon: Taxon
    score: float


@dataclass(frozen=True)
class HigherTaxon:
    """The most probable taxon at a rank above the labels."""

    rank: str  # "genus", "family", … "kingdom"
    ranks: Mapping[str, str]  # the names of the taxon, the widest rank first and its own last
    score: float  # the sum of the probabilities of its labels, 0 to 1
    without: float = 0.0  # the probability of the labels for which this rank is not known

    @property
    def name(self) -> str:
        """The taxon's name."""
        return self.ranks[self.rank]


@dataclass(frozen=True)
class Prediction:
    """The prediction for one photo.

    The answer is the first label if its score reaches the threshold, else the lowest higher taxon whose
    score does (the species is in doubt, the genus is not), else "not sure".

    Attributes:
        answers: the labels with the highest scores, sorted by confidence (Section 4.2 of the paper).
        sure: whether the first score reaches the threshold.
        rolled: the higher taxon that is the answer; None where none is.
        wider: the most probable genus, family … kingdom, each with its score.
        reason: why this is the answer, in a sentence.
        unknown: the out-of-distribution flag: whether the photo may show none of the classes; None
            where the classifier has no threshold for it.
        prior: whether a prior of the place and time counts in it.
        note: "truncated" where only a part of the photo is there, and was classified; else "".
    """

    answers: tuple[Answer, ...]
    sure: bool
    rolled: HigherTaxon | None = None
    wider: tuple[HigherTaxon, ...] = ()
    reason: str = ""
    unknown: bool | None = None
    prior: bool = False
    note: str = ""

    @property
    def best(self) -> Answer:
        """The label with the highest score."""
        return self.answers[0]

    @property
    def source(self) -> Source:
        """How the answer came about: "species" is the first label itself, whatever its rank; "unknown" is
        the out-of-distribution flag, with which no answer is given."""
        if self.unknown:
            return "unknown"
        return "species" if self.sure else "rolled up" if self.rolled else "not sure"

    @property
    def _given(self) -> Taxon | HigherTaxon | None:
        return self.best.taxon if self.sure else self.rolled

    @property
    def rank(self) -> str:
        """The rank of the answer given, see `Taxon.rank`; "none" where there is none."""
        return self._given.rank if self._given else "none"

    @property
    def name(self) -> str:
        """The name of the answer given; empty where there is none."""
        return self._given.name if self._given else ""

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


def check_decision(decision: str, taxonomy: Taxonomy) -> None:
    """Refuse a rule for the first label that the labels do not allow; see `Classifier.decided_by`."""
    if decision not in get_args(Decision):
        raise InputError(
            f"The first label is decided by {' or '.join(get_args(Decision))}, not {decision!r}."
        )
    if decision == "height" and not taxonomy.levels:
        raise InputError(
            "Deciding by height needs the ranks of the labels (genus, family ...), and this classifier has "
            "none: decide by probability."
        )
    if decision == "height" and len(taxonomy) > MOST_CLASSES:
        raise InputError(
            f"Deciding by height takes at most {MOST_CLASSES:,} labels, and this classifier has "
            f"{len(taxonomy):,}: decide by probability, or allow fewer labels (`only`)."
        )


def ranked(
    p_C: FloatArray,
    first: int,
    taxa: Sequence[Taxon],
    levels: Sequence[Level],
    thresholds: Mapping[str, Threshold],
    top: int,
    unknown: bool | None,
) -> Prediction:
    """Make a prediction from one photo's probabilities and its `first` label; see `Classifier.rank`."""
    likeliest = np.argsort(-p_C, kind="stable")[:top].tolist()
    best = list(dict.fromkeys([first, *likeliest]))[:top]
    answers = tuple(Answer(taxa[number], float(p_C[number])) for number in best)
    sure = not unknown and ("species" not in thresholds or answers[0].score >= thresholds["species"].score)
    wider = tuple(_wider(level, p_C) for level in levels)
    reached = (one for one in wider if one.rank in thresholds and one.score >= thresholds[one.rank].score)
    rolled = None if sure or unknown else next(reached, None)
    reason = _reason(answers[0], rolled, wider, thresholds)
    if unknown:
        reason = f"the photo is unlike those of the {len(taxa):,} names that this classifier knows"
    return Prediction(answers, sure, rolled, wider, reason, unknown)


def _reason(
    best: Answer,
    rolled: HigherTaxon | None,
    wider: Sequence[HigherTaxon],
    thresholds: Mapping[str, Threshold],
) -> str:
    """Explain the answer in a sentence."""
    what = f"the {best.taxon.rank} {best.taxon.name}".replace("the unranked", "the name")
    if "species" not in thresholds:
        return f"{what} comes first; no threshold was set"
    needed = thresholds["species"].score
    if best.score >= needed:
        return f"{what} is sure enough ({_against(best.score, needed)})"
    said = f"{what} is not sure enough ({_against(best.score, needed)})"
    if rolled is not None:
        return f"{said}; the {rolled.rank} {rolled.name} is ({rolled.score:.2f}){_left_out(rolled)}"
    asked = [one for one in wider if one.rank in thresholds]
    if not asked:
        return said
    top = max(asked, key=lambda one: one.score)
    against = _against(top.score, thresholds[top.rank].score)
    return f"{said}, and no wider rank is: the {top.rank} {top.name} has {against}{_left_out(top)}"


def _wider(level: Level, p_C: FloatArray) -> HigherTaxon:
    """The most probable group of a level."""
    sums_G = level.sums(p_C[None])[0]
    best = int(sums_G.argmax())
    return HigherTaxon(level.rank, level.groups[best], float(sums_G[best]), level.without(p_C))


def _left_out(wider: HigherTaxon) -> str:
    return f"; names without a {wider.rank} have {wider.without:.2f}" if wider.without >= 0.005 else ""


def _against(score: float, needed: float) -> str:
    """A score beside its threshold, with as many digits as tell them apart."""
    if needed > 1:
        return f"{score:.2f}; no score is high enough"
    digits = next((n for n in range(2, 6) if round(score, n) != round(needed, n)), 6)
    sign = ">=" if score >= needed else "<"
    return f"{score:.{digits}f} {sign} {needed:.{digits}f}"
