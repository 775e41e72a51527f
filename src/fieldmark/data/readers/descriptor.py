"""The descriptor `meta.xml` of a Darwin Core Archive, and the tables that it describes.

Darwin Core text guide, https://dwc.tdwg.org/text/. A table is read as a lazy frame with the last part of
each term as the name of the column (`http://rs.tdwg.org/dwc/terms/genus` is `genus`), so that only the
needed columns are in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from fieldmark.data.readers import tabular
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

    kind: str  # the last part of its row type: Occurrence, Multimedia
    files: tuple[str, ...]  # names, to be concatenated
    separator: str  # between two cells
    quote: str | None  # around a cell
    end: str  # of a row
    header: int  # how many lines come before the rows
    columns: dict[str, int]  # the number of each named column, from 0; `KEY` among them
    constants: dict[str, str]  # the value of a term without a column in all rows

    def scan(self, names: Sequence[str], folder: Path) -> pl.LazyFrame:
        """Scan some columns of the table's files in a folder as text; null where it does not have them."""
        frames = []
        for file in self.files:
            if self.end == "\n":
                tabular.check_complete(folder / file, self.separator, self.quote)
            rows = pl.scan_csv(
                folder / file,
                has_header=False,
                skip_rows=self.header,
                separator=self.separator,
                quote_char=self.quote,
                eol_char=self.end,
                infer_schema=False,
                raise_if_empty=False,
                glob=False,
            )
            there = rows.collect_schema().names()
            frames.append(rows.select(self._column(name, there) for name in names))
        return pl.concat(frames)

    def _column(self, name: str, there: list[str]) -> pl.Expr:
        number = self.columns.get(name, len(there))
        if number >= len(there):
            return pl.lit(self.constants.get(name), pl.String).alias(name)
        text = pl.col(there[number]).str.strip_chars().replace("", None)
        return text.fill_null(pl.lit(self.constants.get(name), pl.String)).alias(name)


def read(path: Path) -> tuple[Table, list[Table]]:
    """Read the core table and the extensions that a `meta.xml` describes, else raise `InputError`."""
    from xml.etree import ElementTree

    try:
        root = ElementTree.fromstring(path.read_bytes())
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
