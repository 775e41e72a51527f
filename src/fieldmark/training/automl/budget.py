"""How long a search may take, and what things took here so far."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

RESERVE = 0.15
"""The share of a budget that is kept for choosing, measuring and writing."""

_LATE = 0.05  # how much of a budget work that was begun may take beyond what was expected
_ROOM = 1.2  # what is expected, as a multiple of what the same work took before
_SECONDS_A_GIGA_MAC = 0.05  # of a photo on a slow processor, where nothing has been measured


@dataclass
class Budget:
    """How long a search may take.

    Attributes:
        seconds: in all; None: as long as it takes.
        clock: the time in seconds.
    """

    seconds: float | None = None
    clock: Callable[[], float] = time.monotonic
    _start: float = field(init=False)

    def __post_init__(self) -> None:
        self._start = self.clock()

    @property
    def left(self) -> float:
        """The seconds that are left for candidates, the reserve taken off."""
        if self.seconds is None:
            return float("inf")
        return (1 - RESERVE) * self.seconds - (self.clock() - self._start)

    def is_over(self) -> bool:
        """Whether work that is under way is to be given up: it takes into the reserve."""
        return self.seconds is not None and self.left < -_LATE * self.seconds


@dataclass
class Rates:
    """What features and last layers took in this search, by which the next ones are expected.

    A network is expected to take as long as it did on other crops, by their area; one that was not run
    yet as long as the one that is nearest to it in multiply-adds, by these. Last layers are expected to
    take as long as `softmax` did, until one of their kind was learned; it learns the most. What was
    computed before and kept counts with what it took then.
    """

    _features: dict[str, tuple[float, float]] = field(default_factory=dict)
    _heads: dict[str, float] = field(default_factory=dict)

    def features(self, network: str, macs: float, photos: int) -> float:
        """Seconds expected for the features of some photos; `macs` are giga-MACs a photo."""
        known = self._features
        if network not in known and known:
            network = min(known, key=lambda name: abs(math.log(known[name][0] / macs)))
        return known.get(network, (macs, _SECONDS_A_GIGA_MAC))[1] * macs * photos

    def heads(self, kind: str, dim: int) -> float:
        """Seconds expected for the last layers of one candidate; `dim` is the length of its features."""
        return self._heads.get(kind, self._heads.get("softmax", 0.0)) * dim

    def features_took(self, network: str, macs: float, photos: int, seconds: float) -> None:
        """The features of so many photos were computed."""
        if photos:
            self._features[network] = macs, _ROOM * seconds / (macs * photos)

    def features_took_before(self, network: str, macs: float, seconds: float | None) -> None:
        """A kept photo took so long then; what was measured in this search is the better guess."""
        if network not in self._features and seconds is not None:
            self.features_took(network, macs, 1, seconds)

    def heads_took(self, kind: str, seconds: float, dim: int) -> None:
        """The last layers of one candidate were learned."""
        self._heads[kind] = _ROOM * seconds / dim
