"""Objects behind a URL: s3://, gs://, http://, https://, memory:// (in tests), through fsspec.

A URL is made in one way only: the user names one, and relative paths are added below it. What answers
"no such object" makes a photo missing. What does not answer, or refuses the credentials, is tried a few
times and then ends the run with a sentence: a photo is not called bad because a network was.
"""

from __future__ import annotations

import io
import os
import re
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import quote, unquote

from fieldmark.data.image_containers import reject
from fieldmark.utils.errors import ImageRejected, InputError, RejectReason

# pathlib folds the two slashes of a URL into one: `Path("s3://a/b")` is `s3:/a/b`.
_URL = re.compile(r"(s3|gs|gcs|https?|memory):/{1,2}(?!/)(.+)", re.IGNORECASE | re.DOTALL)
_TRIES = 4
_FIRST_WAIT = 0.25  # seconds; doubled with each try
BLOCK = 8 * 2**20
"""Bytes that are asked for at a time of a large object, such as a shard."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Remote:
    """An object, or what plays a folder, behind a URL."""

    url: str

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, path: str) -> Remote:
        """What lies below; the path is text, never a URL of its own."""
        list_objects = quote(path) if self.url.startswith("http") else path
        return Remote(f"{self.url.rstrip('/')}/{list_objects}")

    @property
    def name(self) -> str:
        """The last part of the URL."""
        return PurePosixPath(self.url).name

    @property
    def parent(self) -> Remote:
        """What the object lies in."""
        return Remote(self.url.rstrip("/").rpartition("/")[0])


def parse_url(text: str | Path) -> Remote | None:
    """The object that a text names, None where it is no URL of a kind that is read."""
    found = _URL.fullmatch(str(text))
    return Remote(f"{found[1].lower()}://{found[2]}") if found else None


def read(place: Remote, max_bytes: int) -> bytes:
    """The bytes of an object, refused unread where it has more than `max_bytes`.

    Raises:
        ImageRejected: MISSING, OUTSIDE or TOO_LARGE.
        InputError: see `filesystem` and `_retry`.
    """
    fs, path = _opened(place)

    def get() -> bytes:
        # Of a web server the size is not asked for: one request, read no further than allowed.
        if place.url.startswith("http"):
            with fs.open(path, block_size=0) as handle:
                return bytes(handle.read(max_bytes + 1))
        if (fs.size(path) or 0) > max_bytes:
            reject(RejectReason.TOO_LARGE, f"{place} has {fs.size(path):,} bytes")
        return bytes(fs.cat_file(path))

    data = _retry(place, get)
    if len(data) > max_bytes:
        reject(RejectReason.TOO_LARGE, f"{place} has more than {max_bytes:,} bytes")
    return data


def size(place: Remote) -> int:
    """How many bytes an object has.

    Raises:
        ImageRejected: MISSING or OUTSIDE.
        InputError: the store does not say.
    """
    fs, path = _opened(place)
    found = _retry(place, lambda: fs.size(path))
    if found is None:
        raise InputError(f"{place}: the server does not say how large it is: copy it here.")
    return int(found)


def read_end(place: Remote, length: int) -> bytes:
    """The last bytes of an object; all of them where it has fewer."""
    whole = size(place)
    start = max(0, whole - length)
    return read_range(place, start, whole - start) if whole else b""


_blocks: OrderedDict[tuple[str, int], Future[bytes]] = OrderedDict()
_blocks_lock = threading.Lock()
_KEPT_BLOCKS = 8


def read_range(place: Remote, offset: int, length: int) -> bytes:
    """Some bytes of a large object; fewer where it ends before.

    Whole blocks are asked for and the last few kept, so that one who reads in order asks for every
    block once, with a bounded amount of memory.
    """
    first, last = offset // BLOCK, (offset + length - 1) // BLOCK
    data = b"".join(_block(place, number) for number in range(first, last + 1))
    return data[offset - first * BLOCK :][:length]


def _block(place: Remote, number: int) -> bytes:
    """A block, fetched by the first who asks; who asks meanwhile waits for that one alone."""
    key = (place.url, number)
    with _blocks_lock:
        known = key in _blocks
        block = _blocks.setdefault(key, Future())
        _blocks.move_to_end(key)
        while len(_blocks) > _KEPT_BLOCKS:
            _blocks.popitem(last=False)
    if not known:
        try:
            block.set_result(_fetch(place, number * BLOCK))
        except BaseException as error:
            with _blocks_lock:  # the next who asks tries anew
                if _blocks.get(key) is block:
                    del _blocks[key]
            block.set_exception(error)
    return block.result()


def _fetch(place: Remote, start: int) -> bytes:
    fs, path = _opened(place)
    whole = size(place)
    if start >= whole:
        return b""
    end = min(start + BLOCK, whole)

    def get() -> bytes:
        data = bytes(fs.cat_file(path, start=start, end=end))
        if len(data) > end - start:
            raise InputError(f"{place}: the server gives no parts of a file: copy it here first.")
        if len(data) < end - start:
            raise OSError("the connection ended before the data")
        return data

    return _retry(place, get)


class Reader(io.RawIOBase):
    """A large object as a file: read block by block, each block fetched when it is first needed."""

    def __init__(self, place: Remote) -> None:
        self._place, self._at = place, 0
        self.size = size(place)

    def readable(self) -> bool:
        """It is there to be read."""
        return True

    def seekable(self) -> bool:
        """Any place of it can be gone to."""
        return True

    def tell(self) -> int:
        """Where the next read begins."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place; nothing is fetched for it."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer as far as the object goes."""
        length = min(len(buffer), max(0, self.size - self._at))
        if length:
            buffer[:length] = read_range(self._place, self._at, length)
        self._at += length
        return length


@dataclass
class _Copy:
    """An object on this machine, and how many threads are reading it."""

    path: Path
    readers: int = 0


_copies: OrderedDict[str, _Copy] = OrderedDict()
_copies_lock = threading.Lock()
_MAX_COPIES = 2


@contextmanager
def local_copy(place: Remote) -> Iterator[Path]:
    """A Parquet file on this machine: its parts lie here and there.

    The last two are kept, and whatever others are being read.
    """
    with _copies_lock:
        if place.url not in _copies:
            _evict()
            _copies[place.url] = _Copy(_download(place))
        copy = _copies[place.url]
        _copies.move_to_end(place.url)
        copy.readers += 1
    try:
        yield copy.path
    finally:
        with _copies_lock:
            copy.readers -= 1


def _evict() -> None:
    """Delete copies that nobody reads, the oldest first, until there is room for another."""
    for url in [url for url, copy in _copies.items() if not copy.readers]:
        if len(_copies) < _MAX_COPIES:
            break
        _copies.pop(url).path.unlink(missing_ok=True)


def _download(place: Remote) -> Path:
    target = _folder() / f"{len(_copies)}-{time.monotonic_ns()}-{os.getpid()}.parquet"
    download(place, target)
    return target


def download(place: Remote, target: Path) -> None:
    """Write an object to a file of this machine, block after block.

    Raises:
        ImageRejected: MISSING or OUTSIDE.
        InputError: see `filesystem` and `_retry`; or the disk is full.
    """
    length = size(place)
    try:
        with target.open("wb") as handle:
            for start in range(0, length, BLOCK):
                handle.write(_fetch(place, start))
    except OSError as error:
        raise InputError(
            f"{target.parent} has no room for {place} ({error.strerror or error}): free some space, "
            "or name another folder with TMPDIR."
        ) from error


def is_file(place: Remote) -> bool:
    """Whether there is an object of this name; False also where it is what plays a folder.

    Raises:
        InputError: see `filesystem` and `_retry`.
    """
    fs, path = _opened(place)
    try:
        return bool(_retry(place, lambda: fs.info(path))["type"] == "file")
    except ImageRejected:
        return False


def list_objects(place: Remote) -> list[str]:
    """The names of all objects below a place, sorted: relative to it, parts separated by `/`.

    A web server lists nothing but the links of its pages.

    Raises:
        InputError: see `filesystem` and `_retry`.
    """
    fs, path = _opened(place)
    web = place.url.startswith("http")
    try:
        found = _retry(place, lambda: fs.find(f"{path.rstrip('/')}/" if web else path))
    except ImageRejected:
        return []
    start = f"{path.rstrip('/')}/"
    names = (name.removeprefix(start) for name in found if name.startswith(start))
    return sorted(unquote(name) if web else name for name in names if name and name[-1] != "/")


_temporary: list[tempfile.TemporaryDirectory[str]] = []


def _folder() -> Path:
    """A folder of this process that goes with it."""
    if not _temporary:
        _temporary.append(tempfile.TemporaryDirectory(prefix="fieldmark-"))
    return Path(_temporary[0].name)


# fsspec


def filesystem(place: Remote) -> tuple[Any, str]:
    """fsspec's view of the store, and the object's name in it.

    Raises:
        InputError: fsspec, or what it needs for this kind of URL, is not installed.
    """
    try:
        from fsspec.core import url_to_fs

        fs, path = url_to_fs(place.url)
    except ImportError as error:
        raise InputError(
            f"{place} needs a package that is not installed ({error}): "
            "pip install 'fieldmark[remote]'."
        ) from error
    except ValueError as error:
        raise InputError(f"{place} is no address that can be read ({error}).") from error
    return fs, path


def _opened(place: Remote) -> tuple[Any, str]:
    if ".." in re.split(r"[/\\]|%2f|%5c", place.url, flags=re.IGNORECASE):
        reject(RejectReason.OUTSIDE, f"{place} leads out of the source")
    return filesystem(place)


def _retry(place: Remote, work: Callable[[], T]) -> T:
    """What `work` gives, tried a few times.

    Raises:
        ImageRejected: MISSING.
        InputError: the store refuses, or does not answer.
    """
    for tried in range(_TRIES):
        try:
            with translated_errors(place):
                return work()
        except _Unreachable as error:
            if tried == _TRIES - 1:
                raise InputError(
                    f"{place} could not be read ({error}): see whether the address is right and "
                    "the server answers, then run the same command again."
                ) from error
            time.sleep(_FIRST_WAIT * 2**tried)
    raise AssertionError("every try returns or raises")


class _Unreachable(Exception):
    """A failure that may not be one the next time."""


@contextmanager
def translated_errors(place: Remote) -> Iterator[None]:
    """Turn what a store raises into the errors of this package."""
    try:
        yield
    except (ImageRejected, InputError):
        raise
    except Exception as raised:
        error = _cause(raised)
        if isinstance(error, FileNotFoundError):
            raise ImageRejected(RejectReason.MISSING, f"no object {place}") from error
        words = " ".join(str(error).split())[:200] or type(error).__name__
        status = getattr(error, "status", None)
        if isinstance(error, PermissionError) or status in (401, 403) or _CREDENTIALS.search(words):
            raise InputError(
                f"{place} may not be read ({words}): give credentials that may, in the way that "
                "the store's own tools take them."
            ) from error
        raise _Unreachable(words) from error


def _cause(error: Exception) -> BaseException:
    """What a "not found" stands for: fsspec says it of any failure to ask for an object's size."""
    cause = error.__cause__
    if not isinstance(error, FileNotFoundError) or cause is None:
        return error
    status = getattr(cause, "status", None)
    unanswered = isinstance(cause, OSError) and not isinstance(cause, FileNotFoundError)
    return cause if unanswered or status not in (None, 404, 410) else error


_CREDENTIALS = re.compile(r"credential|access denied|forbidden|unauthorized", re.IGNORECASE)
