"""What `--quality best` tries within a time, and what it takes of that: everything on photos held out.

A room each: the time and what things take of it (`budget`); a network and how it sees photos, and what
came of one (`candidate`); last layers learned in folds (`learning`); networks trained themselves
(`tuning`); all of them in turn (`trying`); ways to answer beside each other, and the one that is taken
(`choosing`); what is said of that (`account`).

Thousands of photos choose, not the few hundred of a validation part, on which the best of many would be
the luckiest. The test part is measured once, at the end. Features, last layers and networks in training
are kept: what was cut off goes on from them.
"""

from __future__ import annotations

from fieldmark.training.automl.budget import RESERVE, Budget
from fieldmark.training.automl.candidate import (
    Candidate,
    TrialResult,
    candidates,
    load_all,
    training_and_validation,
)
from fieldmark.training.automl.search import Search

__all__ = [
    "RESERVE",
    "Budget",
    "Candidate",
    "Search",
    "TrialResult",
    "candidates",
    "load_all",
    "training_and_validation",
]
