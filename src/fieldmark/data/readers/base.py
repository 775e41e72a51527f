"""The reader of one layout, and conventions that all readers share."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from fieldmark.data.photos import PhotoTable
from fieldmark.utils.errors import InputError, RejectReason, first_line

DAMAGE = (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException)
"""What Polars raises for a damaged table."""


@dataclass(frozen=True)
class Reader:
    """One layout of photos on disk."""

    name: str  # the value of `--source`
    expects: str  # the layout in a few words, for error messages
    matches: Callable[[Path], object]  # true for a path with this layout; at most one matches any path
    read: Callable[[Path], PhotoTable]  # lists the photos without reading their bytes, or `InputError`
    searches_folder: bool = False  # whether `read` searches the folder of the file that it is given


_PARTS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
PARTS = sorted(_PARTS)


def part_named(name: str) -> str | None:
    """Return the part (train, val, test) that a folder's name or a table's cell stands for."""
    return _PARTS.get(name.strip().lower())


def part_of_shard(name: str) -> str | None:
    """Return the part in the name of a shard: `train-00000-of-00002.parquet`."""
    return part_named(re.split(r"[-_.\d]", name, maxsplit=1)[0])


def folder_of(path: Path) -> Path:
    """Return a folder itself, or the folder of a file."""
    return path if path.is_dir() else path.parent


# The suffixes of photos. Unsupported formats are among them: they are rejected by their bytes, not by
# their name, as are files without a suffix.
_PICTURES = re.compile(
    r"|jpe?g|jpe|jfif|jif|mpo|a?png|webp|gif|bmp|dib|tiff?|ico|tga|p[pgbn]m|jp2|j2k|jpf|jpx|hei[cf]|avif"
    r"|jxl|dng|cr[23]|n[er][fw]|arw|orf|rw2|raf|pef|srw|hif|psd"
)


def may_be_image(name: str) -> bool:
    """Return whether a file may be a photo by its suffix."""
    return bool(_PICTURES.fullmatch(Path(name).suffix.removeprefix(".").lower()))


_BINOMIAL = re.compile(r"([A-Z][a-z]+(?:-[a-z]+)?)[ _]([a-z]{2,}(?:-[a-z]+)*)")


def binomial(name: str) -> tuple[str, str] | None:
    """Split a name such as `Parus major` or `Parus_major` into genus and species; else None."""
    match = _BINOMIAL.fullmatch(name)
    return (match[1], f"{match[1]} {match[2]}") if match else None


def first_reason(*cases: tuple[pl.Expr, RejectReason]) -> pl.Expr:
    """Return the reason of the first condition that holds; null where none does."""
    return pl.coalesce(pl.when(condition).then(pl.lit(reason.value)) for condition, reason in cases)


def check_zip(path: Path) -> None:
    """Raise `InputError` for a file that has the suffix of a zip but is not a valid one."""
    if path.suffix.lower() == ".zip" and path.is_file() and not zipfile.is_zipfile(path):
        raise InputError(f"{path} is not a complete zip: download it again.")


def no_photos(path: Path, expected: str) -> InputError:
    """Return the error for a layout without any photo."""
    return InputError(f"{path} holds no photos: {expected}.")


@contextmanager
def table_errors(problem: str, advice: str = "download it again") -> Iterator[None]:
    """Raise errors of Polars as `InputError`: "{problem} (first line of the error): {advice}."."""
    try:
        yield
    except DAMAGE as error:
        raise InputError(f"{problem} ({first_line(error)}): {advice}.") from error
