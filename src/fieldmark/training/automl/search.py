"""All candidates in turn, as far as the time allows.

The first, with the head that `train` learns by default, is what the others are compared with. Then
each gets a head in closed form, which takes seconds; the default's heads are learned only for those
that count among them; other kinds of head for the best one; and last, what takes longest, the
networks that count most are trained themselves.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from fieldmark.data.subset import DataSplits
from fieldmark.evaluation import ensemble
from fieldmark.features.extraction import Extraction
from fieldmark.features.extractor import cost_of
from fieldmark.heads import LONG
from fieldmark.heads.class_imbalance import RARE_BELOW
from fieldmark.heads.selection import schedule
from fieldmark.training.automl.budget import Budget, Rates
from fieldmark.training.automl.candidate import Candidate, TrialResult, training_and_validation
from fieldmark.training.automl.finetune_search import FineTuningSearch
from fieldmark.training.automl.linear_probe_search import (
    NOTES,
    TAIL,
    cache_path,
    fit_candidate,
    logit_adjusted,
)

logger = logging.getLogger(__name__)

_FRONT = 4  # candidates that get the default's heads


@dataclass
class Search:
    """What is needed to try candidates, and what was learned of how long they take.

    Attributes:
        parts: the photos.
        seed: of folds and of the order of training.
        budget: how long all may take.
        found: the candidates that were learned in folds.
        tuned: those whose networks were trained themselves, measured on one fold.
        passed_over: a sentence for each that was not tried, and why.
        extraction: what was computed on the way.
    """

    parts: DataSplits
    seed: int
    budget: Budget
    results: list[TrialResult] = field(default_factory=list)
    tuned: list[TrialResult] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    extraction: Extraction = field(default_factory=Extraction)
    _rates: Rates = field(default_factory=Rates)

    def try_all(self, wanted: Sequence[Candidate], kind: str) -> None:
        """Learn the candidates, one after the other; the very first one always."""
        for candidate in wanted:
            expected = self._expected(candidate, kind)
            if self.results and expected > self.budget.left:
                named = f"{candidate.name}, {NOTES[kind] or 'softmax'}"
                self._skip_for_time(named, expected)
                continue
            start = self.budget.clock()
            missing, facts = self._missing(candidate), candidate.backbone.architecture
            done = candidate.extractor.compute(self.parts.files, {facts.name: candidate.backbone})
            self.extraction = self.extraction.merged(done)
            took = self.budget.clock() - start
            self._rates.features_took(facts.name, facts.giga_macs, missing, took)
            trial, seconds = fit_candidate(candidate, self.parts, self.seed, kind)
            self._rates.heads_took(kind, seconds, facts.feature_dim)
            self._add(replace(trial, seconds=self.budget.clock() - start))

    def try_best(
        self, wanted: Sequence[Candidate], *, stream: bool = False, bfloat16: bool = False
    ) -> None:
        """Everything that `best` tries, cheap and promising first.

        Args:
            wanted: the networks and how they see photos, what `train` does by default first.
            stream: whether photos to train networks with are decoded anew in each epoch.
            bfloat16: whether networks are trained in half precision.
        """
        self.try_all(wanted[:1], "softmax")
        self.try_all(wanted, "ridge")
        front = self._front()
        self.try_all([each for each in front if each is not wanted[0]], "softmax")
        self._try_heads()
        tuning = FineTuningSearch(self.parts, self.seed, self.budget, stream, bfloat16)
        # On its own side and the whole photo: what the recipes were made for.
        plain = [each for each in wanted if not each.backbone.native and not each.view.flip]
        plain = [each for each in plain if each.view.fit == "squash"]
        tuning.try_all(_in_order(plain, front))
        self.tuned = tuning.results
        self.extraction = self.extraction.merged(tuning.extraction)
        self.skipped += tuning.skipped

    def _try_heads(self) -> None:
        """Other kinds of head for the best candidate, and those for rare classes if there are any."""
        best = min((t for t in self.results if not t.note), key=lambda each: each.loss)
        self.try_all([best.candidate], "ncm")
        self.try_all([best.candidate], "long")
        labels_N = training_and_validation(self.parts).labels(self.parts.classes)
        count_C = np.bincount(labels_N[labels_N >= 0], minlength=len(self.parts.classes))
        if count_C.min() >= RARE_BELOW:
            self._skip(
                f"Heads for rare classes: not tried, no class has fewer than {RARE_BELOW} photos"
            )
            return
        for done in logit_adjusted(best, labels_N, count_C):
            self._add(done)
        for kind in TAIL:
            self.try_all([best.candidate], kind)

    def _add(self, done: TrialResult) -> None:
        self.results.append(done)
        logger.info(f"{done.name}: held out, log-loss {done.loss:.3f}, error {done.error:.1%}")

    def _skip_for_time(self, name: str, expected: float) -> None:
        left = max(0.0, self.budget.left)
        self._skip(
            f"{name}: not tried, it would take about {expected:,.0f} s and {left:,.0f} s are left"
        )

    def _skip(self, why: str) -> None:
        self.skipped.append(why)
        logger.info(why)

    def _expected(self, candidate: Candidate, kind: str) -> float:
        """Seconds that a candidate will take, by what was measured here; none for what is kept."""
        facts = candidate.backbone.architecture
        took = cost_of(candidate.extractor, candidate.backbone, 1)
        self._rates.features_took_before(facts.name, facts.giga_macs, took)
        features = self._rates.features(facts.name, facts.giga_macs, self._missing(candidate))
        if cache_path(candidate, self.parts, self.seed, kind).exists():
            return features
        heads = self._rates.heads(kind, facts.feature_dim)
        if kind == "long":
            heads *= LONG / schedule(len(self.parts.train)).epochs
        return features + heads

    def _missing(self, candidate: Candidate) -> int:
        """How many photos have no kept features."""
        cache = candidate.extractor.cache(candidate.backbone)
        return int((cache.rows([photo.sha256 for photo in self.parts.files]) < 0).sum())

    def _front(self) -> list[Candidate]:
        """The candidates that count most among those in closed form."""
        quick = [each for each in self.results if each.note == NOTES["ridge"]]
        if not quick:
            return []
        labels_N = training_and_validation(self.parts).labels(self.parts.classes)
        known = labels_N >= 0
        own_MN = np.stack(
            [ensemble.label_probabilities(t.log_p(known), labels_N[known]) for t in quick]
        )
        weights_M = ensemble.weights(own_MN)
        best_first = sorted(range(len(quick)), key=lambda m: (-weights_M[m], quick[m].loss))
        return [quick[m].candidate for m in best_first[:_FRONT] if weights_M[m] > 0]


def _in_order(plain: Sequence[Candidate], front: Sequence[Candidate]) -> list[Candidate]:
    """The networks of the front, the one that counts most first, each as it sees whole photos."""
    names = [each.backbone.architecture.name for each in front] or [
        plain[0].backbone.architecture.name
    ]
    by_name = {each.backbone.architecture.name: each for each in plain}
    return [by_name[name] for name in dict.fromkeys(names) if name in by_name]
