"""Read objects behind a URL (s3://, gs://, http://, https://, memory:// in tests) through fsspec.

The user names a URL; relative paths are added below it, and one that leads out of it is rejected as OUTSIDE.
"No such object" marks a photo as MISSING. A server that does not answer, or refuses the credentials, ends
the run with an InputError after a few retries: a photo is not rejected because a network failed.
"""

from __future__ import annotations

import re
import shutil
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import quote, unquote, urljoin, urlsplit

from fieldmark.data.image_containers import reject
from fieldmark.utils import io
from fieldmark.utils.errors import ImageRejected, InputError, RejectReason
from fieldmark.utils.threads import RecentValues

# pathlib folds the two slashes of a URL into one: `Path("s3://a/b")` is `s3:/a/b`.
_URL = re.compile(r"(s3|gs|gcs|https?|memory):/{1,2}(?!/)(.+)", re.IGNORECASE | re.DOTALL)
_TRIES = 4
_FIRST_WAIT = 0.25  # seconds; doubled with each try
BLOCK = 8 * 2**20  # bytes of one request to a large object, such as a shard
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Remote:
    """An object, or a prefix that serves as a folder, behind a URL."""

    url: str

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, path: str) -> Remote:
        """Return an object below; the path is text, never a URL of its own."""
        path = quote(path) if self.url.startswith("http") else path
        return Remote(f"{self.url.rstrip('/')}/{path}")

    @property
    def name(self) -> str:
        """Return the last part of the URL."""
        return PurePosixPath(self.url).name

    @property
    def parent(self) -> Remote:
        """Return the prefix of the object."""
        return Remote(self.url.rstrip("/").rpartition("/")[0])


def parse_url(text: str | Path) -> Remote | None:
    """Parse a URL; return None for any other text, or a scheme that is not supported."""
    found = _URL.fullmatch(str(text))
    return Remote(f"{found[1].lower()}://{found[2]}") if found else None


def read(place: Remote, max_bytes: int) -> bytes:
    """Read an object of at most `max_bytes`; a larger one is rejected as TOO_LARGE."""
    fs, path = filesystem(place)

    def get() -> bytes:
        # One request to a web server: read up to the limit instead of asking for the size.
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
    """Return how many bytes an object has; an InputError where the server does not report it."""
    fs, path = filesystem(place)
    found = _retry(place, lambda: fs.size(path))
    if found is None:
        raise InputError(f"{place}: the server does not report its size: download it first.")
    return int(found)


_blocks: RecentValues[bytes] = RecentValues(8)


def read_range(place: Remote, offset: int, length: int) -> bytes:
    """Read some bytes of a large object; fewer where it ends earlier.

    Whole blocks are fetched and the last few cached, so that sequential reading fetches every block
    once, in bounded memory.
    """
    first, last = offset // BLOCK, (offset + length - 1) // BLOCK
    data = b"".join(
        _blocks.get((place.url, number), lambda number=number: _fetch(place, number * BLOCK))  # type: ignore[misc]
        for number in range(first, last + 1)
    )
    return data[offset - first * BLOCK :][:length]


def _fetch(place: Remote, start: int) -> bytes:
    fs, path = filesystem(place)
    wanted = min(BLOCK, size(place) - start)
    if wanted <= 0:
        return b""

    def get() -> bytes:
        data = bytes(fs.cat_file(path, start=start, end=start + wanted))
        if len(data) > wanted:
            raise InputError(f"{place}: the server gives no parts of a file: download it first.")
        if len(data) < wanted:
            raise OSError("the connection ended before the data")
        return data

    return _retry(place, get)


def open_file(place: Remote) -> Any:
    """Open a large object as a binary file; its blocks are fetched when they are first needed."""
    from fsspec.spec import AbstractBufferedFile

    class BlockFile(AbstractBufferedFile):  # type: ignore[misc]
        def _fetch_range(self, start: int, end: int) -> bytes:
            return read_range(place, start, end - start)

    fs, path = filesystem(place)
    return BlockFile(fs, path, block_size=64 * 1024, size=size(place))


class _Copy:
    """A local copy of an object, deleted when it is neither cached nor being read."""

    def __init__(self, place: Remote) -> None:
        folder = io.scratch()
        self.path = folder / "copy.parquet"
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        download(place, self.path)


_copies: RecentValues[_Copy] = RecentValues(2)


@contextmanager
def local_copy(file: Path | Remote) -> Iterator[Path]:
    """Give a local copy of a Parquet file, which cannot be read in order; a local file as it is.

    The last two copies stay, and all that are being read.
    """
    if isinstance(file, Path):
        yield file
    else:
        copy = _copies.get(file.url, lambda: _Copy(file))
        yield copy.path


