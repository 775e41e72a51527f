"""Where a photo is stored: a file, a member of a tar, a cell of a Parquet file, an object behind a URL;
or the box of a photo.

In a photo table a place is text, relative to the table's root:

    birds/17.jpg                   a file
    train-0003.tar#15360+20481     a member of a tar: its offset and size, so that one seek reads it
    part-0.parquet#image.bytes@17  a cell: its column (and field of it), and the row, from 0
    birds/17.jpg#box=0.1,0.2,0.3,0.4  a box of a photo, in shares of its width and height

Only the root decides what is fetched: nothing below a folder, whatever the text contains; below a URL
that the user has named, what lies under that URL. A local file is a plain `Path`.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, field, replace
from pathlib import Path

from fieldmark.data.image_containers import reject
from fieldmark.data.storage import fsspec
from fieldmark.data.storage.fsspec import Remote
from fieldmark.utils.errors import ImageRejected, RejectReason, first_line
from fieldmark.utils.threads import RecentValues

File = Path | Remote  # a file, local or remote; as a table's root a folder of them


@dataclass(frozen=True, slots=True)
class TarMember:
    """A member of a tar: a range of the tar's bytes."""

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
    """Bytes that were read already."""

    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Box:
    """A box in a photo, as shares of its width and height, of the photo as it is shown (EXIF orientation).

    Attributes:
        left, top: the upper left corner, from 0 to 1.
        width, height: more than 0.
        size: width and height in pixels of the photo that the box was drawn in, where that is known: if they
            are those of the stored photo, and it is shown on its side, the box is turned as well.
    """

    left: float
    top: float
    width: float
    height: float
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        """Round to what the text holds, so that a box that was written and read is the same."""
        for side in ("left", "top", "width", "height"):
            object.__setattr__(self, side, float(f"{getattr(self, side):.6g}"))

    def __str__(self) -> str:
        numbers = (self.left, self.top, self.width, self.height)
        size = f"@{self.size[0]}x{self.size[1]}" if self.size else ""
        return ",".join(f"{each:.6g}" for each in numbers) + size


@dataclass(frozen=True, slots=True)
class Boxed:
    """A box of a photo, which is read as a photo of its own: see `fieldmark.data.images.boxes`."""

    photo: File | TarMember | Cell | InMemoryImage
    box: Box

    def __str__(self) -> str:
        return boxed_text(str(self.photo), self.box)


Place = File | TarMember | Cell | InMemoryImage | Boxed

MAX_BYTES = 256 * 1024 * 1024  # the largest photo that is read
_INSIDE = re.compile(
    r"(?P<file>.+\.tar)#(?P<offset>\d{1,18})\+(?P<size>\d{1,18})"
    r"|(?P<table>.+\.parquet)#(?P<column>.+)@(?P<row>\d{1,18})",
    re.IGNORECASE | re.DOTALL,
)
BOX_MARK = "#box="
"""What follows the photo in the text of a box."""
_NUMBER = r"(-?[\d.]{1,12}(?:e-?\d{1,3})?)"
_BOXED = re.compile(
    rf"(?P<photo>.+){BOX_MARK}{_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}(?:@(\d{{1,6}})x(\d{{1,6}}))?", re.DOTALL
)


def root_of(text: str | Path) -> File:
    """Parse the root of a table: a URL or a folder."""
    return fsspec.parse_url(text) or Path(text)


def absolute(root: File) -> File:
    """Return the root independent of the working folder."""
    return root.resolve() if isinstance(root, Path) else root


def absolute_place(place: Place) -> Place:
    """Return the place independent of the working folder."""
    if isinstance(place, Boxed):
        photo = absolute_place(place.photo)
        return place if isinstance(photo, Boxed) else Boxed(photo, place.box)
    if isinstance(place, (TarMember, Cell)):
        return replace(place, file=absolute(place.file))
    return place if isinstance(place, InMemoryImage) else absolute(place)


def at(root: File, path: str) -> Place:
    """Parse the `path` of a table, relative to the table's root."""
    if "#" in path and (boxed := _BOXED.fullmatch(path)):
        photo, *sides, width, height = boxed.groups()
        inner, (left, top, wide, high) = at(root, photo), map(float, sides)
        if not isinstance(inner, Boxed):
            return Boxed(inner, Box(left, top, wide, high, (int(width), int(height)) if width else None))
    if "#" not in path or (inside := _INSIDE.fullmatch(path)) is None:
        return root / path
    if inside["file"]:
        return TarMember(root / inside["file"], int(inside["offset"]), int(inside["size"]))
    return Cell(root / inside["table"], inside["column"], int(inside["row"]))


