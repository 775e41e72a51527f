"""Taxa and their ranks, and what follows from them: names, groups, sums over a genus or a family."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

RANKS = ("kingdom", "phylum", "class", "order", "family", "genus", "species")
"""The ranks that are kept, from the widest to the narrowest (Darwin Core's terms)."""


@dataclass(frozen=True, slots=True)
class Taxon:
    """What one label stands for.

    Attributes:
        id: the label as the source writes it, unique within a data set.
        name: the scientific name, or the only name that is known.
        common_name: the everyday name, or an empty string.
        supercategory: the group of the source ("Birds"), or an empty string.
        ranks: the name at each rank of `RANKS` that is known; unranked and missing ranks are absent.
    """

    id: str
    name: str
    common_name: str = ""
    supercategory: str = ""
    ranks: Mapping[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The name for a person: the common name with the scientific one behind it."""
        return f"{self.common_name} ({self.name})" if self.common_name else self.name


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

    def only(self, taxon_ids: Iterable[str]) -> Taxonomy:
        """The taxonomy of some of the taxa, in the order given."""
        return Taxonomy(self._taxa[taxon_id] for taxon_id in taxon_ids)

    @cached_property
    def supercategories(self) -> list[str]:
        """The groups that occur, sorted."""
        return sorted({taxon.supercategory for taxon in self if taxon.supercategory})

    def to_json(self) -> list[dict[str, Any]]:
        """The taxa as JSON values; `from_json` reads them back."""
        return [asdict(taxon) for taxon in self]

    @classmethod
    def from_json(cls, value: Iterable[Mapping[str, Any]]) -> Taxonomy:
        """Read what `to_json` wrote."""
        return cls(Taxon(**entry) for entry in value)
