"""Where a photo lies: a file, a stretch of a tar, a cell of a Parquet file, an object behind a URL.

The one way from a place to its bytes. In a photo table a place is text, below the table's root:

    birds/17.jpg                   a file
    train-0003.tar#15360+20481     a member of a tar: its offset and size, so that one seek reads it
    part-0.parquet#image.bytes@17  a cell: its column (and field of it), and the row, from 0

The root alone decides what is fetched: below a folder nothing is, whatever the text says; below a URL
that the user has named, what lies under that URL. A local file is a plain `Path`, at no cost.
"""

from __future__ import annotations

import os
import re
import stat
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Generic, TypeVar

from fieldmark.data.image_containers import reject
from fieldmark.data.storage import fsspec
from fieldmark.data.storage.fsspec import Remote
from fieldmark.utils.errors import ImageRejected, RejectReason

File = Path | Remote
"""A whole file, on this machine or not; a folder of them as a table's root."""


@dataclass(frozen=True, slots=True)
class TarMember:
    """A stretch of a file: a member of a tar."""

    file: File
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.file}#{self.offset}+{self.size}"


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a Parquet file: `column`, or `column.field` of a struct, and the row, from 0."""

    file: File
    column: str
    row: int

    def __str__(self) -> str:
        return f"{self.file}#{self.column}@{self.row}"


@dataclass(frozen=True, slots=True)
class InMemoryImage:
    """Bytes that were read already: of one who reads ahead."""

    data: bytes = field(repr=False)


Place = File | TarMember | Cell | InMemoryImage

MAX_BYTES = 256 * 1024 * 1024
"""A photo with more bytes is refused unread."""

_INSIDE = re.compile(
    r"(?P<file>.+\.tar)#(?P<offset>\d{1,18})\+(?P<size>\d{1,18})"
    r"|(?P<table>.+\.parquet)#(?P<column>.+)@(?P<row>\d{1,18})",
    re.IGNORECASE | re.DOTALL,
)


def root_of(text: str | Path) -> File:
    """The root that a text names: a URL or a folder."""
    return fsspec.parse_url(text) or Path(text)


def absolute(root: File) -> File:
    """The same root whatever the working folder is."""
    return root.resolve() if isinstance(root, Path) else root


def absolute_place(place: Place) -> Place:
    """The same place whatever the working folder is."""
    if isinstance(place, (TarMember, Cell)):
        return replace(place, file=absolute(place.file))
    return place if isinstance(place, InMemoryImage) else absolute(place)


def at(root: File, path: str) -> Place:
    """The place that a table's `path` stands for, below the table's root."""
    if "#" not in path or (inside := _INSIDE.fullmatch(path)) is None:
        return root / path
    if inside["file"]:
        return TarMember(root / inside["file"], int(inside["offset"]), int(inside["size"]))
    return Cell(root / inside["table"], inside["column"], int(inside["row"]))


def member_text(path: str, offset: int, size: int) -> str:
    """How a table writes a member of a tar."""
    return f"{path}#{offset}+{size}"


def cell_text(path: str, column: str, row: int) -> str:
    """How a table writes a cell of a Parquet file."""
    return f"{path}#{column}@{row}"


def file_of(place: Place) -> File | None:
    """The file that a place is, or lies in; None for bytes that are held."""
    if isinstance(place, InMemoryImage):
        return None
    return place.file if isinstance(place, (TarMember, Cell)) else place


def is_local(place: Place) -> bool:
    """Whether the file lies on this machine."""
    file = file_of(place)
    return isinstance(file, Path) and file.is_file()


def stamp(place: Place) -> list[int] | None:
    """What tells a changed file from an unchanged one: its size and time; None where it is not here."""
    file = file_of(place)
    try:
        about = os.stat(file) if isinstance(file, Path) else None  # noqa: PTH116  # not for a URL
    except (OSError, ValueError):
        return None
    return [about.st_size, about.st_mtime_ns] if about else None


def read(place: Place, max_bytes: int = MAX_BYTES) -> bytes:
    """The bytes of a photo, wherever it lies.

    Raises:
        ImageRejected: MISSING, UNREADABLE, EMPTY, OUTSIDE or TOO_LARGE (more than `max_bytes`).
        InputError: a server or store does not answer, or refuses the credentials.
    """
    if isinstance(place, Path):
        data = _file(place, max_bytes)
    elif isinstance(place, InMemoryImage):
        data = place.data
    elif isinstance(place, Remote):
        data = fsspec.read(place, max_bytes)
    else:
        if isinstance(place, TarMember) and place.size > max_bytes:
            reject(RejectReason.TOO_LARGE, f"{place} has {place.size:,} bytes")
        data = _member(place) if isinstance(place, TarMember) else _cell(place, max_bytes)
    if not data:
        reject(RejectReason.EMPTY, f"{place} has no bytes")
    return data


def _file(path: Path, max_bytes: int) -> bytes:
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            reject(RejectReason.UNREADABLE, f"{path} is not a file")
        if about.st_size > max_bytes:
            reject(RejectReason.TOO_LARGE, f"{path} has {about.st_size:,} bytes")
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ImageRejected(RejectReason.MISSING, f"no file {path}") from error
    except (OSError, ValueError, MemoryError) as error:  # ValueError: a NUL in the name
        raise ImageRejected(RejectReason.UNREADABLE, f"{path}: {error}") from error


def _member(place: TarMember) -> bytes:
    if isinstance(place.file, Remote):
        data = fsspec.read_range(place.file, place.offset, place.size)
    else:
        try:
            with place.file.open("rb", buffering=0) as handle:
                data = os.pread(handle.fileno(), place.size, place.offset)
        except FileNotFoundError as error:
            raise ImageRejected(RejectReason.MISSING, f"no file {place.file}") from error
        except (OSError, ValueError, OverflowError, MemoryError) as error:
            raise ImageRejected(RejectReason.UNREADABLE, f"{place}: {error}") from error
    if len(data) < place.size:
        reject(RejectReason.TRUNCATED, f"{place.file} ends before {place} does")
    return data


# Cells: read in blocks of rows, since a Parquet file cannot be entered at a row

_BLOCK = 64  # rows: some ten megabytes of photos
T = TypeVar("T")


@dataclass
class Recent(Generic[T]):
    """The last few values that were asked for; a value that several threads want is made once."""

    keep: int
    _values: OrderedDict[Hashable, T] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value kept under a key, or else what `make` gives."""
        with self._lock:
            if key not in self._values:
                self._values[key] = make()
                while len(self._values) > self.keep:
                    self._values.popitem(last=False)
            self._values.move_to_end(key)
            return self._values[key]


