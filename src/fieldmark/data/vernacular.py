"""Common names of species by language, where a source of photos has them.

Camtrap DP    `vernacularNames` of the taxa in `datapackage.json`, by ISO 639-3 codes
a table       columns `common_name_de`, `common_name_fr` ..., beside `label` or `name`
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fieldmark.data.readers import tabular
from fieldmark.utils import io
from fieldmark.utils.errors import FieldmarkError

_CODES = {"eng": "en", "deu": "de", "ger": "de", "spa": "es", "fra": "fr", "fre": "fr", "por": "pt"}
"""ISO 639-3 codes, and those of ISO 639-2 that differ, by their ISO 639-1 code; others stay."""
_COLUMN = re.compile(r"common_name_([a-z]{2,3})")
_TABLES = (".csv", ".tsv", ".xlsx")

Names = dict[str, dict[str, str]]
"""For each scientific name its common names by the code of their language."""


def common_names(path: Path) -> Names:
    """Return the common names that a source of photos tells with their languages; {} where it tells none.

    Args:
        path: what photos are read from: a folder, a package, a table.
    """
    package = path / "datapackage.json" if path.is_dir() else path
    try:
        if package.name == "datapackage.json" and package.is_file():
            return dict(_of_package(io.read_json(package)))
        if path.suffix.lower() in _TABLES and path.is_file():
            return _of_table(path)
    except FieldmarkError:  # that of the photos says it
        return {}
    return {}


def _of_package(about: Any) -> Iterator[tuple[str, dict[str, str]]]:
    taxa = about.get("taxonomic") if isinstance(about, dict) else None
    for each in taxa if isinstance(taxa, list) else ():
        names = each.get("vernacularNames") if isinstance(each, dict) else None
        if isinstance(names, dict) and isinstance(each.get("scientificName"), str):
            said = {str(code): name for code, name in names.items() if isinstance(name, str)}
            yield str(each["scientificName"]), {_CODES.get(code, code): name for code, name in said.items()}


def _of_table(path: Path) -> Names:
    frame = tabular.read_text_table(path)
    codes = {name: match[1] for name in frame.columns if (match := _COLUMN.fullmatch(name.lower()))}
    keys = [name for name in ("name", "label") if name in frame.columns]
    if not codes or not keys:
        return {}
    found: Names = {}
    for row in frame.select(*keys, *codes).unique().iter_rows(named=True):
        species = next((row[key] for key in keys if row[key]), None)
        if species:
            said = {code: row[name] for name, code in codes.items() if row[name]}
            found.setdefault(species, {}).update(said)
    return found
