"""Taxa, their ranks, and sums of probabilities over a genus or a family."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

RANKS = ("kingdom", "phylum", "class", "order", "family", "genus", "species")
"""The ranks, from the highest to the lowest (Darwin Core's terms)."""

NO_ANIMAL = {
    **{"blank": "blank", "empty": "blank"},
    **{"human": "human", "homo sapiens": "human", "vehicle": "vehicle"},
}
"""Labels of camera traps that name no animal, and what Camtrap DP calls them."""


def name_key(name: str) -> str:
    """Return a name for comparisons: in lower case, with single spaces."""
    return " ".join(name.split()).casefold()


_WITH_AUTHOR = re.compile(r"([A-Z][\w-]+ [a-z][\w-]+) [(A-Z]")
"""A binomial that an author follows; names of subspecies begin in lower case."""


def name_keys(name: str) -> tuple[str, ...]:
    """Return what a name is found by: its `name_key`, and that of a binomial without its author."""
    whole = name_key(name)
    found = _WITH_AUTHOR.match(" ".join(name.split()))
    return (whole, name_key(found[1])) if found else (whole,)


def columns_by_name(taxa: Sequence[Taxon]) -> dict[str, set[int]]:
    """Return the numbers of the taxa with a name, by its `name_key`: an id, a scientific or common name, or
    that of a higher taxon, which stands for all of its taxa."""
    known: dict[str, set[int]] = {}
    for column, taxon in enumerate(taxa):
        for name in filter(None, (taxon.id, taxon.name, taxon.common_name, *taxon.lineage.values())):
            known.setdefault(name_key(name), set()).add(column)
    return known


@dataclass(frozen=True, slots=True)
class Taxon:
    """The taxon of a label.

    Attributes:
        id: the label as the source writes it, unique within a data set.
        name: the scientific name, or the only known name.
        common_name: the common name, or an empty string.
        supercategory: the group of the source ("Birds"), or an empty string.
        ranks: the name at each known rank of `RANKS`.
    """

    id: str
    name: str
    common_name: str = ""
    supercategory: str = ""
    ranks: Mapping[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Return the name to show: the common name and the scientific name in brackets."""
        return f"{self.common_name} ({self.name})" if self.common_name else self.name

    @property
    def rank(self) -> str:
        """Return one of `RANKS`, species if none is known; "unranked" for one between (a superfamily)."""
        genus = self.ranks.get("genus")
        if not self.ranks or (genus and self.name.split()[:-1] == [genus]):
            return "species"  # the second: the name is a binomial of its genus
        own = (rank for rank in reversed(RANKS) if self.ranks.get(rank) == self.name)
        return next(own, "unranked")

    @property
    def lineage(self) -> dict[str, str]:
        """Return the name at each rank down to the taxon, the highest first."""
        known = {"species": self.name, **self.ranks} if self.rank == "species" else self.ranks
        return {rank: known[rank] for rank in RANKS if rank in known}


@dataclass(frozen=True, eq=False)
class Level:
    """Labels grouped by one rank: by genus, by family, by kingdom."""

    rank: str  # one of `RANKS` but "species"
    groups: tuple[Mapping[str, str], ...]  # the ranks of each of the G groups, the highest first
    column: npt.NDArray[np.intp]  # the group of each of the C labels; -1 for a label without this rank

    @cached_property
    def _sorted(self) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """Return the labels with this rank, group by group, and where each group begins."""
        order = np.argsort(self.column, kind="stable")
        order = order[self.column[order] >= 0]
        return order, np.searchsorted(self.column[order], np.arange(len(self.groups)))

    def name(self, group: int) -> str:
        """Return the name of a group: "Panthera"."""
        return self.groups[group][self.rank]

    def sums(self, p_NC: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.floating[Any]]:
        """Sum the probabilities of labels over each group: from (N, C) to (N, G)."""
        order, starts = self._sorted
        sums: npt.NDArray[np.floating[Any]] = np.add.reduceat(p_NC[:, order], starts, axis=1)
        return sums

    def without(self, p_C: npt.NDArray[np.floating[Any]]) -> float:
        """Return the probability of one photo for labels without this rank."""
        return float(p_C[self.column < 0].sum())


class Taxonomy:
    """The taxa of a data set, in a fixed order."""

    def __init__(self, taxa: Iterable[Taxon]) -> None:
        self._taxa = {taxon.id: taxon for taxon in taxa}

    def __iter__(self) -> Iterator[Taxon]:
        return iter(self._taxa.values())

    def __len__(self) -> int:
        return len(self._taxa)

    def __contains__(self, taxon_id: object) -> bool:
        return taxon_id in self._taxa

    def __getitem__(self, taxon_id: str) -> Taxon:
        return self._taxa[taxon_id]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Taxonomy) and self._taxa == other._taxa

    __hash__ = None  # type: ignore[assignment]  # equality is by value and the mapping is not hashable

    def of_kind(self, *kinds: str) -> set[str]:
        """Return the ids of the labels that name no animal but one of `kinds`, values of `NO_ANIMAL`."""
        return {taxon.id for taxon in self if NO_ANIMAL.get(taxon.name.lower()) in kinds}

    def only(self, taxon_ids: Iterable[str]) -> Taxonomy:
        """Return the taxonomy of some of the taxa, in the order given."""
        return Taxonomy(self._taxa[taxon_id] for taxon_id in taxon_ids)

    @cached_property
    def supercategories(self) -> list[str]:
        """Return the supercategories that occur, sorted."""
        return sorted({taxon.supercategory for taxon in self if taxon.supercategory})

    @cached_property
    def levels(self) -> tuple[Level, ...]:
        """Group the labels by genus, family and so on up to the kingdom; a rank with one name is left out.

        One name in two kingdoms (a genus of birds and one of plants) is two groups.
        """
        found = (self._level(rank) for rank in reversed(RANKS[:-1]))
        return tuple(level for level in found if len(level.groups) > 1)

    def _level(self, rank: str) -> Level:
        kingdoms: dict[str, set[str]] = {}
        for taxon in self:
            if kingdom := taxon.ranks.get("kingdom"):
                kingdoms.setdefault(taxon.ranks.get(rank, ""), set()).add(kingdom)
        upto = RANKS[: RANKS.index(rank) + 1]
        numbers: dict[tuple[str, str], int] = {}
        groups: list[Mapping[str, str]] = []
        column = np.full(len(self), -1, np.intp)
        for at, taxon in enumerate(self):
            if name := taxon.ranks.get(rank):
                shared = len(kingdoms.get(name, ())) > 1
                key = (name, taxon.ranks.get("kingdom", "") if shared else "")
                if numbers.setdefault(key, len(groups)) == len(groups):
                    groups.append({each: taxon.ranks[each] for each in upto if each in taxon.ranks})
                column[at] = numbers[key]
        return Level(rank, tuple(groups), column)

    def to_json(self) -> list[dict[str, Any]]:
        """Return the taxa as JSON values; `from_json` reads them."""
        return [asdict(taxon) for taxon in self]

    @classmethod
    def from_json(cls, value: Iterable[Mapping[str, Any]]) -> Taxonomy:
        """Read what `to_json` wrote."""
        return cls(Taxon(**entry) for entry in value)