_blocks: Recent[list[bytes | None]] = Recent(keep=4)


def _cell(place: Cell, max_bytes: int) -> bytes:
    file = place.file
    with fsspec.local_copy(file) if isinstance(file, Remote) else nullcontext(file) as here:
        block = _block_of(place, here)
    start = place.row - place.row % _BLOCK
    if place.row - start >= len(block):
        reject(RejectReason.MISSING, f"{place.file} has fewer rows than {place} asks for")
    data = block[place.row - start] or b""
    if len(data) > max_bytes:
        reject(RejectReason.TOO_LARGE, f"{place} has {len(data):,} bytes")
    return data


def _block_of(place: Cell, here: Path) -> list[bytes | None]:
    """The block of cells that holds a cell, from a file on this machine."""
    import polars as pl

    start = place.row - place.row % _BLOCK
    try:
        about = here.stat()
        key = (here, about.st_mtime_ns, place.column, start)
        return _blocks.get(key, lambda: cells(here, place.column, start, _BLOCK))
    except FileNotFoundError as error:
        raise ImageRejected(RejectReason.MISSING, f"no file {place.file}") from error
    except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ImageRejected(RejectReason.UNREADABLE, f"{place}: {first}") from error


def cells(file: Path, column: str, start: int, rows: int) -> list[bytes | None]:
    """Some cells of a Parquet file in order: a binary column, or a field of a struct (`column.field`).

    Raises:
        OSError, PolarsError: the file cannot be read as one with such a column.
    """
    import polars as pl

    frame = pl.scan_parquet(file, glob=False)
    wanted = pl.col(column)
    if column not in frame.collect_schema() and "." in column:
        name, _, inner = column.rpartition(".")
        wanted = pl.col(name).struct.field(inner)
    found = frame.slice(start, rows).select(wanted.cast(pl.Binary).alias("bytes")).collect()
    values: list[bytes | None] = found["bytes"].to_list()
    return values
