"""Download files: resume, respect the server's limits, and verify.

A file under its own name is complete: bytes are written to `NAME.part`, verified, and renamed at the end.
`NAME.part.json` records the version of the file (its ETag or date), so that a later run never joins two
versions; without either the download starts again. The requests of all threads share one rate limit, and
wait as long as a busy server (429, 503) asks. Waits double with each retry (Jacobson, "Congestion avoidance
and control", 1988), with jitter so that threads do not retry at the same time.
"""

from __future__ import annotations

import os
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeVar

from fieldmark.utils import io
from fieldmark.utils.errors import InputError

if TYPE_CHECKING:
    import httpx2

T = TypeVar("T")

_BUSY = {408, 425, 429, 500, 502, 503, 504}


@dataclass(frozen=True)
class RetryPolicy:
    """Limits of requests and retries; times in seconds."""

    workers: int = 8  # simultaneous requests
    rate: float = 10.0  # requests a second, at most
    tries: int = 6  # in a row without a new byte
    pause: float = 1.0  # before the second try; doubled for each further one
    patience: float = 300.0  # the longest wait, also where a server asks for a longer one
    timeout: float = 60.0  # without a byte, after which a connection is closed


class NotAvailable(InputError):
    """A file that retries cannot get: 403, 404, too large, or wrong content twice."""


class RetryableError(Exception):
    """A try failed, another may succeed; `after` is how long the server asks to wait, in seconds."""

    def __init__(self, why: str, after: float = 0.0) -> None:
        self.after = after
        super().__init__(why)


class WrongContent(RetryableError):
    """The content is not that of the file; it is not tried a third time."""


class Downloads(AbstractContextManager["Downloads"]):
    """An HTTP client for all threads, with retries and a rate limit. Use it as a context manager."""

    def __init__(self, retry_policy: RetryPolicy) -> None:
        import httpx2

        self.retry_policy = retry_policy
        self._client = httpx2.Client(
            timeout=retry_policy.timeout,
            follow_redirects=True,
            limits=httpx2.Limits(max_connections=retry_policy.workers),
            headers={"User-Agent": "fieldmark", "Accept-Encoding": "identity"},
        )
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._next = 0.0

    def __exit__(self, *error: object) -> None:
        self.stop()
        self._client.close()

    def stop(self) -> None:
        """Stop every thread at its next block or wait."""
        self._stop.set()

    def read(self, url: str, check: Callable[[bytes], T], limit: int) -> T:
        """Download a file of at most `limit` bytes and return what `check` returns for them.

        `check` raises `WrongContent` for bytes that are not the file.

        Raises:
            NotAvailable: the server has no such file, or one that is too large.
            InputError: the server does not answer.
        """

        def once() -> T:
            data = bytearray()
            with self._open(url, {}) as answer:
                for block in self._blocks(answer):
                    data += block
                    if len(data) > limit:
                        raise NotAvailable(f"{url} is larger than {limit:,} bytes")
            return check(bytes(data))

        return self._with_retries(url, once, lambda: 0)

    def save(
        self, url: str, path: Path, check: Callable[[Path], T], advance: Callable[[int, int | None], None]
    ) -> T:
        """Download a large file, resume where an earlier run was interrupted; return what `check` returns.

        `check` is given the complete temporary file, which is deleted if it raises `WrongContent`; `advance`
        is called with the number of bytes so far, and in all.

        Raises:
            NotAvailable: the server has no such file.
            InputError: the server does not answer, or the disk is full; the next run resumes.
        """
        part = path.with_name(f"{path.name}.part")
        with _writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)

        def once() -> T:
            self._continue(url, part, advance)
            try:
                return check(part)
            except WrongContent:
                _discard(part)
                raise

        found = self._with_retries(url, once, lambda: _size(part))
        with _writing(path):
            io.settle(part, path)
        forget(path)
        return found

    def _continue(self, url: str, part: Path, advance: Callable[[int, int | None], None]) -> None:
        version, whole = _read_info(part)
        have = _size(part) if version else 0
        if version and have == whole:
            return  # only check and rename remain
        asked = {"Range": f"bytes={have}-", "If-Range": version} if have else {}
        with self._open(url, asked) as answer:
            header = answer.headers.get
            resumed = answer.status_code == 206
            if answer.status_code == 416:
                _discard(part)
                raise RetryableError("the file on the server has changed")
            if resumed and not header("Content-Range", "").replace("=", " ").startswith(f"bytes {have}-"):
                _discard(part)
                raise RetryableError("the server sent another range than requested")
            have = have if resumed else 0
            length = header("Content-Length", "")
            total = have + int(length) if length.isdecimal() else None
            _check_space(part, total, have)
            if not resumed:
                _discard(part)
                tag = header("ETag", "")  # a weak one says nothing of the bytes
                if version := tag if tag.startswith('"') else header("Last-Modified", ""):
                    io.write_json(_info_path(part), {"version": version, "bytes": total})
            with _appending(part) as handle:
                for block in self._blocks(answer):
                    handle.write(block)
                    have += len(block)
                    advance(have, total)
        if total is not None and have != total:
            raise RetryableError(f"only {have:,} of {total:,} bytes received")

    @contextmanager
    def _open(self, url: str, headers: dict[str, str]) -> Iterator[httpx2.Response]:
        import httpx2

        self._wait_turn()
        try:
            with self._client.stream("GET", url, headers=headers) as answer:
                _check_status(url, answer)
                yield answer
        except httpx2.TransportError as error:
            raise RetryableError(f"the connection failed ({error or type(error).__name__})") from error
        except (httpx2.InvalidURL, httpx2.TooManyRedirects) as error:
            raise InputError(f"{url} cannot be fetched ({error}): name another with --from.") from error

    def _blocks(self, answer: httpx2.Response) -> Iterator[bytes]:
        for block in answer.iter_raw():  # as they come: gathered blocks would be lost with a connection
            if self._stop.is_set():
                raise KeyboardInterrupt
            yield block

    def _with_retries(self, url: str, once: Callable[[], T], have: Callable[[], int]) -> T:
        """Retry; tries that received new bytes are not counted."""
        failed, wrong, before = 0, 0, have()
        again_later = "run the same command again later, or name a mirror with --from"
        while True:
            try:
                return once()
            except RetryableError as again:
                wrong += isinstance(again, WrongContent)
                if wrong == 2:
                    raise NotAvailable(f"{url} had wrong content twice ({again}): {again_later}.") from again
                failed = 1 if have() > before else failed + 1
                before = have()
                if failed >= self.retry_policy.tries:
                    raise InputError(
                        f"{url} could not be downloaded in {failed} tries ({again}): {again_later}; "
                        "it resumes."
                    ) from again
                self._pause(failed, again.after)

    def _pause(self, failed: int, after: float) -> None:
        policy = self.retry_policy
        wait = policy.pause * 2 ** (failed - 1) * random.uniform(0.75, 1.25)
        if after:
            with self._lock:  # all threads wait for a busy server
                until = time.monotonic() + min(after, policy.patience)
                self._next = max(self._next, until)
        if self._stop.wait(min(max(wait, after), policy.patience)):
            raise KeyboardInterrupt

    def _wait_turn(self) -> None:
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next)
            self._next = turn + 1 / self.retry_policy.rate
        if self._stop.wait(turn - now):
            raise KeyboardInterrupt


