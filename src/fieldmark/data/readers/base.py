"""The reader of one layout, and conventions that all readers share."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from fieldmark.data.photos import PhotoTable
from fieldmark.utils.errors import InputError


@dataclass(frozen=True)
class Reader:
    """One layout of photos on disk.

    Attributes:
        name: the value of `--source`.
        expects: the layout in a few words, for error messages.
        matches: whether a path has this layout; at most one reader matches any path.
        read: lists the photos without reading their bytes. Raises `InputError`.
        searches_folder: whether `read` also searches the folder of the file that it is given.
    """

    name: str
    expects: str
    matches: Callable[[Path], bool]
    read: Callable[[Path], PhotoTable]
    searches_folder: bool = False


_PARTS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}

PART_NAMES = sorted(_PARTS)


def part_named(name: str) -> str | None:
    """Return the part (train, val, test) that a folder's name or a table's cell stands for."""
    return _PARTS.get(name.strip().lower())


# The suffixes of photos. Unsupported formats are among them: they are rejected by their bytes, not by
# their name, as are files without a suffix.
_PICTURES = re.compile(
    r"|jpe?g|jpe|jfif|jif|mpo|a?png|webp|gif|bmp|dib|tiff?|ico|tga|p[pgbn]m|jp2|j2k|jpf|jpx|hei[cf]|avif"
    r"|jxl|dng|cr[23]|nef|arw|orf|rw2|raf|psd"
)


def may_be_image(name: str) -> bool:
    """Return whether a file may be a photo by its suffix."""
    return bool(_PICTURES.fullmatch(Path(name).suffix.removeprefix(".").lower()))


_BINOMIAL = re.compile(r"([A-Z][a-z]+(?:-[a-z]+)?)[ _]([a-z]{2,}(?:-[a-z]+)*)")


def binomial(name: str) -> tuple[str, str] | None:
    """Split a name such as `Parus major` or `Parus_major` into genus and species; else None."""
    match = _BINOMIAL.fullmatch(name)
    return (match[1], f"{match[1]} {match[2]}") if match else None


def text_series(name: str, values: Iterable[object], where: Path) -> pl.Series:
    """Convert values to a column of text; None stays null.

    Raises:
        InputError: a value cannot be written as Unicode (half of a surrogate pair).
    """
    texts = [None if value is None else str(value) for value in values]
    try:
        return pl.Series(name, texts, dtype=pl.String)
    except UnicodeEncodeError as error:
        raise InputError(
            f"{where}: a value of {name} is not valid Unicode ({error.object!r}): correct it."
        ) from error


def is_broken_zip(path: Path) -> bool:
    """Return whether a file has the suffix of a zip but is not a valid one."""
    return path.suffix.lower() == ".zip" and path.is_file() and not zipfile.is_zipfile(path)


def no_photos(path: Path, expected: str) -> InputError:
    """Return the error for a layout without any photo."""
    return InputError(f"{path} holds no photos: {expected}.")
