"""Checklist archives, such as GBIF's backbone or the Catalogue of Life: which names are of one taxon.

A zip, or the folder that it was unpacked to, of one of two forms:

    Darwin Core Archive   `meta.xml` and a table of taxa: taxonID, acceptedNameUsageID, scientificName ...
    ColDP                 NameUsage.tsv, or Name, Taxon and Synonym (https://github.com/CatalogueOfLife/coldp)

Tables are read once, as a stream: only the rows of the names that are asked for are kept.
"""

from __future__ import annotations

import csv
import io
import logging
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fieldmark.data.darwin_core import KEY, META, read_descriptor
from fieldmark.data.taxonomy import RANKS, Taxon, columns_by_name, name_key, name_keys
from fieldmark.utils.errors import InputError
from fieldmark.utils.logging import progress_bar
from fieldmark.utils.printable import some_of

logger = logging.getLogger(__name__)

_EXPECTS = "a Darwin Core Archive of taxa or a ColDP archive, as a zip or a folder"
_SUFFIXES = (".tsv", ".csv", ".txt", ".tab")
_LONGEST = 1 << 20  # characters of a line
_MOST_META = 1 << 20  # bytes of meta.xml
_STEP = 10_000  # rows between two steps of the bar
_BROKEN = (zipfile.BadZipFile, zlib.error, csv.Error, OSError, EOFError, RuntimeError, ValueError)


def accepted_names(path: Path, names: Iterable[str], taxa: Sequence[Taxon]) -> list[str]:
    """Return names, with the ids of labels in the place of those that are of labels; see `labels_of`."""
    names = list(names)
    found = labels_of(path, names, taxa)
    return [each for name in names for each in ([taxa[at].id for at in found.get(name, ())] or [name])]


def labels_of(path: Path, names: Iterable[str], taxa: Sequence[Taxon]) -> dict[str, list[int]]:
    """Find the labels of names that no label has, by a checklist, and say how many there are.

    Such a name is a synonym of a label, or its accepted name, or another synonym of that; or it is a higher
    taxon that has labels in it, where the table of taxa has columns of ranks.

    Args:
        path: the archive; it is not read where all names are of labels.
        names: of a list.
        taxa: the labels.

    Returns:
        The numbers of the labels, for each name with some.

    Raises:
        InputError: it is no such archive, or is damaged.
    """
    known = columns_by_name(taxa)
    unknown = [name for name in dict.fromkeys(names) if not any(key in known for key in name_keys(name))]
    if not unknown:
        return {}
    labels: dict[str, set[int]] = defaultdict(set)
    for at, taxon in enumerate(taxa):
        labels[name_key(taxon.name)].add(at)
    asked = {key for name in unknown for key in name_keys(name)}
    with _errors(path):
        checklist = _read(_Folder.of(path), path, asked | labels.keys(), asked)
    of_taxon: dict[str, set[int]] = defaultdict(set)
    for key, columns in labels.items():
        for taxon_id in checklist.taxa_of(key):
            of_taxon[taxon_id] |= columns
    found: dict[str, list[int]] = {}
    doubtful = []
    for name in unknown:
        keys = name_keys(name)
        ids = next((ids for key in keys if (ids := checklist.taxa_of(key))), set())
        each = {frozenset(of_taxon.get(taxon_id, ())) for taxon_id in ids}
        within = {
            at for key in keys for species in checklist.within.get(key, ()) for at in labels.get(species, ())
        }
        if len(each) > 1:
            doubtful.append(name)  # a name of two taxa: of a label and another one
        elif own := set().union(*each, within):
            found[name] = sorted(own)
    if doubtful:
        logger.warning(f"{path.name}: names of several taxa are passed over: {some_of(doubtful)}.")
    said = [f"{name} is {some_of([taxa[at].name for at in own], most=2)}" for name, own in found.items()]
    logger.info(
        f"{path.name}: {len(found):,} of {len(unknown):,} names that no label has are names of labels"
        f"{': ' + some_of(said, most=5) if said else ''}."
    )
    return found


