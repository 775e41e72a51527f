"""How long a search may take, and what things took here so far."""

from __future__ import annotations

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

    Last layers are expected to take as long as `softmax` did, until one of their kind was learned; it
    learns the most. What was learned before and kept counts with what it took then.
    """

    _features: float | None = None
    _heads: dict[str, float] = field(default_factory=dict)

    def features(self, work: float) -> float:
        """Seconds expected for features; `work` is in giga-MACs, all photos together."""
        return (_SECONDS_A_GIGA_MAC if self._features is None else self._features) * work

    def heads(self, kind: str, dim: int) -> float:
        """Seconds expected for the last layers of one candidate; `dim` is the length of its features."""
        return self._heads.get(kind, self._heads.get("softmax", 0.0)) * dim

    def features_took(self, seconds: float, work: float) -> None:
        """So much work was done."""
        if work:
            self._features = _ROOM * seconds / work

    def features_took_before(self, seconds: float | None, work: float) -> None:
        """What was kept took so long when it was computed: better than a guess, less than a measure."""
        if self._features is None and seconds is not None:
            self.features_took(seconds, work)

    def heads_took(self, kind: str, seconds: float, dim: int) -> None:
        """The last layers of one candidate were learned."""
        self._heads[kind] = _ROOM * seconds / dim
