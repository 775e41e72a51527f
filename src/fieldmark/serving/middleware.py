"""For every request: security headers, request id, API key, log line, and a response to any exception.

This is plain ASGI: it must see all responses, those of the framework included.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import re
import secrets
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fieldmark.serving import answers
from fieldmark.serving.config import ServeConfig
from fieldmark.serving.http_errors import HttpError, defect
from fieldmark.serving.metrics import Metrics

_log = logging.getLogger("fieldmark.serving")

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_CORS = {
    "Access-Control-Allow-Methods": "GET, POST",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, X-API-Key, X-Request-ID",
    "Access-Control-Max-Age": "600",
}
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

# A client that sends its whole body before it reads the response sees an early error only if the
# server reads the rest of the body; it does so up to these limits.
_DISCARD_BYTES = 64 * 1024 * 1024
_DISCARD_SECONDS = 5.0

HEAD_BYTES = 32 * 1024
"""Most bytes in the head of a request; uvicorn counts only one that arrives in parts."""


class ApiKeys:
    """The valid API keys, compared in constant time."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._digests = [hashlib.sha256(key.encode()).digest() for key in keys]

    def accept(self, headers: Headers) -> bool:
        """Return whether a request has a valid key, or none is required."""
        if not self._digests:
            return True
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            given = headers.get("x-api-key", "")
        digest = hashlib.sha256(given.strip().encode("utf-8", "surrogateescape")).digest()
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        return any(matches)  # after all comparisons, so that the time does not depend on the key


class RequestMiddleware:
    """ASGI middleware around the application; requests to `routes` are counted under their own name."""

    def __init__(self, app: ASGIApp, config: ServeConfig, metrics: Metrics, routes: Iterable[str]) -> None:
        self.app, self._keys, self._metrics = app, ApiKeys(config.keys), metrics
        self._routes, self._origins = frozenset(routes), frozenset(map(str.lower, config.origins))
        # A page of another site can give its own name the address 127.0.0.1, and would then be of the same
        # origin as a server that answers to any name (DNS rebinding).
        own = {"localhost", "127.0.0.1", "[::1]", config.host, f"[{config.host}]"}
        self._hosts = own | {urlsplit(each).netloc for each in self._origins} if config.loopback else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send)
        try:
            await self._answer(exchange)
        finally:
            self._count(exchange)

    async def _answer(self, exchange: _Exchange) -> None:
        scope = exchange.scope
        try:
            if exchange.headers.get("origin", "").lower() in self._origins:
                exchange.origin = exchange.headers["origin"]
            if exchange.origin and "access-control-request-method" in exchange.headers:
                app: ASGIApp = Response(status_code=204, headers=_CORS)
            else:
                error = self._denied(scope, exchange)
                app = self.app if error is None else answers.error_response(error, scope)
            await app(scope, exchange.receive, exchange.send)
        except Exception:
            _log.exception("failed", extra={"fields": {"request_id": exchange.id}})
            if not exchange.status:
                await answers.error_response(defect(), scope)(scope, exchange.receive, exchange.send)

    def _denied(self, scope: Scope, exchange: _Exchange) -> HttpError | None:
        """Return the error of a request that is denied before it reaches the application."""
        path, headers = scope["path"], exchange.headers
        if sum(len(name) + len(value) + 4 for name, value in scope["headers"]) > HEAD_BYTES:
            return HttpError(431, "head-too-large", "The headers of the request are too large.")
        if path.startswith("/health/"):
            return None
        if getattr(scope.get("state", {}).get("connection"), "crowded", False):
            return HttpError(503, "crowded", "Too many connections, retry later.", retry_after=1)
        host = headers.get("host", "").lower()
        if self._hosts is not None and not {host, re.sub(r":\d*$", "", host)} & self._hosts:
            return HttpError(421, "other-host", "This server answers as localhost only: see --allow-origin.")
        return self._denied_to_caller(scope, exchange, host)

    def _denied_to_caller(self, scope: Scope, exchange: _Exchange, host: str) -> HttpError | None:
        """Return the error of a request without a valid key, or from a page of another site."""
        path, headers = scope["path"], exchange.headers
        if not path.startswith("/v1/") and path != "/metrics":
            return None
        elsewhere = headers.get("sec-fetch-site") == "cross-site"
        if "origin" in headers:
            elsewhere |= headers["origin"].lower().partition("//")[2] != host
        if scope["method"] not in ("GET", "HEAD") and elsewhere and not exchange.origin:
            return HttpError(403, "cross-site", "Requests from pages of other sites are denied.")
        if not self._keys.accept(headers):
            return HttpError(401, "key-needed", "The API key is missing or wrong.")
        return None

    def _count(self, exchange: _Exchange) -> None:
        route = exchange.scope["path"] if exchange.scope["path"] in self._routes else "other"
        seconds = time.perf_counter() - exchange.start
        status = exchange.status or 499  # the client disconnected before the response
        self._metrics.requests.labels(route, str(status)).inc()
        self._metrics.request_seconds.labels(route).observe(seconds)
        about = {"method": exchange.scope["method"], "path": exchange.scope["path"][:200]}
        fields = {"request_id": exchange.id, **about, "status": status, "ms": round(1000 * seconds, 1)}
        _log.info("request", extra={"fields": fields})


class _Exchange:
    """One request and its response."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope, self._receive, self._send = scope, receive, send
        self.headers = Headers(scope=scope)
        given = self.headers.get("x-request-id", "")
        self.id = given if _ID.fullmatch(given) else secrets.token_hex(8)
        scope["fieldmark.request_id"] = self.id
        self.status, self.start = 0, time.perf_counter()
        self.origin = ""  # of a page elsewhere that may read the answer
        self._body_left = "transfer-encoding" in self.headers or (
            self.headers.get("content-length", "0") != "0"
        )

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self._body_left = False
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
            headers["X-Request-ID"] = self.id
            if self.origin:
                headers["Access-Control-Allow-Origin"] = self.origin
                headers["Access-Control-Expose-Headers"] = "Retry-After, X-Request-ID"
                headers.add_vary_header("Origin")
            headers.setdefault("Cache-Control", "no-cache" if "etag" in headers else "no-store")
        last = message["type"] == "http.response.body" and not message.get("more_body", False)
        if last and self._body_left:
            await self._send({**message, "more_body": True})
            await self._discard()
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await self._send(message)

    async def _discard(self) -> None:
        """Read the rest of the body after an early response."""
        if "expect" in self.headers:  # the client sends no body before "100 Continue"
            return
        discarded = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(_DISCARD_SECONDS):
                while self._body_left and discarded < _DISCARD_BYTES:
                    message = await self.receive()
                    discarded += len(message.get("body", b""))


class JsonLines(logging.Formatter):
    """Formats a log record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        fields: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=True)
