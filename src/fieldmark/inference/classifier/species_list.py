"""Names of labels: those that alone are possible, and those that a list of species favours."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cached_property
from typing import Any

import numpy as np

from fieldmark.data.taxonomy import NO_ANIMAL, Taxon, columns_by_name, name_key, name_keys
from fieldmark.evaluation import metrics
from fieldmark.evaluation.location_prior import FLOOR
from fieldmark.utils import io
from fieldmark.utils.errors import InputError
from fieldmark.utils.printable import some_of
from fieldmark.utils.typing import BoolArray, FloatArray

logger = logging.getLogger(__name__)


def columns_of(taxa: Sequence[Taxon], names: Iterable[str], fewest: int = 2) -> list[int]:
    """Find labels by name, and return their columns in order; see `Classifier.only`.

    Raises:
        InputError: no name is known, or fewer than `fewest` labels are found.
    """
    known = columns_by_name(taxa)
    asked = {" ".join(name.split()): None for name in names}
    found = {name: next((known[key] for key in name_keys(name) if key in known), None) for name in asked}
    if unknown := [name for name, columns in found.items() if columns is None]:
        said = (
            f"This classifier does not know {some_of([*map(repr, unknown)], most=10)}: name its labels by "
            f"their ids, scientific or common names, or higher taxa.{_nearest(unknown[:10], taxa)}"
        )
        if len(unknown) == len(asked):
            raise InputError(said)
        logger.warning(said)
    columns = set().union(*(each for each in found.values() if each))
    if len(columns) < fewest:
        raise InputError(f"Of the names given, {len(columns)} is a label: a choice needs at least two.")
    return sorted(columns)


def _nearest(unknown: Sequence[str], taxa: Sequence[Taxon]) -> str:
    """Return a sentence with the known names that are most like unknown ones."""
    known = {name.casefold(): name for taxon in taxa for name in (taxon.name, taxon.common_name) if name}
    found = {name: get_close_matches(name.casefold(), known, 1, 0.75) for name in unknown}
    alike = [f"{known[near[0]]!r} for {name!r}" for name, near in found.items() if near]
    return f" Is it {', '.join(alike)}?" if alike else ""


@dataclass(frozen=True, eq=False)
class ListPrior:
    """A list of species, of a country or a park: a label that is not on it is thought 20 times rarer.

    No label becomes impossible, since lists have gaps and animals move. Labels of no animal (blank, human,
    vehicle) are always on it, and so is a genus of which a species is.

    Attributes:
        name: of the list.
        listed_C: which labels are on it.
    """

    name: str
    listed_C: BoolArray

    @classmethod
    def of(cls, taxa: Sequence[Taxon], names: Iterable[str], name: str) -> ListPrior:
        """Find the labels of a list; see `Classifier.favouring`."""
        asked = list(names)
        genera = {name_key(each).partition(" ")[0] for each in asked}
        listed_C = np.array(
            [
                name_key(taxon.name) in NO_ANIMAL
                or (taxon.rank == "genus" and name_key(taxon.name) in genera)
                for taxon in taxa
            ],
            np.bool_,
        )
        listed_C[columns_of(taxa, asked, fewest=1)] = True
        return cls(name, listed_C)

    @property
    def said(self) -> str:
        """How many labels are on the list, in a sentence."""
        return (
            f"{int(self.listed_C.sum()):,} of {len(self.listed_C):,} labels are on the list {self.name}; the "
            f"others count {1 / FLOOR:g} times less, and stay possible."
        )

    @property
    def digest(self) -> str:
        """A digest of all that an answer depends on."""
        return io.digest(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object, with the numbers of the labels on the list."""
        return {"name": self.name, "listed": np.flatnonzero(self.listed_C).tolist()}

    @classmethod
    def from_json(cls, about: Mapping[str, Any], classes: int) -> ListPrior:
        """Read what `to_json` returned; raises KeyError or ValueError where it cannot be."""
        name, listed = about["name"], about["listed"]
        if not isinstance(name, str) or not isinstance(listed, list):
            raise ValueError("favoured is no list of labels")
        if not all(type(each) is int and 0 <= each < classes for each in listed):
            raise ValueError(f"favoured has something else than numbers of {classes} labels")
        return cls(name, np.isin(np.arange(classes), listed))

    def only(self, columns: Sequence[int]) -> ListPrior:
        """Return the list for some of the labels."""
        return replace(self, listed_C=self.listed_C[list(columns)])

    @cached_property
    def ratio_C(self) -> FloatArray:
        """What is added to the logits."""
        return np.where(self.listed_C, 0, np.log(FLOOR)).astype(np.float32)

    def logits(self, logits_NC: FloatArray) -> FloatArray:
        """Compute logits with the list from those without it, shape (N, C)."""
        return logits_NC + self.ratio_C

    def without(self, logits_NC: FloatArray) -> FloatArray:
        """Compute log-probabilities without the list from logits with it, shape (N, C)."""
        return metrics.log_softmax32(logits_NC - self.ratio_C)