def _check_status(url: str, answer: httpx2.Response) -> None:
    """Raise for a response without the file: RetryableError or NotAvailable."""
    status = answer.status_code
    if status in _BUSY:
        raise RetryableError(f"HTTP {status}", _seconds(answer.headers.get("Retry-After", "")))
    if status in (401, 403):
        raise NotAvailable(f"{url} is refused (HTTP {status}): it needs credentials, or is not public.")
    if status not in (200, 206, 416):
        raise NotAvailable(f"{url} not found (HTTP {status}): check whether it has moved.")


def _seconds(retry_after: str) -> float:
    """Parse a Retry-After header, seconds or a date; 0 where it is missing."""
    if retry_after.isdecimal():
        return float(retry_after)
    with suppress(ValueError):
        return max(0.0, (parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds())
    return 0.0


# A partial download: its bytes in `NAME.part`, its version in `NAME.part.json`


def _check_space(part: Path, total: int | None, have: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if total is not None and total - have > free:
        raise InputError(
            f"{part.parent} has {free:,} bytes free, and {total - have:,} more are needed: free some "
            "space or name another folder with --out."
        )


@contextmanager
def _appending(part: Path) -> Iterator[IO[bytes]]:
    with _writing(part), part.open("ab") as handle:
        try:
            yield handle
        finally:
            handle.flush()
            os.fsync(handle.fileno())


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{path} could not be written ({error.strerror or error}): free some space, then run "
            "the same command again; it resumes."
        ) from error


def _info_path(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _read_info(part: Path) -> tuple[str, int | None]:
    """Return the version of the file in `part`, or "", and how many bytes it has in all."""
    with suppress(InputError, AttributeError):
        info = io.read_json(_info_path(part))
        return str(info.get("version", "")), info.get("bytes")
    return "", None


def forget(path: Path) -> None:
    """Remove what was noted of a download that is complete, where a kill came between."""
    _discard(path.with_name(f"{path.name}.part"))


def _discard(part: Path) -> None:
    with _writing(part):
        for path in (part, _info_path(part)):
            path.unlink(missing_ok=True)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
