"""Replace synonyms by accepted names, by a table.

A CSV or TSV file with the columns `name` and `accepted`, and optionally facts of the accepted taxon:
`common_name`, `supercategory`, and the ranks from `kingdom` to `species`. A name is a taxon's id or its
scientific name, in any case. Labels with the same accepted name become one class.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import polars as pl

from fieldmark.data.photos import PhotoTable
from fieldmark.data.readers import tabular
from fieldmark.data.taxonomy import RANKS, Taxon, Taxonomy, name_key
from fieldmark.utils.errors import InputError

logger = logging.getLogger(__name__)

_EXPECTS = "a CSV or TSV table with the columns name,accepted"
_ABOUT = ("common_name", "supercategory", *RANKS)


@dataclass(frozen=True)
class Accepted:
    """Accepted names: that of each synonym, and facts of some (ranks, common names); all by `name_key`."""

    names: Mapping[str, str] = field(default_factory=dict)
    about: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def apply(self, table: PhotoTable) -> PhotoTable:
        """Return the table with accepted names as labels, and log how many were changed.

        Photos of a synonym move to the taxon with the accepted name. If there is none, the first synonym
        becomes it, with the accepted name as its id and its own higher ranks where the names give none.
        """
        if not self.names:
            return table
        known = {name_key(each): taxon for taxon in table.taxonomy for each in (taxon.name, taxon.id)}
        becomes: dict[str, str] = {}
        taxa: dict[str, Taxon] = {}
        for taxon in table.taxonomy:
            new = taxon
            if name := self.names.get(name_key(taxon.id)) or self.names.get(name_key(taxon.name)):
                new = known.get(name_key(name)) or self._renamed(taxon, name)
                known[name_key(name)] = new
                becomes[taxon.id] = new.id
            taxa.setdefault(new.id, new)
        logger.info(f"Names: {len(becomes):,} of {len(table.taxonomy):,} labels replaced by accepted names.")
        frame = table.frame.with_columns(taxon_id=pl.col("taxon_id").replace(becomes))
        return replace(table, frame=frame, taxonomy=Taxonomy(taxa.values()))

    def _renamed(self, taxon: Taxon, name: str) -> Taxon:
        values = {
            **{"common_name": taxon.common_name, "supercategory": taxon.supercategory},
            **{rank: taxon.ranks[rank] for rank in RANKS[:-2] if rank in taxon.ranks},
            **self.about.get(name_key(name), {}),
            "name": name,
        }
        return tabular.taxon(name, {key: value for key, value in values.items() if value})


def read(path: Path | None) -> Accepted:
    """Read a table of accepted names; None: no synonyms.

    Raises:
        InputError: it is not such a table, a name has two accepted names, or an accepted name is itself
            a synonym.
    """
    if path is None:
        return Accepted()
    if not path.is_file():
        raise InputError(f"{path} not found: --names takes {_EXPECTS}.")
    rows = tabular.read_text_table(path)
    tabular.require_columns(rows, ("name", "accepted"), path, _EXPECTS)
    names: dict[str, str] = {}
    about: dict[str, dict[str, str]] = {}
    for line, row in enumerate(rows.iter_rows(named=True), 2):
        name, accepted = row["name"], row["accepted"]
        if name is None and accepted is None:
            continue
        if name is None or accepted is None:
            raise InputError(f"{path}, line {line}: a name without its counterpart: write both, or neither.")
        before = names.setdefault(name_key(name), accepted)
        if name_key(before) != name_key(accepted):
            raise InputError(
                f"{path}, line {line}: {name!r} has the accepted name {before!r} above and {accepted!r} "
                "here: keep one; photos of a name that was split must be relabelled one by one."
            )
        _add(about, accepted, row, f"{path}, line {line}")
    return Accepted(_followed(names, path), about)


def _add(about: dict[str, dict[str, str]], accepted: str, row: Mapping[str, str | None], where: str) -> None:
    """Add the facts of a row to those of the accepted name."""
    known_values = about.setdefault(name_key(accepted), {})
    for column in _ABOUT:
        value = row.get(column)
        if value and known_values.setdefault(column, value) != value:
            raise InputError(
                f"{where}: the {column} of {accepted!r} is {value!r} here and {known_values[column]!r} "
                "above: use one value."
            )


def _followed(names: Mapping[str, str], path: Path) -> dict[str, str]:
    """Drop names that stay as they are; refuse chains and circles."""
    changed = {name: accepted for name, accepted in names.items() if name != name_key(accepted)}
    for name, accepted in changed.items():
        if (following := changed.get(name_key(accepted))) is None:
            continue
        if name_key(following) == name:
            raise InputError(f"{path}: {name!r} and {accepted!r} are each a synonym of the other: keep one.")
        raise InputError(
            f"{path}: the accepted name of {name!r} is {accepted!r}, itself a synonym of {following!r}: "
            "give both the same accepted name."
        )
    return changed
