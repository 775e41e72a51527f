"""A list of species, such as that of a country or a park: a text with a name a line, or a table of names."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from fieldmark.utils.errors import InputError

NAMES = ("species", "scientific_name", "scientificname", "taxon name", "taxon_name", "taxon.name")
"""The columns of names in tables of GBIF, iNaturalist and others, in lower case."""

_COLUMNS = (*NAMES, "canonicalname", "canonical_name", "taxon", "name")
_SEPARATORS = ("\t", ";", ",")


def read_species_list(path: Path) -> list[str]:
    """Return the names in a list; empty lines and comments (#) do not count.

    Args:
        path: a UTF-8 text with one name a line; or a CSV or TSV table whose header has a column `species`,
            `scientificName` or `name`. Of several, the first of these counts, so that a row of GBIF without
            a species, which is of a higher taxon, is passed over.

    Raises:
        InputError: it cannot be read, or has no name.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
        names = list(dict.fromkeys(" ".join(name.split()) for name in _names(lines)))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} could not be read as a UTF-8 text: {error}.") from error
    names = [name for name in names if name]
    if not names:
        raise InputError(f"{path} names no species: write one a line.")
    return names


def _names(lines: Sequence[str]) -> Iterator[str]:
    for separator in _SEPARATORS:
        header = [cell.strip().strip('"').lower() for cell in lines[0].split(separator)] if lines else []
        if column := next((name for name in _COLUMNS if name in header), None):
            at = header.index(column)
            quoting: Literal[0, 3] = (
                csv.QUOTE_NONE if separator == "\t" else csv.QUOTE_MINIMAL
            )  # GBIF's have no quotes
            rows = csv.reader(lines[1:], delimiter=separator, quoting=quoting)
            yield from (row[at] for row in rows if len(row) > at)
            return
    yield from lines