def member_text(path: str, offset: int, size: int) -> str:
    """Format a member of a tar for a table."""
    return f"{path}#{offset}+{size}"


def cell_text(path: str, column: str, row: int) -> str:
    """Format a cell of a Parquet file for a table."""
    return f"{path}#{column}@{row}"


def boxed_text(path: str, box: Box) -> str:
    """Format a box of a photo for a table."""
    return f"{path}{BOX_MARK}{box}"


def photo_of(place: Place) -> File | TarMember | Cell | InMemoryImage:
    """Return the whole photo that a box is of, or the photo itself."""
    return place.photo if isinstance(place, Boxed) else place


def file_of(place: Place) -> File | None:
    """Return the file that a place is, or is in; None for bytes in memory."""
    place = photo_of(place)
    if isinstance(place, InMemoryImage):
        return None
    return place.file if isinstance(place, (TarMember, Cell)) else place


def is_local(place: Place) -> bool:
    """Return whether the file is on this machine, or its bytes in memory."""
    file = file_of(place)
    return file is None or (isinstance(file, Path) and file.is_file())


def stamp(place: Place) -> list[int] | None:
    """Return size and modification time of the file; None where it is not on this machine."""
    file = file_of(place)
    try:
        about = os.stat(file) if isinstance(file, Path) else None  # noqa: PTH116  # not for a URL
    except (OSError, ValueError):
        return None
    return [about.st_size, about.st_mtime_ns] if about else None


def read(place: Place, max_bytes: int = MAX_BYTES) -> bytes:
    """Read the bytes of a photo, wherever it is stored; for a box those of the whole photo.

    Raises:
        ImageRejected: MISSING, UNREADABLE, EMPTY, OUTSIDE or TOO_LARGE (more than `max_bytes`).
        InputError: a server or store does not answer, or refuses the credentials.
    """
    match place:
        case Path():
            data = _file(place, max_bytes)
        case InMemoryImage():
            data = place.data
        case Remote():
            data = fsspec.read(place, max_bytes)
        case TarMember():
            data = _member(place, max_bytes)
        case Cell():
            data = _cell(place, max_bytes)
        case Boxed():
            data = read(place.photo, max_bytes)
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


def _member(place: TarMember, max_bytes: int) -> bytes:
    if place.size > max_bytes:
        reject(RejectReason.TOO_LARGE, f"{place} has {place.size:,} bytes")
    if isinstance(place.file, Remote):
        data = fsspec.read_range(place.file, place.offset, place.size)
    else:
        try:
            with place.file.open("rb", buffering=0) as handle:
                # A place beyond all that a file system can hold is an error.
                handle.seek(min(place.offset, handle.seek(0, os.SEEK_END)))
                data = handle.read(place.size)
        except FileNotFoundError as error:
            raise ImageRejected(RejectReason.MISSING, f"no file {place.file}") from error
        except (OSError, ValueError, OverflowError, MemoryError) as error:
            raise ImageRejected(RejectReason.UNREADABLE, f"{place}: {error}") from error
    if len(data) < place.size:
        reject(RejectReason.TRUNCATED, f"{place.file} ends before {place} does")
    return data


# Cells are read in blocks of rows: a Parquet file has no random access to a row.
_BLOCK = 64  # rows: some ten megabytes of photos
_blocks: RecentValues[list[bytes | None]] = RecentValues(4)


def _cell(place: Cell, max_bytes: int) -> bytes:
    import polars as pl

    file, start = place.file, place.row - place.row % _BLOCK
    with fsspec.local_copy(file) as here:
        try:
            key = (here, here.stat().st_mtime_ns, place.column, start)
            block = _blocks.get(key, lambda: cells(here, place.column, start, _BLOCK))
        except FileNotFoundError as error:
            raise ImageRejected(RejectReason.MISSING, f"no file {file}") from error
        except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
            raise ImageRejected(RejectReason.UNREADABLE, f"{place}: {first_line(error)}") from error
    if place.row - start >= len(block):
        reject(RejectReason.MISSING, f"{file} has fewer rows than {place} asks for")
    data = block[place.row - start] or b""
    if len(data) > max_bytes:
        reject(RejectReason.TOO_LARGE, f"{place} has {len(data):,} bytes")
    return data


def cells(file: Path, column: str, start: int, rows: int) -> list[bytes | None]:
    """Read consecutive cells of a binary column, or of a field of a struct (`column.field`).

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
