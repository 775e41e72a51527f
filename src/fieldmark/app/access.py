"""Who may use the application: the person who started it, on this computer; and in which language.

The address that is printed holds a random key; the first visit with it sets a cookie, and without the cookie
nothing is answered, WebSockets included. Requests must name this computer as their host, since a page of
another site can give its own name the address 127.0.0.1 (DNS rebinding), and come from no other site's page.
"""

from __future__ import annotations

import hmac
import re
import secrets
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fieldmark.app.store import Project
from fieldmark.utils import languages

_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})
_HEADERS = {
    # NiceGUI's pages have inline scripts, and Vue compiles their templates; nothing is loaded from elsewhere.
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
        "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
        "connect-src 'self'; worker-src 'self' blob:; "
        "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_NO = "This application belongs to another session: open the address that `fieldmark app` has printed."


class Access:
    """ASGI middleware that answers those with the key alone."""

    def __init__(self, app: ASGIApp, port: int) -> None:
        self.app, self.key = app, secrets.token_urlsafe(24)
        self._cookie = f"fieldmark-{port}"  # cookies are shared by all ports of a computer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request or connection."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        denied = self._denied(scope)
        if denied is None:
            await self.app(scope, receive, _with_headers(send))
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await denied(scope, receive, _with_headers(send))

    def _denied(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "").lower()
        if re.sub(r":\d*$", "", host) not in _HOSTS:
            return PlainTextResponse("The application answers as localhost only.", 421)
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin.lower()).netloc != host:
            return PlainTextResponse("Requests from pages of other sites are denied.", 403)
        given = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("key", [""])[0]
        if scope["type"] == "http" and scope["path"] == "/" and given and self._is_key(given):
            answer = RedirectResponse("/", 303)
            answer.set_cookie(self._cookie, self.key, httponly=True, samesite="lax")
            return answer
        try:
            cookies = SimpleCookie(headers.get("cookie", ""))
        except CookieError:
            cookies = SimpleCookie()
        value = cookies[self._cookie].value if self._cookie in cookies else ""
        return None if self._is_key(value) else PlainTextResponse(_NO, 403)

    def _is_key(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self.key.encode())


class Speaking:
    """ASGI middleware: what is answered to a request is in the language of its reader."""

    def __init__(self, app: ASGIApp, project: Project) -> None:
        self.app, self.project = app, project

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request or connection; it runs in a context of its own."""
        if scope["type"] != "lifespan":
            asked = Headers(scope=scope).get("accept-language", "")
            languages.speak(self.project.setting(languages.SETTING) or languages.preferred(asked))
        await self.app(scope, receive, send)


def _with_headers(send: Send) -> Send:
    async def answer(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return answer
