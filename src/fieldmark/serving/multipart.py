"""A request's body to photos: counted while it arrives, in memory only."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser
from starlette.requests import Request

from fieldmark.serving import http_errors
from fieldmark.serving.config import ServeConfig
from fieldmark.serving.http_errors import Refused

_NAME_LENGTH = 200
_OTHER_PARTS = 16  # fields of a form that are no photos
_RETRY_SECONDS = 2


@dataclass(frozen=True)
class Upload:
    """A photo as it was sent: its bytes, and what the sender calls it (or "")."""

    data: bytes
    name: str = ""


class Held:
    """How many bytes of bodies are in memory, of all requests together."""

    def __init__(self, limit: int) -> None:
        self.limit, self.now = limit, 0

    @contextmanager
    def body(self) -> Iterator[_Share]:
        """One request's share, given back at the end."""
        share = _Share(self)
        try:
            yield share
        finally:
            self.now -= share.bytes


class _Share:
    def __init__(self, held: Held) -> None:
        self._held, self.bytes = held, 0

    def add(self, count: int) -> None:
        if self._held.now + count > self._held.limit:
            raise http_errors.busy(_RETRY_SECONDS)
        self._held.now += count
        self.bytes += count


async def uploads(request: Request, share: _Share, config: ServeConfig) -> list[Upload]:
    """The photos of a request: each file of a form, or the body itself.

    Raises:
        Refused: too many bytes or photos, too slow, no form that can be read, no photo.
    """
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refused(415, "encoded", "Send the photo as it is, without Content-Encoding.")
    data = await _read(request, share, config)
    kind = Message()
    kind["content-type"] = request.headers.get("content-type", "")
    if kind.get_content_type() != "multipart/form-data":
        return [Upload(data)]
    boundary = kind.get_boundary()
    if not boundary:
        raise _bad_form("its Content-Type names no boundary")
    return _Form(config.photos_a_request).read(data, boundary)


async def _read(request: Request, share: _Share, config: ServeConfig) -> bytes:
    """The whole body; a longer one than allowed is refused before it is read, or while it is."""
    announced = request.headers.get("content-length", "0")
    if not announced.isdecimal() or int(announced) > config.max_bytes:
        raise http_errors.body_too_large(config.max_bytes)
    parts: list[bytes] = []
    try:
        async with asyncio.timeout(config.body_seconds):
            async for part in request.stream():
                if share.bytes + len(part) > config.max_bytes:
                    raise http_errors.body_too_large(config.max_bytes)
                share.add(len(part))
                parts.append(part)
    except TimeoutError as error:
        raise Refused(408, "too-slow", "The photo took too long to arrive.") from error
    return b"".join(parts)


def _bad_form(why: str) -> Refused:
    return Refused(400, "bad-form", f"The form cannot be read: {why}.")


class _Form:
    """Reads multipart/form-data (RFC 7578): each part with a file name is a photo."""

    def __init__(self, max_photos: int) -> None:
        self._max = max_photos
        self._found: list[Upload] = []
        self._parts = 0
        self._begin()

    def read(self, data: bytes, boundary: str) -> list[Upload]:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_part_data": lambda chunk, start, end: self._data.append(chunk[start:end]),
                "on_part_end": self._end,
                "on_header_field": lambda chunk, start, end: self._add("_field", chunk[start:end]),
                "on_header_value": lambda chunk, start, end: self._add("_value", chunk[start:end]),
                "on_header_end": self._header,
                "on_end": self._finish,
            },
        )
        try:
            parser.write(data)
            parser.finalize()
        except FormParserError as error:
            raise _bad_form("it is not well-formed") from error
        if not self._finished:
            raise _bad_form("it ends too early")
        if not self._found:
            raise Refused(400, "no-photo", "The form holds no photo: send it as a file.")
        return self._found

    def _begin(self) -> None:
        self._data: list[bytes] = []
        self._field = self._value = b""
        self._headers = Message()
        self._finished = False
        self._parts += 1
        if self._parts > self._max + _OTHER_PARTS:
            raise self._too_many()

    def _add(self, name: str, chunk: bytes) -> None:
        setattr(self, name, getattr(self, name) + chunk)

    def _header(self) -> None:
        name = self._field.decode("latin-1").lower()
        if name in ("content-disposition", "content-type"):
            del self._headers[name]
            value = self._value.decode("utf-8", "replace")
            self._headers[name] = "".join(c for c in value if c.isprintable())
        self._field = self._value = b""

    def _end(self) -> None:
        name = self._headers.get_filename()
        image = self._headers.get_content_maintype() == "image"
        if name is None and not image:
            return
        if len(self._found) == self._max:
            raise self._too_many()
        self._found.append(Upload(b"".join(self._data), _short(name or "")))

    def _finish(self) -> None:
        self._finished = True

    def _too_many(self) -> Refused:
        return Refused(413, "too-many-photos", f"At most {self._max} photos may be sent at once.")


def _short(name: str) -> str:
    """The last part of a path, whatever system it is from."""
    return name.replace("\\", "/").rsplit("/", 1)[-1][:_NAME_LENGTH]
