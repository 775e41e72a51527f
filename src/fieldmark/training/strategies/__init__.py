"""Ways of training: one network, an ensemble or the best within a budget, and extending a classifier."""

from __future__ import annotations

from fieldmark.training.strategies.ensemble import EnsembleStrategy
from fieldmark.training.strategies.extend import ExtendStrategy, extended_split
from fieldmark.training.strategies.extend_config import ExtendConfig
from fieldmark.training.strategies.names import NamesStrategy
from fieldmark.training.strategies.single import SingleStrategy

__all__ = [
    "EnsembleStrategy",
    "ExtendConfig",
    "ExtendStrategy",
    "NamesStrategy",
    "SingleStrategy",
    "extended_split",
]