@dataclass
class _Names:
    """What a checklist says of the names that are asked for, all by `name_key`.

    Attributes:
        accepted: the taxa that have a name as their accepted one.
        synonyms: the accepted taxa of a name that is a synonym.
        within: the names that have a name as that of a higher taxon.
    """

    accepted: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    synonyms: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    within: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def add(self, keys: Iterable[str], accepted: str, status: str, *, synonym: bool) -> None:
        """Add names of an accepted taxon, but not where they were misapplied to it."""
        if accepted and "misapplied" not in status.lower():
            for key in keys:
                (self.synonyms if synonym else self.accepted)[key].add(accepted)

    def add_ranks(self, keys: Iterable[str], row: Row, asked: set[str]) -> None:
        """Add names to the higher taxa that are asked for."""
        for rank in RANKS[:-1]:
            if (wider := name_key(row.get(rank, ""))) in asked:
                self.within[wider].update(key for key in keys if key != wider)

    def taxa_of(self, key: str) -> set[str]:
        """Return the taxa of a name: an accepted one is not looked for among synonyms (homonyms)."""
        return self.accepted.get(key) or self.synonyms.get(key) or set()


def _read(folder: _Folder, path: Path, wanted: set[str], asked: set[str]) -> _Names:
    if META in folder.files:
        return _of_darwin_core(folder, path, wanted, asked)
    tables = {_plain(name): name for name in folder.files if name.lower().endswith(_SUFFIXES)}
    if "nameusage" in tables:
        return _of_usages(folder, tables["nameusage"], wanted, asked)
    if {"name", "taxon"} <= tables.keys():
        return _of_names_and_taxa(folder, tables, wanted)
    raise InputError(f"{path} is no checklist: expected is {_EXPECTS}.")


def _of_darwin_core(folder: _Folder, path: Path, wanted: set[str], asked: set[str]) -> _Names:
    with folder.files[META].open("rb") as handle:
        core, _ = read_descriptor(path, handle.read(_MOST_META))
    if core.kind != "Taxon":
        raise InputError(f"{path} is an archive of {core.kind or 'unnamed rows'}: expected is {_EXPECTS}.")
    columns = {**({"taxonID": core.columns[KEY]} if KEY in core.columns else {}), **core.columns}
    cells = _Cells(columns, core.header, core.separator, core.quote)
    by_name = _by_name(wanted, ("canonicalName", "scientificName"), "scientificNameAuthorship")
    found = _Names()
    for name in core.files:
        for row, keys in folder.rows(name, ("taxonID", "scientificName"), by_name, cells):
            own, status = row["taxonID"], row.get("taxonomicStatus", "")
            accepted = row.get("acceptedNameUsageID") or own
            found.add(keys, accepted, status, synonym=accepted != own)
            found.add_ranks(keys, row, asked)
    return found


def _of_usages(folder: _Folder, name: str, wanted: set[str], asked: set[str]) -> _Names:
    found = _Names()
    by_name = _by_name(wanted, ("scientificname",), "authorship")
    for row, keys in folder.rows(name, ("id", "parentid", "status", "scientificname"), by_name):
        synonym = "synonym" in row["status"].lower()
        found.add(keys, row["parentid" if synonym else "id"], row["status"], synonym=synonym)
        found.add_ranks(keys, row, asked)
    return found


def _of_names_and_taxa(folder: _Folder, tables: Mapping[str, str], wanted: set[str]) -> _Names:
    by_name = _by_name(wanted, ("scientificname",), "authorship")
    rows = folder.rows(tables["name"], ("id", "scientificname"), by_name)
    keys_of = {row["id"]: keys for row, keys in rows}
    found = _Names()
    for table, column in (("taxon", "id"), ("synonym", "taxonid")):
        if table in tables:
            for row, keys in folder.rows(tables[table], (column, "nameid"), _by_value("nameid", keys_of)):
                found.add(keys, row[column], row.get("status", ""), synonym=table == "synonym")
    return found


Row = Mapping[str, str]
_Find = Callable[[Mapping[str, int]], Callable[[Sequence[str]], set[str] | None]]
"""Makes, for the numbers of columns, what returns the wanted names of a row: none, and it is passed over."""


