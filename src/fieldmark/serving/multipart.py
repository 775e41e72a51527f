"""Read the photos of a request; bytes are counted as they arrive and stay in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from fieldmark.serving import http_errors
from fieldmark.serving.asked import Asked, PhotoBoxes
from fieldmark.serving.config import ServeConfig
from fieldmark.serving.http_errors import HttpError

_NAME_LENGTH = 200
_MAX_FIELDS = 16  # fields of a form that are not files
_RETRY_SECONDS = 2


@dataclass(frozen=True)
class Upload:
    """The bytes of one photo, the file name that the client gave it (or ""), and what is asked of it."""

    data: bytes
    name: str = ""
    asked: Asked = field(default_factory=Asked)
    boxes: PhotoBoxes | None = None


class BodyMemory:
    """Bytes of request bodies in memory, over all requests."""

    def __init__(self, config: ServeConfig) -> None:
        self._config, self.used = config, 0

    @contextmanager
    def request(self) -> Iterator[Callable[[int], None]]:
        """Count the bytes of one request until its end; yields a function that counts more of them.

        That function raises HttpError if the request has too many bytes, or all requests together.
        """
        own = 0

        def add(count: int) -> None:
            nonlocal own
            if own + count > self._config.max_bytes:
                raise http_errors.body_too_large(self._config.max_bytes)
            if self.used + count > self._config.held_bytes:
                raise http_errors.busy(_RETRY_SECONDS)
            self.used += count
            own += count

        try:
            yield add
        finally:
            self.used -= own


async def read_photos(
    request: Request, add: Callable[[int], None], config: ServeConfig
) -> tuple[list[Upload], dict[str, str]]:
    """Read the photos of a request, each file of a form, or the body itself, and the form's other fields;
    raises HttpError."""
    headers = request.headers
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise HttpError(415, "encoded", "Send the photo as it is, without Content-Encoding.")
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    chunks = _chunks(request, add, config.max_bytes)
    try:
        async with asyncio.timeout(config.body_seconds):
            if media_type == "multipart/form-data":
                return await read_form(headers, chunks, config.photos_a_request)
            return [Upload(b"".join([chunk async for chunk in chunks]))], {}
    except TimeoutError as error:
        raise HttpError(408, "too-slow", "The photo took too long to arrive.") from error
    except ClientDisconnect as error:  # nobody reads the answer; the status is for the log
        raise HttpError(499, "gone", "The client closed the connection.") from error


async def _chunks(
    request: Request, add: Callable[[int], None], max_bytes: int
) -> AsyncGenerator[bytes, None]:
    """Yield the body; one that is too long is refused before it is read, or while it is."""
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > max_bytes:
        raise http_errors.body_too_large(max_bytes)
    async for chunk in request.stream():
        add(len(chunk))
        yield chunk


class _FormParser(MultiPartParser):
    """Starlette's parser, which here writes no file to disk and notices a form that is cut off."""

    spool_max_size = 0  # no limit: the size of the body is limited already
    complete = False

    def __init__(self, headers: Headers, chunks: AsyncGenerator[bytes, None], max_files: int) -> None:
        stream = self._to_the_end(chunks)
        super().__init__(headers, stream, max_files=max_files, max_fields=_MAX_FIELDS)

    async def _to_the_end(self, chunks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        async for chunk in chunks:
            yield chunk
        if not self.complete:  # raised while Starlette parses, so that it closes its files
            raise http_errors.bad_form("it ends too early")

    def on_end(self) -> None:
        self.complete = True


async def read_form(
    headers: Headers, chunks: AsyncGenerator[bytes, None], max_photos: int
) -> tuple[list[Upload], dict[str, str]]:
    """Read the files and the other fields of a multipart/form-data body (RFC 7578); raises HttpError."""
    try:
        form = await _FormParser(headers, chunks, max_photos).parse()
    except MultiPartException as error:
        if error.message.startswith("Too many"):
            message = f"At most {max_photos} photos may be sent at once."
            raise HttpError(413, "too-many-photos", message) from error
        raise http_errors.bad_form(error.message) from error
    except ValueError as error:  # a charset that is not for text, a boundary that is too long
        raise http_errors.bad_form("its headers are not supported") from error
    files = [part for _, part in form.multi_items() if isinstance(part, UploadFile)]
    photos = [Upload(await each.read(), _base_name(each.filename or "")) for each in files]
    await form.close()
    if not photos:
        raise HttpError(400, "no-photo", "The form contains no photo: send it as a file.")
    return photos, {name: value for name, value in form.multi_items() if isinstance(value, str)}


def _base_name(path: str) -> str:
    """Return the last component of a path of any operating system, printable characters only."""
    name = path.replace("\\", "/").rsplit("/", 1)[-1]
    return "".join(filter(str.isprintable, name))[:_NAME_LENGTH]
