"""Try all candidates in turn, within the time budget.

The first, with the default head of `train`, is the reference. Then each gets a head in closed form,
which takes seconds; only those with the largest weights among them get the default head; the best one
gets other kinds of head; and last, since it takes longest, the networks with the largest weights are
fine-tuned.
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
from fieldmark.training.automl.budget import Budget, TimeEstimates
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

_FRONT = 4  # candidates that get the default head


@dataclass
class Search:
    """A search over candidates.

    Attributes:
        parts: the photos.
        seed: of folds and of the order of training.
        budget: the time for all candidates.
        results: the cross-validated candidates.
        tuned: the fine-tuned candidates, measured on one fold.
        skipped: for each candidate that was not tried, a sentence with the reason.
        extraction: the features computed on the way.
    """

    parts: DataSplits
    seed: int
    budget: Budget
    results: list[TrialResult] = field(default_factory=list)
    tuned: list[TrialResult] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    extraction: Extraction = field(default_factory=Extraction)
    _estimates: TimeEstimates = field(default_factory=TimeEstimates)

    def try_all(self, wanted: Sequence[Candidate], kind: str) -> None:
        """Cross-validate candidates, one after the other; the first one whatever its time."""
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
            self._estimates.add_features(facts.name, facts.giga_macs, missing, took)
            trial, seconds = fit_candidate(candidate, self.parts, self.seed, kind)
            self._estimates.add_heads(kind, seconds, facts.feature_dim)
            self._add(replace(trial, seconds=self.budget.clock() - start))

    def try_best(self, wanted: Sequence[Candidate], *, stream: bool = False, bfloat16: bool = False) -> None:
        """Try everything that `best` tries, cheap and promising candidates first.

        Args:
            wanted: the candidates, the default of `train` first.
            stream: whether fine-tuning decodes photos again in each epoch.
            bfloat16: whether to fine-tune in bfloat16.
        """
        self.try_all(wanted[:1], "softmax")
        self.try_all(wanted, "ridge")
        front = self._front()
        self.try_all([each for each in front if each is not wanted[0]], "softmax")
        self._try_heads()
        tuning = FineTuningSearch(self.parts, self.seed, self.budget, stream, bfloat16)
        tuning.try_all(_in_order([each for each in wanted if each.plain], front))
        self.tuned = tuning.results
        self.extraction = self.extraction.merged(tuning.extraction)
        self.skipped += tuning.skipped

    def _try_heads(self) -> None:
        """Try other kinds of head for the best candidate; those for rare classes if there are any."""
        best = min((t for t in self.results if not t.note), key=lambda each: each.loss)
        self.try_all([best.candidate], "logistic")
        self.try_all([best.candidate], "ncm")
        self.try_all([best.candidate], "long")
        labels_N = training_and_validation(self.parts).labels(self.parts.classes)
        count_C = np.bincount(labels_N[labels_N >= 0], minlength=len(self.parts.classes))
        if count_C.min() >= RARE_BELOW:
            self._skip(f"Heads for rare classes: not tried, no class has fewer than {RARE_BELOW} photos")
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
        self._skip(f"{name}: not tried, it would take about {expected:,.0f} s and {left:,.0f} s are left")

    def _skip(self, why: str) -> None:
        self.skipped.append(why)
        logger.info(why)

    def _expected(self, candidate: Candidate, kind: str) -> float:
        """Estimate a candidate's seconds from the times measured so far; cached results take none."""
        facts = candidate.backbone.architecture
        took = cost_of(candidate.extractor, candidate.backbone, 1)
        self._estimates.add_cached_features(facts.name, facts.giga_macs, took)
        features = self._estimates.features(facts.name, facts.giga_macs, self._missing(candidate))
        if cache_path(candidate, self.parts, self.seed, kind).exists():
            return features
        heads = self._estimates.heads(kind, facts.feature_dim)
        if kind == "long":
            heads *= LONG / schedule(len(self.parts.train)).epochs
        return features + heads

    def _missing(self, candidate: Candidate) -> int:
        """Count the photos without cached features."""
        cache = candidate.extractor.cache(candidate.backbone)
        return int((cache.rows([photo.sha256 for photo in self.parts.files]) < 0).sum())

    def _front(self) -> list[Candidate]:
        """Return the candidates with the largest weights among those in closed form."""
        quick = [each for each in self.results if each.note == NOTES["ridge"]]
        if not quick:
            return []
        labels_N = training_and_validation(self.parts).labels(self.parts.classes)
        known = labels_N >= 0
        own_MN = np.stack([ensemble.label_probabilities(t.log_p(known), labels_N[known]) for t in quick])
        weights_M = ensemble.weights(own_MN)
        best_first = sorted(range(len(quick)), key=lambda m: (-weights_M[m], quick[m].loss))
        return [quick[m].candidate for m in best_first[:_FRONT] if weights_M[m] > 0]


def _in_order(plain: Sequence[Candidate], front: Sequence[Candidate]) -> list[Candidate]:
    """Return the networks of the front, largest weight first, each with the whole photo."""
    names = [each.backbone.architecture.name for each in front] or [plain[0].backbone.architecture.name]
    by_name = {each.backbone.architecture.name: each for each in plain}
    return [by_name[name] for name in dict.fromkeys(names) if name in by_name]