def _by_name(wanted: set[str], columns: Sequence[str], author: str) -> _Find:
    first_words = {key.partition(" ")[0] for key in wanted}  # most of 9 million rows end here

    def of_columns(number: Mapping[str, int]) -> Callable[[Sequence[str]], set[str] | None]:
        at = next(number[each] for each in columns if each in number)
        by = number.get(author)

        def of_row(row: Sequence[str]) -> set[str] | None:
            text = row[at]
            if text.partition(" ")[0].casefold() not in first_words:
                return None
            if by is not None and by < len(row) and row[by]:
                text = text.removesuffix(row[by])
            return wanted.intersection(name_keys(text))

        return of_row

    return of_columns


def _by_value(column: str, known: Mapping[str, set[str]]) -> _Find:
    return lambda number: lambda row: known.get(row[number[column]])


@dataclass(frozen=True)
class _Cells:
    """How the rows of a table are written; `columns` are the numbers of the named ones."""

    columns: Mapping[str, int]
    header: int
    separator: str
    quote: str | None


@dataclass(frozen=True)
class _Folder:
    """The files of an archive, by their names: of a zip, or of a folder."""

    files: Mapping[str, Path | zipfile.Path]

    @classmethod
    def of(cls, path: Path) -> _Folder:
        """List the files; they may lie in one folder of the zip."""
        root = path if path.is_dir() else zipfile.Path(path)
        inside = [each for each in root.iterdir() if each.name != "__MACOSX"]
        if len(inside) == 1 and inside[0].is_dir():
            inside = list(inside[0].iterdir())
        return cls({each.name: each for each in inside if each.is_file()})

    def rows(
        self, name: str, needed: Sequence[str], find: _Find, cells: _Cells | None = None
    ) -> Iterator[tuple[Row, set[str]]]:
        """Yield the rows of a table that have a wanted name, and which, one after the other.

        Args:
            name: of the file.
            needed: columns that it must have.
            find: the wanted names of a row.
            cells: how rows are written; None: as in ColDP, where the header names the columns.

        Raises:
            ValueError: it is not there, lacks a column, or has a line without an end.
        """
        if name not in self.files:
            raise ValueError(f"the table {name} is missing")
        with (
            self.files[name].open("rb") as handle,
            progress_bar(f"Reading {name}", unit="rows") as bar,
            io.TextIOWrapper(handle, "utf-8-sig", errors="replace", newline="") as text,
        ):
            lines = _bounded(text)
            cells = cells or _of_header(name, next(lines, ""))
            for _ in range(cells.header):
                next(lines, "")
            if missing := next((each for each in needed if each not in cells.columns), None):
                raise ValueError(f"{name} has no column {missing}")
            names_of, least = find(cells.columns), max(cells.columns[each] for each in needed)
            quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if cells.quote else csv.QUOTE_NONE
            rows = csv.reader(lines, delimiter=cells.separator, quotechar=cells.quote, quoting=quoting)
            for number, row in enumerate(rows, 1):
                if len(row) > least and (keys := names_of(row)):
                    yield {each: row[at] for each, at in cells.columns.items() if at < len(row)}, keys
                if number % _STEP == 0:
                    bar.advance(_STEP)


def _of_header(name: str, line: str) -> _Cells:
    """Read the header of a table of ColDP: columns in any case, some with a prefix (`col:`).

    Tables with tabs have no quotes.
    """
    separator = "," if name.lower().endswith(".csv") else "\t"
    columns: dict[str, int] = {}
    for at, cell in enumerate(next(csv.reader([line], delimiter=separator), [])):
        columns.setdefault(cell.rpartition(":")[2].strip().lower(), at)
    return _Cells(columns, 0, separator, '"' if separator == "," else None)


def _bounded(text: io.TextIOWrapper) -> Iterator[str]:
    while line := text.readline(_LONGEST):
        if len(line) == _LONGEST:
            raise ValueError(f"a line is longer than {_LONGEST:,} characters")
        yield line


def _plain(name: str) -> str:
    """Return what a table of ColDP is called: nameusage of Name-Usage.tsv."""
    return name.rpartition(".")[0].replace("-", "").replace("_", "").lower()


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    """Say of an archive that cannot be read what it is."""
    try:
        yield
    except _BROKEN as error:
        raise InputError(
            f"{path} could not be read as a checklist ({' '.join(str(error).split())}): expected is "
            f"{_EXPECTS}."
        ) from error
