"""The descriptor of a Darwin Core Archive, `meta.xml`: its tables, their cells and their columns.

By the Darwin Core text guide, https://dwc.tdwg.org/text/. A column is named by the last part of its term:
`http://rs.tdwg.org/dwc/terms/genus` is `genus`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fieldmark.utils.errors import InputError

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

META = "meta.xml"
KEY = "coreid"
"""The column that joins an extension's rows to the core's."""

_ESCAPES = {"\\t": "\t", "\\n": "\n", "\\r": "\r", "\\r\\n": "\n", "\r\n": "\n"}
_UTF8 = ("utf-8", "utf8", "us-ascii", "ascii", "")


@dataclass(frozen=True)
class Table:
    """One table of an archive."""

    kind: str  # the last part of its row type: Occurrence, Multimedia, Taxon
    files: tuple[str, ...]  # names, to be concatenated
    separator: str  # between two cells
    quote: str | None  # around a cell
    end: str  # of a row
    header: int  # how many lines come before the rows
    columns: dict[str, int]  # the number of each named column, from 0; `KEY` among them
    constants: dict[str, str]  # the value of a term without a column in all rows


def read_descriptor(path: Path, raw: bytes | None = None) -> tuple[Table, list[Table]]:
    """Read the core table and the extensions that a `meta.xml` describes.

    Args:
        path: of the file, or of the archive that it is in.
        raw: its bytes; None: they are read.

    Raises:
        InputError: it cannot be read, or describes tables that cannot be.
    """
    from xml.etree import ElementTree

    try:
        root = ElementTree.fromstring(path.read_bytes() if raw is None else raw)
    except (OSError, ElementTree.ParseError, ValueError, LookupError) as error:
        raise InputError(f"{path} could not be read as XML ({error}): download it again.") from error
    core = root.find("{*}core")
    if core is None:
        raise InputError(f"{path} describes no core table: it does not belong to a Darwin Core Archive.")
    extensions = [_table(each, "{*}coreid", path) for each in root.findall("{*}extension")]
    return _table(core, "{*}id", path), extensions


def _table(element: Element, key: str, path: Path) -> Table:
    columns: dict[str, int] = {}
    constants: dict[str, str] = {}
    ids = element.find(key)
    try:
        if ids is not None:
            columns[KEY] = int(ids.get("index", ""))
        for field in element.findall("{*}field"):
            name = _last(field.get("term", ""))
            if field.get("index") is not None and name not in columns:
                columns[name] = int(field.get("index", ""))
            if field.get("default"):
                constants.setdefault(name, field.get("default", ""))
        header = int(element.get("ignoreHeaderLines") or 0)
    except ValueError as error:
        raise InputError(f"{path} has an invalid column number ({error}): download it again.") from error
    named = [each.text.strip() for each in element.findall("{*}files/{*}location") if each.text]
    if not named or any(name != Path(name).name for name in named):
        raise InputError(f"{path} names no file in its folder for a table: it cannot be read.")
    encoding = element.get("encoding") or ""
    if encoding.lower() not in _UTF8:
        raise InputError(f"{path}: {named[0]} is in {encoding}: only UTF-8 is read, so convert it.")
    quote = element.get("fieldsEnclosedBy", '"')
    return Table(
        kind=_last(element.get("rowType", "")),
        files=tuple(named),
        separator=_byte(element.get("fieldsTerminatedBy") or ",", path),
        quote=_byte(quote, path) if quote else None,
        end=_byte(element.get("linesTerminatedBy") or "\n", path),
        header=header,
        columns=columns,
        constants=constants,
    )


def _last(term: str) -> str:
    return term.rstrip("/#").replace("#", "/").rpartition("/")[2]


def _byte(text: str, path: Path) -> str:
    byte = _ESCAPES.get(text, text)
    if len(byte.encode()) != 1:
        raise InputError(f"{path} separates cells by {text!r}: only single characters are read.")
    return byte
