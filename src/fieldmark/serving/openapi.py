"""What FastAPI does not know of the API: keys, and the refusals that come before a route."""

from __future__ import annotations

from typing import Any

from fieldmark.serving.answers import PROBLEM

_ANYWHERE = {
    "405": "The route has other methods.",
    "421": "The server listens on its own machine alone, and the request names another host.",
    "431": "The headers are too large.",
    "500": "A defect of the server.",
    "503": "Too many connections, or the queue is full: retry after the seconds in Retry-After.",
}
_GUARDED = {
    "401": "The API key is missing or wrong.",
    "403": "The request comes from a page of a site that is not allowed.",
}
_KEYS = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}


def complete(schema: dict[str, Any], *, keys: bool) -> None:
    """Add to a schema, in place, what holds for all routes; `keys`: whether an API key is required."""
    schema["components"]["securitySchemes"] = _KEYS
    error = {"schema": {"$ref": "#/components/schemas/ErrorResponse"}}
    for path, methods in schema["paths"].items():
        guarded = path.startswith("/v1/") or path == "/metrics"
        for about in methods.values():
            for status, why in {**_ANYWHERE, **(_GUARDED if guarded else {})}.items():
                about["responses"].setdefault(status, {"description": why})
            for status, response in about["responses"].items():
                if int(status) >= 400:
                    response["content"] = {PROBLEM: error}
            about["responses"] = dict(sorted(about["responses"].items()))
            about["responses"]["503"]["headers"] = {"Retry-After": {"schema": {"type": "integer"}}}
            if guarded and keys:
                about["security"] = [{name: []} for name in _KEYS]
