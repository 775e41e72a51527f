"""Accepted names: a table that says which names are called something else by now.

A CSV or TSV file with the columns `name` and `accepted`, and where wanted what is to be said of the
accepted taxon: `common_name`, `supercategory`, and the ranks from `kingdom` to `species`. A name is
a taxon's id or its scientific name, upper or lower case. Labels that come to bear one name become
one class."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from fieldmark.data.photos import PhotoTable
from fieldmark.data.readers import tabular
from fieldmark.data.taxonomy import RANKS, Taxon, Taxonomy
from fieldmark.utils.errors import InputError

logger = logging.getLogger(__name__)

_EXPECTS = "a CSV or TSV table with the columns name,accepted"
_ABOUT = ("common_name", "supercategory", *RANKS)


@dataclass(frozen=True)
class Accepted:
    """What is called otherwise.

    Attributes:
        names: the accepted name of each, by the name in lower case.
        about: what is said of an accepted name in lower case: some of its ranks and everyday names.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    about: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def apply(self, table: PhotoTable) -> PhotoTable:
        """The table with its labels under their accepted names; says how many were changed.

        A taxon that bears an accepted name already takes the photos of those that are called so from now
        on. Where there is none, the first of them becomes it: its id is then the accepted name, and the
        wider ranks that the table of names does not give are its own.
        """
        if not self.names:
            return table
        known = {_key(each): taxon for taxon in table.taxonomy for each in (taxon.name, taxon.id)}
        becomes: dict[str, str] = {}
        taxa: dict[str, Taxon] = {}
        for taxon in table.taxonomy:
            name = self.names.get(_key(taxon.id)) or self.names.get(_key(taxon.name))
            new = taxon
            if name is not None:
                new = known.get(_key(name)) or self._renamed(taxon, name)
                known[_key(name)] = new
                becomes[taxon.id] = new.id
            taxa.setdefault(new.id, new)
        logger.info(
            f"Names: {len(becomes):,} of {len(table.taxonomy):,} labels are called otherwise."
        )
        frame = table.frame.with_columns(taxon_id=pl.col("taxon_id").replace(becomes))
        return PhotoTable(frame, Taxonomy(taxa.values()), table.root, table.source)

    def _renamed(self, taxon: Taxon, name: str) -> Taxon:
        about = dict(self.about.get(_key(name), {}))
        wider = {rank: taxon.ranks[rank] for rank in RANKS[:-2] if rank in taxon.ranks}
        values = {
            "common_name": taxon.common_name,
            "supercategory": taxon.supercategory,
            **wider,
            **about,
            "name": name,
        }
        return tabular.taxon(name, {key: value for key, value in values.items() if value})


def read(path: Path | None) -> Accepted:
    """Read a table of names; None: nothing is called otherwise.

    Raises:
        InputError: it is no such table, or it cannot be followed: a name has two accepted ones, or an
            accepted name is itself called otherwise.
    """
    if path is None:
        return Accepted()
    if not path.is_file():
        raise InputError(f"{path} is not there: --names takes {_EXPECTS}.")
    separator = "\t" if path.suffix.lower() == ".tsv" else ","
    rows = tabular.read_text_table(path, separator)
    tabular.require_columns(rows, ("name", "accepted"), path, _EXPECTS)
    names: dict[str, str] = {}
    about: dict[str, dict[str, str]] = {}
    for line, row in enumerate(rows.iter_rows(named=True), 2):
        name, accepted = row["name"], row["accepted"]
        if name is None and accepted is None:
            continue
        if name is None or accepted is None:
            raise InputError(f"{path}, line {line}: a name stands alone: write both, or neither.")
        before = names.setdefault(_key(name), accepted)
        if _key(before) != _key(accepted):
            raise InputError(
                f"{path}, line {line}: {name!r} is called {before!r} above and {accepted!r} here: "
                "keep one; a name that was split in two has to be told apart photo by photo."
            )
        _add(about, accepted, row, f"{path}, line {line}")
    return Accepted(_followed(names, path), about)


def _add(
    about: dict[str, dict[str, str]], accepted: str, row: Mapping[str, str | None], where: str
) -> None:
    """Note what a row says of the accepted name."""
    known_values = about.setdefault(_key(accepted), {})
    for column in _ABOUT:
        value = row.get(column)
        if value and known_values.setdefault(column, value) != value:
            raise InputError(
                f"{where}: the {column} of {accepted!r} is {value!r} here and {known_values[column]!r} above: "
                "make them one."
            )


def _followed(names: Mapping[str, str], path: Path) -> dict[str, str]:
    """The names without those that stay as they are; chains and circles are refused."""
    changed = {name: accepted for name, accepted in names.items() if name != _key(accepted)}
    for name, accepted in changed.items():
        following = changed.get(_key(accepted))
        if following is None:
            continue
        if _key(following) == name:
            raise InputError(
                f"{path}: {name!r} and {accepted!r} are each called the other: keep one."
            )
        raise InputError(
            f"{path}: {name!r} is called {accepted!r}, which is itself called {following!r}: name the "
            "one that is accepted now in both rows."
        )
    return changed


def _key(name: str) -> str:
    return " ".join(name.split()).casefold()
