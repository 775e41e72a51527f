"""Model selection for `--quality best`: try candidates within a time budget, choose on held-out photos.

`budget`: the time, and estimates of how long things take; `candidate`: a network with a view of the
photos, and a trial's result; `linear_probe_search`: last layers, cross-validated; `finetune_search`:
fine-tuned networks; `search`: all of them in turn; `selection`: ensembles compared, and the choice;
`summary`: the table of the options.

The choice uses thousands of out-of-fold predictions, not the few hundred photos of a validation part, on
which the best of many would be the luckiest. The test part is measured once, at the end. Features, last
layers and networks in training are cached, so interrupted work resumes.
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
