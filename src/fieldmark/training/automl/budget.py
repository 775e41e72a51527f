"""The time budget of a search, and estimates from the times measured so far."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

RESERVE = 0.15
"""The share of a budget that is reserved for choosing, measuring and writing."""

_LATE = 0.05  # of the budget: how much longer than estimated work in progress may take
_MARGIN = 1.2  # an estimate, as a multiple of the time that the same work took before
_SECONDS_PER_GIGA_MAC = 0.05  # of a photo on a slow processor, before anything is measured


@dataclass
class Budget:
    """The time budget of a search, starting now.

    Attributes:
        seconds: in all; None: unlimited.
        clock: the time in seconds.
    """

    seconds: float | None = None
    clock: Callable[[], float] = time.monotonic
    _start: float = field(init=False)

    def __post_init__(self) -> None:
        self._start = self.clock()

    @property
    def left(self) -> float:
        """The seconds left for candidates, without the reserve."""
        if self.seconds is None:
            return float("inf")
        return (1 - RESERVE) * self.seconds - (self.clock() - self._start)

    def is_over(self) -> bool:
        """Return whether work in progress must stop: it uses up the reserve."""
        return self.seconds is not None and self.left < -_LATE * self.seconds


@dataclass
class TimeEstimates:
    """Estimates of the time for features and last layers, from the times measured in this search.

    A network's time is scaled from its other crops by their area; that of a network not run yet is
    scaled from the network nearest in multiply-adds. The time of a kind of last layer not fitted yet is
    that of `softmax`, the slowest. Cached features count with the time they took then.
    """

    _features: dict[str, tuple[float, float]] = field(default_factory=dict)
    _heads: dict[str, float] = field(default_factory=dict)

    def features(self, network: str, macs: float, photos: int) -> float:
        """Estimate the seconds for the features of photos; `macs` are giga-MACs a photo."""
        known = self._features
        if network not in known and known:
            network = min(known, key=lambda name: abs(math.log(known[name][0] / macs)))
        return known.get(network, (macs, _SECONDS_PER_GIGA_MAC))[1] * macs * photos

    def heads(self, kind: str, dim: int) -> float:
        """Estimate the seconds for one candidate's last layers, on features of length `dim`."""
        return self._heads.get(kind, self._heads.get("softmax", 0.0)) * dim

    def add_features(self, network: str, macs: float, photos: int, seconds: float) -> None:
        """Record the time that the features of photos took."""
        if photos:
            self._features[network] = macs, _MARGIN * seconds / (macs * photos)

    def add_cached_features(self, network: str, macs: float, seconds: float | None) -> None:
        """Record a cached photo's time, unless the network was measured in this search."""
        if network not in self._features and seconds is not None:
            self.add_features(network, macs, 1, seconds)

    def add_heads(self, kind: str, seconds: float, dim: int) -> None:
        """Record the time that one candidate's last layers took."""
        self._heads[kind] = _MARGIN * seconds / dim