def download(place: Remote, target: Path) -> None:
    """Download an object to a local file, block by block; an InputError where the disk is full."""
    length = size(place)
    try:
        with target.open("wb") as handle:
            for start in range(0, length, BLOCK):
                handle.write(_fetch(place, start))
    except OSError as error:
        raise InputError(
            f"{target.parent} has no space for {place} ({error.strerror or error}): free some space, "
            "or name another folder with TMPDIR."
        ) from error


def is_file(place: Remote) -> bool:
    """Return whether there is an object of this name; False for a prefix that serves as a folder."""
    fs, path = filesystem(place)
    try:
        return bool(_retry(place, lambda: fs.info(path))["type"] == "file")
    except ImageRejected:
        return False


def list_objects(place: Remote) -> list[str]:
    """List the names of all objects below a place, sorted and relative to it; of a web server its links."""
    fs, path = filesystem(place)
    web, start = place.url.startswith("http"), f"{path.rstrip('/')}/"
    try:
        found = _retry(place, lambda: fs.find(start if web else path))
    except ImageRejected:
        return []
    names = (name.removeprefix(start) for name in found if name.startswith(start))
    return sorted(unquote(name) if web else name for name in names if name and name[-1] != "/")


def filesystem(place: Remote) -> tuple[Any, str]:
    """Return the fsspec file system of a URL, and the object's name in it.

    Raises:
        ImageRejected: OUTSIDE.
        InputError: fsspec, or what it needs for this kind of URL, is not installed.
    """
    if ".." in re.split(r"[/\\]|%2f|%5c", place.url, flags=re.IGNORECASE):
        reject(RejectReason.OUTSIDE, f"{place} leads out of the source")
    try:
        from fsspec.core import url_to_fs

        web = {"get_client": _client} if place.url.startswith("http") else {}
        fs, path = url_to_fs(place.url, **web)
    except ImportError as error:
        raise InputError(
            f"{place} needs a package that is not installed ({error}): pip install 'fieldmark[remote]'."
        ) from error
    except ValueError as error:
        raise InputError(f"{place} is not a URL that can be read ({error}).") from error
    return fs, path


async def _client(**options: Any) -> Any:
    """Make aiohttp's session for fsspec, which follows no redirect to another host: whoever answers for one
    address could otherwise have any other read, on this machine's own network too."""
    import aiohttp

    async def check(_session: Any, _context: Any, told: Any) -> None:
        there = urljoin(str(told.url), told.response.headers.get("Location", ""))
        if urlsplit(there).hostname != told.url.host:
            reject(RejectReason.OUTSIDE, f"{told.url} leads to another host: name {there} itself")

    trace = aiohttp.TraceConfig()
    trace.on_request_redirect.append(check)
    return aiohttp.ClientSession(trace_configs=[trace], **options)


def _retry(place: Remote, work: Callable[[], T]) -> T:
    """Return what `work` returns, trying a few times; MISSING, or an InputError if the store refuses."""
    for tried in range(_TRIES):
        try:
            with translated_errors(place):
                return work()
        except _Unreachable as error:
            if tried == _TRIES - 1:
                raise InputError(
                    f"{place} could not be read ({error}): check the address and the server, then "
                    "run the same command again."
                ) from error
            time.sleep(_FIRST_WAIT * 2**tried)
    raise AssertionError("every try returns or raises")


class _Unreachable(Exception):
    """A failure that is worth another try."""


@contextmanager
def translated_errors(place: Remote) -> Iterator[None]:
    """Raise the errors of a store as those of fieldmark."""
    try:
        yield
    except (ImageRejected, InputError):
        raise
    except Exception as raised:
        error = _cause(raised)
        if isinstance(error, ImageRejected):
            raise error from raised
        if isinstance(error, FileNotFoundError):
            raise ImageRejected(RejectReason.MISSING, f"no object {place}") from error
        words = " ".join(str(error).split())[:200] or type(error).__name__
        status = getattr(error, "status", None)
        if isinstance(error, PermissionError) or status in (401, 403) or _CREDENTIALS.search(words):
            raise InputError(
                f"{place} may not be read ({words}): give credentials that allow it, in the "
                "way of the store's own tools."
            ) from error
        raise _Unreachable(words) from error


def _cause(error: Exception) -> BaseException:
    """Return the cause of a "not found": fsspec raises that for any failure to get an object's size."""
    cause = error.__cause__
    if not isinstance(error, FileNotFoundError) or cause is None:
        return error
    status = getattr(cause, "status", None)
    unanswered = isinstance(cause, OSError) and not isinstance(cause, FileNotFoundError)
    return (
        cause if unanswered or isinstance(cause, ImageRejected) or status not in (None, 404, 410) else error
    )


_CREDENTIALS = re.compile(r"credential|access denied|forbidden|unauthorized", re.IGNORECASE)
