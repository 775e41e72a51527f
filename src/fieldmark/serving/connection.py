"""Connections that end: a deadline for each request's head, and a limit per client and in all.

A client that opens connections and sends nothing, or half a head, would otherwise hold the server for as
long as it likes. The deadline of a body is in `multipart.py`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
from typing import Any, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from fieldmark.serving import answers
from fieldmark.serving.config import ServeConfig
from fieldmark.serving.http_errors import HttpError

RESERVE = 64
"""Connections beyond the limit, on which health checks are answered and all else is refused."""


class Connection(H11Protocol):
    """uvicorn's connection, with deadlines and limits.

    Where there are too many connections the one that has waited longest is closed. If all have a request in
    work, the new one is `crowded`: the middleware refuses its requests, other than health checks.
    """

    limits: ServeConfig  # of the subclass that `limited` makes

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.app_state = {**self.app_state, "connection": self}
        self._deadline: asyncio.TimerHandle | None = None
        self._waiting_since, self.address = 0.0, ""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin; close another connection where there are too many."""
        super().connection_made(transport)
        self.address = _network(self.client[0]) if self.client else ""
        self._wait_for_head()
        crowd = self._crowd()
        waiting = [each for each in crowd if not each._in_work and each is not self]
        if waiting:
            min(waiting, key=lambda each: each._waiting_since).transport.close()
        elif len(crowd) > self.limits.connections + RESERVE:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._cancel()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """Handle what arrived; a whole head has met its deadline."""
        super().handle_events()
        if self._in_work:
            self._cancel()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        self._wait_for_head()  # before a request that was sent ahead is begun
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Wait until the client reads, but not for ever."""
        super().pause_writing()
        self._within(self.limits.body_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on."""
        super().resume_writing()
        self._cancel()

    @property
    def crowded(self) -> bool:
        """Whether there are too many connections, of this client or in all."""
        return bool(self._crowd())

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP."""
        self._refuse(400, "bad-request", msg)

    @property
    def _in_work(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _crowd(self) -> list[Connection]:
        """The connections of which there are too many: those of this client, or all; else none."""
        held = cast("set[Connection]", self.connections)
        every = [each for each in held if not each.transport.is_closing()]
        own = [each for each in every if each.address == self.address]
        if len(own) > self.limits.client_connections:
            return own
        return every if len(every) > self.limits.connections else []

    def _wait_for_head(self) -> None:
        self._waiting_since = self.loop.time()
        self._within(self.limits.head_seconds, self._too_slow)

    def _within(self, seconds: float, otherwise: Any) -> None:
        self._cancel()
        self._deadline = self.loop.call_later(seconds, otherwise)

    def _cancel(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()

    def _too_slow(self) -> None:
        if self.conn.our_state is h11.IDLE and self.conn.trailing_data[0]:
            self._refuse(408, "too-slow", "The head of the request took too long to arrive.")
        self.transport.close()

    def _refuse(self, status: int, code: str, message: str) -> None:
        """Answer what is no whole request, so that the application never sees it, and hang up."""
        refusal = answers.problem(HttpError(status, code, message), secrets.token_hex(8))
        body = refusal.model_dump_json(exclude_none=True).encode()
        headers = [("Content-Type", answers.PROBLEM), ("Connection", "close")]
        try:
            for event in (
                h11.Response(status_code=status, headers=[*headers, ("Content-Length", str(len(body)))]),
                h11.Data(data=body),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        except h11.LocalProtocolError:  # an answer has begun
            pass
        self.transport.close()


def limited(config: ServeConfig) -> type[Connection]:
    """Return the class of connections with the limits of a configuration, for uvicorn."""
    return type("Connection", (Connection,), {"limits": config})


def _network(host: str) -> str:
    """Return what counts as one client: an IPv4 address, or a /64 network of IPv6."""
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        return str(address.ipv4_mapped or ipaddress.ip_network((address, 64), strict=False))
    return str(address)
